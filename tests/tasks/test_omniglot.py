"""Omniglot: splits, rotations, alphabets, and what is said where the data are absent. Most run on a miniature made here."""

from __future__ import annotations

import io
import os
import sys
import types
import zipfile
from collections import Counter
from collections.abc import Iterator
from pathlib import Path
from typing import Any

import pytest
import torch
from PIL import Image

from metarun import draws
from metarun.errors import UserError
from metarun.tasks import omniglot as module
from metarun.tasks.omniglot import LAKE_VALIDATION, Character, omniglot, random_split
from metarun.tasks.pictures.image_files import ImageFiles
from metarun.tasks.pool import SPLITS
from metarun.tasks.sampling import FewShot

FEW = {"ways": 2, "shots": 1, "queries": 1}
BACKGROUND = {"Angelic": 3, "Latin": 2, "Balinese": 3}
EVALUATION = {"Gurmukhi": 4}


def a_drawing(number: int) -> bytes:
    """Draw a bar whose length is the number, black on white in 1 bit, as the official files are."""
    image = Image.new("1", (105, 105), 1)
    image.paste(0, (0, 0, 5 * number, 20))
    buffer = io.BytesIO()
    image.save(buffer, "PNG")
    return buffer.getvalue()


def write_part(path: Path, alphabets: dict[str, int], drawings: int = 2) -> None:
    with zipfile.ZipFile(path, "w") as archive:
        number = 1
        for alphabet, count in alphabets.items():
            for character in range(1, count + 1):
                for drawing in range(1, drawings + 1):
                    archive.writestr(f"{path.stem}/{alphabet}/character{character:02d}/{number:04d}_{drawing:02d}.png", a_drawing(number))
                number += 1


