"""The user's own images: how classes are found and divided, how a split is restored, and what is refused."""

from __future__ import annotations

import json
import os
import sys
import zipfile
from pathlib import Path
from typing import Any

import messy_photos
import pytest
import torch
from PIL import Image

from metarun.errors import UserError
from metarun.tasks import folder as module
from metarun.tasks.folder import class_split, folder
from metarun.tasks.pictures import images
from metarun.tasks.pictures.image_files import ImageFiles
from metarun.tasks.pool import SPLITS
from metarun.tasks.sampling import FewShot

FEW = {"ways": 2, "shots": 1, "queries": 1}
GOLDEN_SPLIT = {"train": ["c1", "c3", "c4", "c7", "c8", "c9"], "val": ["c0", "c5"], "test": ["c2", "c6"]}


@pytest.fixture(autouse=True)
def cache(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setenv("METARUN_CACHE", str(tmp_path / "cache"))


def a_class(root: Path, name: str, shade: int, count: int = 3) -> None:
    (root / name).mkdir(parents=True, exist_ok=True)
    for number in range(count):
        Image.new("RGB", (12, 10), (shade, number, 0)).save(root / name / f"{number}.png")


@pytest.fixture
def root(tmp_path: Path) -> Path:
    """Ten classes c0 to c9 of three images, the red of an image being its class."""
    for number in range(10):
        a_class(tmp_path / "set", f"c{number}", number)
    return tmp_path / "set"


def source(root: Path | None, **arguments: Any) -> FewShot:
    return folder(**{"root": root and str(root), "image_size": 8, **FEW, **arguments})


def test_fractions_and_numbers_of_classes_divide_the_classes_without_overlap(root: Path) -> None:
    sizes = {
        (0.64, 0.16, 0.20): [6, 2, 2],
        (0.4, 0.3, 0.3): [4, 3, 3],
        (0.2, 0.2, 0.2): [2, 2, 2],
        (5.0, 3.0, 2.0): [5, 3, 2],
        (2, 2, 3): [2, 2, 3],
    }
    for parts, expected in sizes.items():
        chosen = class_split(source(root, split=parts))
        assert [len(chosen[split]) for split in SPLITS] == expected
        assert len({name for names in chosen.values() for name in names}) == sum(expected)


def test_each_pool_holds_the_images_of_its_own_classes(root: Path) -> None:
    a_class(root, "c3", 3, count=5)
    for pool in source(root).pools.values():
        assert pool.counts == [5 if name == "c3" else 3 for name in pool.names]
        shades = [int(name[1:]) for name, count in zip(pool.names, pool.counts, strict=True) for _ in range(count)]
        shown = pool.values(torch.arange(sum(pool.counts)))
        assert shown.shape == (sum(pool.counts), 3, 8, 8)
        assert (255 * shown[:, 0, 4, 4]).round().tolist() == shades


def test_a_large_set_is_mapped_and_deals_the_same_episodes_without_a_copy(root: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    plain = source(root)
    monkeypatch.setattr(images, "LARGE", 1)
    large = source(root)
    assert len({pool.images.data_ptr() for pool in large.pools.values()}) == 1
    assert torch.equal(large.batch("train", torch.arange(20)).query.x, plain.batch("train", torch.arange(20)).query.x)


def test_the_split_is_drawn_by_its_seed_and_pinned(root: Path) -> None:
    assert class_split(source(root)) == class_split(source(root, seed=3)) == GOLDEN_SPLIT
    assert class_split(source(root, split_seed=1)) != GOLDEN_SPLIT


def test_the_draws_of_the_first_episodes_are_pinned(root: Path) -> None:
    dealt = source(root)
    assert {split: dealt.draw(split, torch.tensor([0]))[0][0].tolist() for split in SPLITS} == {
        "train": [[9, 10], [3, 5]],
        "val": [[0, 1], [4, 5]],
        "test": [[2, 1], [4, 5]],
    }


def test_a_split_given_back_deals_the_same_episodes_after_classes_were_added(root: Path) -> None:
    first = source(root)
    saved = json.loads(json.dumps(class_split(first)))
    a_class(root, "a_new_class", 99)
    restored = source(root, classes=saved, split_seed=5)
    assert class_split(restored) == saved
    for split in SPLITS:
        assert torch.equal(first.episode(split, 3).query.x, restored.episode(split, 3).query.x)


def test_a_split_file_is_obeyed_and_may_leave_classes_out(root: Path, tmp_path: Path) -> None:
    lists = {"note": "mine", "train": ["c5", "c1"], "val": ["c2", "c0"], "test": ["c9", "c8"]}
    (tmp_path / "split.json").write_text(json.dumps(lists))
    assert class_split(source(root, split_file=str(tmp_path / "split.json"))) == {split: lists[split] for split in SPLITS}


@pytest.mark.parametrize("top", ["", "photos", "photos/inner"])
@pytest.mark.parametrize("packed", [False, True])
def test_train_val_and_test_folders_are_taken_as_they_are(tmp_path: Path, top: str, packed: bool) -> None:
    base, place = tmp_path / "ready", tmp_path / "ready" / top
    for split, names in (("train", "abc"), ("val", "de"), ("test", "fg")):
        for shade, name in enumerate(names):
            a_class(place / split, name, shade)
    (place / "README.md").write_text("about")
    Image.new("L", (4, 4)).save(place / "overview.png")
    Image.new("L", (4, 4)).save(place / "train" / "overview.png")
    if packed:
        with zipfile.ZipFile(tmp_path / "ready.zip", "w") as archive:
            for path in base.rglob("*.*"):
                archive.write(path, path.relative_to(base))
        base = tmp_path / "ready.zip"
    assert class_split(source(base)) == {"train": ["a", "b", "c"], "val": ["d", "e"], "test": ["f", "g"]}


def test_classes_below_one_top_folder_are_found_with_all_images_below_them(tmp_path: Path) -> None:
    for number in range(6):
        a_class(tmp_path / "set" / "top", f"c{number}/2023", number, 1)
        a_class(tmp_path / "set" / "top", f"c{number}/2024", number, 2)
    Image.new("L", (4, 4)).save(tmp_path / "set" / "top" / "overview.png")
    chosen = source(tmp_path / "set", split=[2, 2, 2])
    assert sorted(name for names in class_split(chosen).values() for name in names) == [f"c{n}" for n in range(6)]
    assert [count for pool in chosen.pools.values() for count in pool.counts] == [3] * 6


def test_colour_becomes_grey_on_demand(root: Path) -> None:
    assert source(root, channels=1).episode("train", 0).support.x.shape == (2, 1, 8, 8)


def test_small_classes_of_a_large_set_are_named_before_any_image_is_read(root: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr(module, "try_images", lambda *_, **__: pytest.fail("images were read"))
    monkeypatch.setattr(module, "READ", 20)
    a_class(root, "oak", 0, count=1)
    lists = {"train": ["oak", "c1"], "val": ["c2", "c3"], "test": ["c4", "c5"]}
    with pytest.raises(UserError, match=r"(?s)class 'oak' has 1 image; 1 shot \+ 1 query need 2.*has not read the 31 images yet"):
        source(root, classes=lists)


def test_control_characters_in_the_name_of_a_class_are_printed_as_escapes(root: Path) -> None:
    a_class(root, "a\nb\x1b[2J", 0, count=1)
    lists = {"train": ["a\nb\x1b[2J", "c1"], "val": ["c2", "c3"], "test": ["c4", "c5"]}
    with pytest.raises(UserError, match=r"class 'a\\nb\\x1b\[2J' has 1 image;"):
        source(root, classes=lists)


def test_more_ways_than_classes_are_refused_with_the_numbers(root: Path) -> None:
    with pytest.raises(UserError, match="the val split has 2 classes; 5 ways need more"):
        source(root, ways=5)


@pytest.mark.parametrize(
    ("arguments", "message"),
    [
        ({"root": None}, r"task=folder needs task\.root=DIR"),
        ({"root": "nowhere"}, "there is no folder or zip 'nowhere'"),
        ({"split": [0.5, 0.5]}, "must be three positive numbers"),
        ({"split": [0.5, 0.0, 0.5]}, "must be three positive numbers"),
        ({"split": [0.9, 0.2, 0.2]}, r"adds up to 1\.3"),
        ({"split": [0.8, 0.1, 0.1]}, "makes 8/1/1 of the 10 classes; each split needs at least 2"),
        ({"split": [8, 2, 2]}, "makes 8/2/2 of the 10 classes; each split needs at least 2, all together at most 10"),
        ({"split_file": "none.json"}, r"cannot read task\.split_file 'none\.json'"),
        ({"classes": {"train": ["c1"]}}, "must have the three lists train, val and test"),
        ({"classes": {"train": [1], "val": ["c1"], "test": ["c2"]}}, "must have the three lists train, val and test of class names"),
        (
            {"classes": {"train": ["c0", "c11"], "val": ["c2"], "test": ["c3"]}},
            "class 'c11' in train, .* no such folder with images. Did you mean 'c1'?",
        ),
        ({"classes": {"train": ["c0", "c1"], "val": ["c2"], "test": ["c1"]}}, "class 'c1' in train and in test"),
    ],
)
def test_bad_arguments_are_refused_in_a_sentence(root: Path, arguments: dict[str, Any], message: str) -> None:
    with pytest.raises(UserError, match=message):
        source(**{"root": root, **arguments})


def test_a_split_file_that_is_no_json_is_refused(root: Path, tmp_path: Path) -> None:
    (tmp_path / "split.json").write_text("train: a")
    with pytest.raises(UserError, match="it must be a JSON file with the lists train, val and test"):
        source(root, split_file=str(tmp_path / "split.json"))


def test_a_split_file_that_is_no_file_or_nests_too_deeply_is_refused(root: Path, tmp_path: Path) -> None:
    (tmp_path / "deep.json").write_text("[" * 200_000)
    for path, reason in ((os.devnull, "is no file"), (str(tmp_path), "is no file"), (str(tmp_path / "deep.json"), "recursion")):
        with pytest.raises(UserError, match=f"{reason}.*it must be a JSON file"):
            source(root, split_file=path)


@pytest.mark.parametrize("content", [[], ["notes.txt"], ["loose.png"], ["oak/1.png"]])
def test_a_folder_without_two_classes_is_refused_with_the_number(tmp_path: Path, content: list[str]) -> None:
    (tmp_path / "set").mkdir()
    for name in content:
        (tmp_path / "set" / name).parent.mkdir(exist_ok=True)
        (tmp_path / "set" / name).write_bytes(b"")
    found = 1 if content == ["oak/1.png"] else 0
    with pytest.raises(UserError, match=f"holds {found} class folders with images; it needs one folder per class and at least 2"):
        source(tmp_path / "set")


def test_a_class_in_two_ready_splits_is_refused(tmp_path: Path) -> None:
    for split, names in (("train", "ab"), ("val", "cd"), ("test", "ae")):
        for name in names:
            a_class(tmp_path / "set" / split, name, 0)
    with pytest.raises(UserError, match="class 'a' in train and in test"):
        source(tmp_path / "set")


@pytest.mark.parametrize("names", ["Train Val TEST", "training valid testing", "train dev test", "base val novel", "Base VAL Novel"])
def test_the_folders_of_a_ready_split_may_have_other_usual_names(tmp_path: Path, names: str) -> None:
    for split, classes in zip(names.split(), ("abc", "de", "fg"), strict=True):
        for name in classes:
            a_class(tmp_path / "set" / split, name, 0)
    assert class_split(source(tmp_path / "set")) == {"train": ["a", "b", "c"], "val": ["d", "e"], "test": ["f", "g"]}
    a_class(tmp_path / "set" / "val", "h", 0)
    if "val" not in names.split():
        with pytest.raises(UserError, match="a ready split needs the folders train, val and test, and no other"):
            source(tmp_path / "set")


def test_class_names_that_only_look_alike_are_refused_and_lists_match_either_spelling(root: Path) -> None:
    composed, decomposed = "caf\u00e9", "cafe\u0301"
    a_class(root, decomposed, 3)
    lists = {"train": [composed, "c1"], "val": ["c2", "c3"], "test": ["c4", "c5"]}
    assert class_split(source(root, classes=lists))["train"] == [decomposed, "c1"]
    a_class(root, composed, 3)
    with pytest.raises(UserError, match=r"two class folders '.*', whose names use different code points"):
        source(root)


@pytest.mark.skipif(os.name != "posix" or sys.platform == "darwin", reason="names of files are text here")
def test_a_class_name_that_is_no_text_is_refused_printably(root: Path) -> None:
    os.makedirs(os.fsencode(root) + b"/M\xfcller")
    Image.new("L", (4, 4)).save(Path(os.fsdecode(os.fsencode(root) + b"/M\xfcller/1.png")))
    with pytest.raises(UserError, match=r"class folder 'M\\udcfcller' .* is not UTF-8; rename it") as raised:
        source(root)
    assert str(raised.value).isprintable()


def test_support_and_query_never_share_a_file_whatever_links_there_are(root: Path) -> None:
    """D2: a link from a class folder to its parent showed each image 41 times."""
    for number in range(10):
        (root / f"c{number}" / "up").symlink_to("..")
        (root / f"c{number}" / "again.png").symlink_to("0.png")
        os.link(root / f"c{number}" / "1.png", root / f"c{number}" / "twin.png")
    assert [count for pool in source(root).pools.values() for count in pool.counts] == [3] * 10


def test_a_zip_with_backslashes_holds_the_same_classes(root: Path, tmp_path: Path) -> None:
    with zipfile.ZipFile(tmp_path / "set.zip", "w") as archive:
        for path in root.rglob("*.png"):
            archive.write(path, "photos\\" + "\\".join(path.relative_to(root).parts))
    packed = source(tmp_path / "set.zip")
    assert class_split(packed) == GOLDEN_SPLIT
    assert torch.equal(packed.episode("train", 0).query.x, source(root).episode("train", 0).query.x)


def test_an_unreadable_image_is_named(root: Path) -> None:
    (root / "c4" / "broken.jpg").write_bytes(b"not a jpeg")
    with pytest.raises(UserError, match=r"cannot read 'c4/broken\.jpg'"):
        source(root)


def test_all_complaints_come_in_one_message_with_the_keys_that_help(root: Path) -> None:
    for name in ("oak", "elm"):
        a_class(root, name, 0, count=1)
    (root / "c4" / "broken.jpg").write_bytes(b"not a jpeg")
    (root / "c4" / "IMG.HEIC").write_bytes(b"\0\0\0\x18ftypheic" + bytes(20))
    with pytest.raises(UserError) as raised:
        source(root, ways=6, split=[4, 4, 4])
    first, *complaints = str(raised.value).split("\n")
    assert first == f"{len(complaints)} things need a change:"
    assert complaints[0].startswith("- cannot read 2 of the 34 files")
    assert "'c4/IMG.HEIC' (HEIC, which Pillow here cannot read; install pillow-heif" in complaints[0]
    assert complaints[0].endswith("or leave them out with task.skip_bad=true.")
    small = [line for line in complaints if "1 shot + 1 query need 2" in line]
    assert sum("'oak' has 1" in line or "'elm' has 1" in line for line in small) >= 1
    assert all("task.skip_small=true" in line for line in small)
    assert sum("split has 4 classes; 6 ways need more. Lower task.ways to 4 or less." in line for line in complaints) == 3


def test_small_classes_and_bad_files_are_left_out_on_demand_and_listed(root: Path, caplog: pytest.LogCaptureFixture) -> None:
    a_class(root, "oak", 0, count=1)
    (root / "c4" / "broken.jpg").write_bytes(b"not a jpeg")
    made = source(root, skip_small=True, skip_bad=True)
    assert class_split(made) == GOLDEN_SPLIT
    assert {count for pool in made.pools.values() for count in pool.counts} == {3}
    bad = {"c4/broken.jpg": "no image of a format that metarun reads"}
    assert made.chosen["left_out"] == {"classes": {"oak": 1}, "files": bad}
    assert "left out 1 unreadable file of" in caplog.text
    assert "left out 1 class of" in caplog.text
    assert "'oak' has 1" in caplog.text


def test_a_resumed_run_leaves_out_the_same_files_though_they_can_be_read_now(root: Path) -> None:
    (root / "c4" / "0b.png").write_bytes(b"no image")
    first = source(root, skip_bad=True)
    saved = {"classes": class_split(first), "left_out": json.loads(json.dumps(first.chosen["left_out"]))}
    Image.new("RGB", (12, 10), (4, 9, 9)).save(root / "c4" / "0b.png")
    again = source(root, **saved)
    assert again.chosen["left_out"]["files"] == saved["left_out"]["files"]
    for split in SPLITS:
        assert torch.equal(first.batch(split, torch.arange(9)).query.x, again.batch(split, torch.arange(9)).query.x)


def test_a_class_of_unreadable_files_only_counts_as_small(root: Path) -> None:
    (root / "oak").mkdir()
    for number in range(3):
        (root / "oak" / f"{number}.png").write_bytes(b"")
    with pytest.raises(UserError, match=r"(?s)cannot read 3 of the 33 files.*class 'oak' has 0 images; 1 shot \+ 1 query need 2"):
        source(root)
    assert source(root, skip_bad=True, skip_small=True).chosen["left_out"]["classes"] == {"oak": 0}


def test_classes_that_a_list_names_are_left_out_of_their_split_where_they_are_small(root: Path) -> None:
    a_class(root, "oak", 0, count=1)
    lists = {"train": ["oak", "c1", "c0"], "val": ["c2", "c3"], "test": ["c4", "c5"]}
    assert class_split(source(root, classes=lists, skip_small=True))["train"] == ["c1", "c0"]


def test_a_split_that_lost_its_small_classes_is_refused_with_what_was_left_out(root: Path) -> None:
    with pytest.raises(UserError) as raised:
        source(root, classes=GOLDEN_SPLIT, shots=9, skip_small=True, used=["test"])
    assert str(raised.value).split("\n")[1:] == [
        "- the test split has 0 classes; 2 ways need more. An episode has at least 2 ways, so give this split more classes.",
        "- task.skip_small=true leaves out 2 classes with too few images: 'c2' has 3, 'c6' has 3.",
    ]


def test_a_set_of_small_classes_only_is_refused_with_the_images_that_a_class_needs(root: Path) -> None:
    with pytest.raises(UserError) as raised:
        source(root, shots=9, skip_small=True)
    first, second = str(raised.value).split("\n")[1:]
    assert first.startswith("- a split into train, val and test needs at least 6 classes")
    assert second.startswith("- task.skip_small=true leaves out 10 classes with too few images: ")
    assert second.endswith(" A class needs 10 images; lower task.shots, task.queries or task.train_queries to keep these classes.")


def test_loose_images_and_empty_class_folders_are_mentioned_and_not_used(root: Path, caplog: pytest.LogCaptureFixture) -> None:
    (root / "loose.jpg").write_bytes(b"not even an image")
    (root / "elm" / "deep").mkdir(parents=True)
    (root / "notes").mkdir()
    (root / "notes" / "about.txt").write_text("text")
    assert class_split(source(root)) == GOLDEN_SPLIT
    assert "1 image outside the class folders, which metarun does not use: loose.jpg" in caplog.text
    assert "2 class folders without an image: elm, notes" in caplog.text


def test_sizes_that_the_user_leaves_open_follow_what_the_splits_hold(tmp_path: Path, caplog: pytest.LogCaptureFixture) -> None:
    for number in range(14):
        a_class(tmp_path / "set", f"c{number}", number, count=9 if number == 5 else 12)
    recipe = {"train_ways": 20, "train_queries": 5}
    caplog.set_level("INFO")
    made = folder(root=str(tmp_path / "set"), image_size=8, usual=recipe, augment=None)
    assert {split: len(pool.names) for split, pool in made.pools.items()} == {"train": 8, "val": 3, "test": 3}
    expected = {"ways": 3, "queries": 11, "train_ways": 8, "train_queries": 5}
    if any("c5" in made.pools[split].names for split in ("val", "test")):
        expected["queries"] = 8
    assert {key: made.chosen[key] for key in expected} == expected
    assert made.augment
    assert "task.ways=3 (usually 5)" in caplog.text
    assert "task.train_ways=8 (usually 20)" in caplog.text
    assert "task.augment=true" in caplog.text
    again = folder(root=str(tmp_path / "set"), image_size=8, usual=recipe, classes=class_split(made), **made.chosen)
    for split in SPLITS:
        assert torch.equal(made.episode(split, 3).query.x, again.episode(split, 3).query.x)
    with pytest.raises(UserError, match=r"the train split has 8 classes; 20 ways need more\. Lower task\.train_ways to 8"):
        folder(root=str(tmp_path / "set"), image_size=8, train_ways=20)


def test_the_split_makes_room_for_the_ways_that_the_user_asks_for(tmp_path: Path) -> None:
    for number in range(14):
        a_class(tmp_path / "set", f"c{number}", number)
    made = source(tmp_path / "set", ways=5, train_ways=None, usual={"train_ways": 20})
    assert {split: len(pool.names) for split, pool in made.pools.items()} == {"train": 4, "val": 5, "test": 5}
    assert made.chosen["train_ways"] == 4


def test_a_split_without_a_folder_is_drawn_from_the_training_classes(tmp_path: Path) -> None:
    for split, names in (("train", "abcdefghi"), ("Test", "xyz")):
        for name in names:
            a_class(tmp_path / "set" / split, name, 0)
    chosen = class_split(source(tmp_path / "set"))
    assert chosen["test"] == ["x", "y", "z"]
    assert len(chosen["val"]) == 2
    assert sorted(chosen["train"] + chosen["val"]) == list("abcdefghi")
    assert class_split(source(tmp_path / "set", split_seed=3))["val"] != chosen["val"]


def test_train_and_test_folders_of_the_same_classes_are_refused_with_what_a_split_is(tmp_path: Path) -> None:
    for split in ("train", "test"):
        for name in "abcdef":
            a_class(tmp_path / "set" / split, name, 0)
    with pytest.raises(UserError, match=r"has 6 classes in train and in test, 'a', 'b', .* divides classes, not images"):
        source(tmp_path / "set", classes=None)


def test_an_evaluation_asks_only_the_classes_that_it_uses_for_their_images(root: Path) -> None:
    for name in ("c2", "c6"):
        a_class(root, name, 0, count=12)
    made = source(root, shots=10, classes=GOLDEN_SPLIT, train_shots=1, used=["test"])
    assert made.episode("test", 0).support.x.shape[0] == 20
    with pytest.raises(UserError, match="2 val classes have too few images"):
        made.episode("val", 0)
    with pytest.raises(UserError, match="2 val classes have too few images: 'c0' has 3, 'c5' has 3; 10 shots"):
        source(root, shots=10, classes=GOLDEN_SPLIT, train_shots=1)


CALTECH = Path(os.environ.get("METARUN_DATA", "/nonexistent"), "caltech101")
needs_caltech = pytest.mark.skipif(not CALTECH.is_dir(), reason="METARUN_DATA names no caltech101/")


@needs_caltech
def test_photographs_as_people_have_them_are_refused_with_the_flags_that_help_and_then_deal_episodes(
    tmp_path: Path, caplog: pytest.LogCaptureFixture
) -> None:
    place = messy_photos.messy(CALTECH / "caltech101_84x84.zip", tmp_path / "photos")
    recipe: dict[str, Any] = {"usual": {"train_ways": 20, "train_queries": 5}, "augment": None}
    with pytest.raises(UserError) as raised:
        folder(root=str(place), **recipe)
    _, bad, small = str(raised.value).split("\n")
    assert messy_photos.BROKEN in bad
    assert "task.skip_bad=true" in bad
    assert f"class '{messy_photos.SMALL}' has {messy_photos.FEW} images" in small
    assert "task.skip_small=true" in small
    made = folder(root=str(place), skip_bad=True, skip_small=True, **recipe)
    assert {split: len(pool.names) for split, pool in made.pools.items()} == {"train": 5, "val": 3, "test": 3}
    assert set(made.chosen["left_out"]["files"]) == {messy_photos.BROKEN}
    counts = {name: count for pool in made.pools.values() for name, count in zip(pool.names, pool.counts, strict=True)}
    assert counts == {name: messy_photos.MANY - (name == "chair") for name in messy_photos.CLASSES.values() if name != messy_photos.SMALL}
    assert made.episode("train", 0).query.x.shape == (25, 3, 84, 84)
    assert "loose.jpg" in caplog.text
    assert "to sort" in caplog.text


@needs_caltech
def test_the_photographs_are_divided_as_their_split_file_says(monkeypatch: pytest.MonkeyPatch) -> None:
    """Without their pixels, which take seconds to read."""

    def blank(files: ImageFiles, *, size: int, channels: int, name: str) -> tuple[torch.Tensor, dict[str, str]]:
        return torch.zeros(len(files.names), channels, 1, 1, dtype=torch.uint8), {}

    monkeypatch.setattr(module, "try_images", blank)
    data = CALTECH
    photographs = folder(root=str(data / "caltech101_84x84.zip"), split_file=str(data / "splits_64_16_20.json"), shots=5)
    assert {split: len(pool.names) for split, pool in photographs.pools.items()} == {"train": 64, "val": 16, "test": 20}
    assert sum(len(pool.rows) for pool in photographs.pools.values()) == 8677 - 435  # without Faces_easy