@pytest.fixture
def small(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> Path:
    """Make an Omniglot of 12 characters with 2 drawings each, and have the module expect that."""
    monkeypatch.setenv("METARUN_CACHE", str(tmp_path / "cache"))
    monkeypatch.setattr(module, "PARTS", {"images_background": 8, "images_evaluation": 4})
    monkeypatch.setattr(module, "DRAWINGS", 2)
    monkeypatch.setattr(module, "COUNTS", {"train": 6, "val": 2, "test": 4})
    root = tmp_path / "omniglot"
    root.mkdir()
    write_part(root / "images_background.zip", BACKGROUND)
    write_part(root / "images_evaluation.zip", EVALUATION)
    return root


def write_lists(root: Path, train: str, val: str, test: str) -> None:
    (root / "splits_vinyals").mkdir()
    for name, text in (("train", train), ("val", val), ("test", test)):
        (root / "splits_vinyals" / f"{name}.txt").write_text(text)


def bases(source: FewShot) -> dict[str, set[str]]:
    return {split: {name.rpartition("/")[0] for name in pool.names} for split, pool in source.pools.items()}


def test_ink_is_high_and_the_images_belong_to_their_names(small: Path) -> None:
    pool = omniglot(root=str(small), split="lake", rotations=dict.fromkeys(SPLITS, False), **FEW).pools["test"]
    assert pool.images.shape == (8, 1, 28, 28)
    assert pool.names[0] == "Gurmukhi/character01/rot000"
    lengths = (pool.images[:, 0, 1] > 127).sum(dim=-1)
    assert lengths.tolist() == [round(5 * n * 28 / 105) for n in (1, 1, 2, 2, 3, 3, 4, 4)]
    assert pool.images[:, 0, 20:].max() == 0


def test_ink_0_is_the_same_drawing_with_ink_and_paper_exchanged(small: Path) -> None:
    inverted, plain = (omniglot(root=str(small), split="lake", ink=ink, **FEW).pools["test"] for ink in (1, 0))
    assert torch.equal(plain.images, 255 - inverted.images)


def test_rotated_classes_are_turned_anticlockwise_as_pillow_turns(small: Path) -> None:
    pool = omniglot(root=str(small), split="lake", **FEW).pools["test"]
    place = {name: 2 * index for index, name in enumerate(pool.names)}
    upright = Image.fromarray(pool.images[place["Gurmukhi/character03/rot000"], 0].numpy())
    for degrees in (90, 180, 270):
        turned = pool.images[place[f"Gurmukhi/character03/rot{degrees:03d}"], 0]
        assert turned.flatten().tolist() == list(upright.rotate(degrees).tobytes())


def test_extracted_folders_and_zips_give_the_same_images(small: Path, tmp_path: Path) -> None:
    mixed = tmp_path / "mixed" / "omniglot-py"  # as torchvision leaves them: one folder further down
    for part in module.PARTS:
        with zipfile.ZipFile(small / f"{part}.zip") as archive:
            archive.extractall(mixed)
    for split in SPLITS:
        first = omniglot(root=str(small), **FEW).pools[split]
        second = omniglot(root=str(tmp_path / "mixed"), **FEW).pools[split]
        assert first.names == second.names
        assert torch.equal(first.images, second.images)


def test_rotations_are_chosen_for_each_split(small: Path) -> None:
    source = omniglot(root=str(small), rotations={"test": False, "train": True}, **FEW)
    assert {split: len(pool.names) for split, pool in source.pools.items()} == {"train": 24, "val": 8, "test": 4}


def test_no_character_is_in_two_splits(small: Path) -> None:
    for split in ("random1200", "lake"):
        found = bases(omniglot(root=str(small), split=split, **FEW))
        assert sum(map(len, found.values())) == len(set.union(*found.values())) == 12


def test_the_random_split_depends_on_its_seed_only(small: Path) -> None:
    first, again, other = (bases(omniglot(root=str(small), split_seed=s, seed=t, **FEW)) for s, t in ((1, 0), (1, 5), (2, 0)))
    assert first == again
    assert first != other


def test_the_random_split_of_1623_characters_is_pinned() -> None:
    """Characters are sorted first, so the split does not depend on the order of a folder (in MAML's code it does)."""
    characters = [Character("Alphabet", f"character{n:04d}", 0, 20 * n) for n in range(1623)]
    split = random_split(reversed(characters), 1)
    assert {name: len(members) for name, members in split.items()} == {"train": 1100, "val": 100, "test": 423}
    assert [one.row // 20 for one in split["train"][:5]] == [1306, 1531, 423, 1272, 1372]
    assert [one.row // 20 for one in split["test"][:5]] == [950, 1465, 760, 469, 1469]


def test_lake_validates_on_whole_background_alphabets_and_tests_on_the_evaluation_set(small: Path) -> None:
    pools = omniglot(root=str(small), split="lake", **FEW).pools
    alphabets = {split: {name.split("/")[0] for name in pool.names} for split, pool in pools.items()}
    assert alphabets == {"train": {"Angelic", "Latin"}, "val": {"Balinese"}, "test": {"Gurmukhi"}}


def test_vinyals_lists_decide_classes_and_rotations(small: Path) -> None:
    turned = "".join(f"Angelic/character01/rot{degrees:03d}\n" for degrees in (0, 90, 180, 270))
    write_lists(
        small, turned, "Latin/character01/rot090\nLatin/character02/rot000\n", "Gurmukhi/character01/rot000\nGurmukhi/character02/rot000\n"
    )
    pools = omniglot(root=str(small), split="vinyals", **FEW).pools
    assert [name[-6:] for name in pools["train"].names] == ["rot000", "rot090", "rot180", "rot270"]
    assert sorted(pools["val"].names) == ["Latin/character01/rot090", "Latin/character02/rot000"]


@pytest.mark.parametrize(
    ("lists", "message"),
    [
        (("Latin/character01/rot000", "Latin/character01/rot090", "Angelic/character01/rot000"), "Latin/character01 in train and in val"),
        (("Latin/character09/rot000", "", ""), "names 'Latin/character09/rot000'; a line must be a character"),
        (("Latin/character01/rot045", "", ""), "names 'Latin/character01/rot045'; a line must be a character"),
    ],
)
def test_bad_vinyals_lists_are_refused(small: Path, lists: tuple[str, str, str], message: str) -> None:
    write_lists(small, *lists)
    with pytest.raises(UserError, match=message):
        omniglot(root=str(small), split="vinyals", **FEW)


def test_a_vinyals_list_that_is_no_text_is_refused(small: Path) -> None:
    write_lists(small, "", "", "")
    (small / "splits_vinyals" / "val.txt").write_bytes(b"Latin/\xff")
    with pytest.raises(UserError, match=r"cannot read the class list '.*val\.txt' as text"):
        omniglot(root=str(small), split="vinyals", **FEW)


def test_an_episode_within_alphabets_keeps_to_one_alphabet_in_one_orientation(small: Path) -> None:
    source = omniglot(root=str(small), split="lake", within_groups=True, **{**FEW, "ways": 3})
    names = source.pools["train"].names
    for rows in source.draw("train", torch.arange(60))[0][..., 0].tolist():
        chosen = [names[row // 2] for row in rows]
        assert len({(name.split("/")[0], name[-6:]) for name in chosen}) == 1
        assert chosen[0].startswith("Angelic")  # the two characters of Latin are too few for three ways


@pytest.mark.parametrize(
    ("arguments", "message"),
    [
        ({"split": "vinyal"}, "task.split=vinyal is unknown; .* Did you mean 'vinyals'?"),
        ({"split": "vinyals"}, r"needs the class list '.*train\.txt'"),
        ({"rotations": {"tset": True}}, r"task\.rotations has no split 'tset'"),
    ],
)
def test_bad_arguments_are_refused_in_a_sentence(small: Path, arguments: dict[str, Any], message: str) -> None:
    with pytest.raises(UserError, match=message):
        omniglot(root=str(small), **arguments, **FEW)


def test_absent_data_say_how_to_get_them(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setenv("METARUN_DATA", str(tmp_path))
    with pytest.raises(UserError, match=r"task\.root=DIR.*pip install torchvision.*task\.download=true"):
        omniglot()


def test_incomplete_data_are_refused_with_the_numbers(small: Path) -> None:
    write_part(small / "images_evaluation.zip", {"Gurmukhi": 3})
    with pytest.raises(UserError, match="holds 3 characters instead of 4"):
        omniglot(root=str(small), **FEW)
    write_part(small / "images_evaluation.zip", EVALUATION, drawings=1)
    with pytest.raises(UserError, match="holds 1 drawings of Gurmukhi/character01 instead of 2"):
        omniglot(root=str(small), **FEW)


def test_download_asks_torchvision_and_reads_what_it_fetched(small: Path, tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    def fetch(root: str, background: bool, download: bool) -> None:
        part = "images_background" if background else "images_evaluation"
        (Path(root) / "omniglot-py").mkdir(parents=True, exist_ok=True)
        (small / f"{part}.zip").rename(Path(root) / "omniglot-py" / f"{part}.zip")

    package, datasets = types.ModuleType("torchvision"), types.ModuleType("torchvision.datasets")
    vars(datasets).update(Omniglot=fetch)
    monkeypatch.setitem(sys.modules, "torchvision", package)
    monkeypatch.setitem(sys.modules, "torchvision.datasets", datasets)
    monkeypatch.delenv("METARUN_DATA", raising=False)
    source = omniglot(download=True, **FEW)
    assert len(source.pools["train"].names) == 24
    assert (tmp_path / "cache" / "omniglot" / "omniglot-py" / "images_background.zip").exists()


def test_download_without_torchvision_tells_how_to_install_torchvision(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setitem(sys.modules, "torchvision.datasets", None)
    with pytest.raises(UserError, match=r"pip install torchvision \(a version that fits the installed torch\)"):
        omniglot(root=str(tmp_path), download=True)


needs_data = pytest.mark.skipif(
    not Path(os.environ.get("METARUN_DATA", "/nonexistent"), "omniglot").is_dir(), reason="METARUN_DATA names no folder with omniglot/"
)


@pytest.fixture(scope="module")
def real() -> Iterator[dict[str, FewShot]]:
    """Open the real set without its pixels, which these tests do not need and which take seconds."""

    def blank(files: ImageFiles, *, size: int, channels: int, name: str) -> torch.Tensor:
        return torch.zeros(len(files.names), channels, 1, 1, dtype=torch.uint8)

    with pytest.MonkeyPatch.context() as patch:
        patch.setattr(module, "read_images", blank)
        yield {split: omniglot(split=split) for split in ("random1200", "vinyals", "lake")}


@needs_data
def test_the_real_splits_have_their_published_sizes(real: dict[str, FewShot]) -> None:
    sizes = {name: {split: len(pool.names) for split, pool in source.pools.items()} for name, source in real.items()}
    assert sizes["random1200"] == {"train": 4400, "val": 400, "test": 1692}
    assert sizes["vinyals"] == {"train": 4112, "val": 688, "test": 1692}
    assert sizes["lake"] == {"train": 3240, "val": 616, "test": 2636}


@needs_data
def test_the_held_back_alphabets_are_the_first_five_of_the_documented_permutation(real: dict[str, FewShot]) -> None:
    pools = real["lake"].pools
    background = sorted({name.split("/")[0] for split in ("train", "val") for name in pools[split].names})
    order = draws.permutation(draws.key(0, "omniglot", "lake"), len(background)).tolist()
    assert len(background) == 30
    assert sorted(background[place] for place in order[:5]) == sorted(LAKE_VALIDATION)


@needs_data
def test_twenty_way_episodes_within_alphabets_leave_out_the_four_small_ones(real: dict[str, FewShot]) -> None:
    source = FewShot(real["lake"].pools, ways=20, queries=1, within_groups=True)
    small = {"Blackfoot_(Canadian_Aboriginal_Syllabics)", "Inuktitut_(Canadian_Aboriginal_Syllabics)", "Tagalog"}
    small |= {"Ojibwe_(Canadian_Aboriginal_Syllabics)"}
    for split in ("train", "val"):
        names = source.pools[split].names
        rows = source.draw(split, torch.arange(2000))[0][..., 0].flatten()
        dealt = Counter(names[row // 20].split("/")[0] for row in rows.tolist())
        everything = {name.split("/")[0] for name in names}
        assert set(dealt) == everything - small


@needs_data
def test_the_draws_of_the_first_real_episodes_are_pinned(real: dict[str, FewShot]) -> None:
    def first(split: str) -> list[str]:
        source = real[split]
        return [source.pools["test"].names[row // 20] for row in source.draw("test", torch.tensor([0]))[0][0, :, 0].tolist()]

    assert {split: first(split) for split in real} == {
        "random1200": [
            "Braille/character11/rot180",
            "Old_Church_Slavonic_(Cyrillic)/character02/rot180",
            "Oriya/character26/rot180",
            "Ge_ez/character11/rot090",
            "Tibetan/character39/rot270",
        ],
        "vinyals": [
            "Malayalam/character20/rot180",
            "Syriac_(Serto)/character18/rot180",
            "Tengwar/character14/rot180",
            "Manipuri/character10/rot090",
            "ULOG/character09/rot270",
        ],
        "lake": [
            "Ge_ez/character18/rot180",
            "Oriya/character39/rot180",
            "Sylheti/character21/rot180",
            "Gurmukhi/character05/rot090",
            "Tibetan/character42/rot270",
        ],
    }
