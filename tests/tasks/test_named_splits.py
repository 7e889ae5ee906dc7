"""Named splits of photographs on small stand-ins, in the layouts that copies have on disk."""

from __future__ import annotations

import io
import pickle
import tarfile
import zipfile
from collections.abc import Iterable
from pathlib import Path

import numpy as np
import pytest
import torch
from PIL import Image
from small import composed

from metarun.errors import UserError
from metarun.tasks import named_splits as module
from metarun.tasks.named_splits import class_of, cub, mini_imagenet, tiered_imagenet
from metarun.tasks.pictures.published import published
from metarun.tasks.pool import SPLITS
from metarun.tasks.sampling import FewShot

FEW = {"image_size": 4, "queries": 1}


@pytest.fixture(autouse=True)
def cache(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setenv("METARUN_CACHE", str(tmp_path / "cache"))
    monkeypatch.delenv("METARUN_DATA", raising=False)


@pytest.fixture
def unread(monkeypatch: pytest.MonkeyPatch) -> None:
    """Leave the many pictures of a test undecoded, to save time."""
    monkeypatch.setattr(
        module, "read_images", lambda files, *, size, channels, name: torch.zeros(len(files.names), channels, size, size).byte()
    )


def png(shade: int) -> bytes:
    buffer = io.BytesIO()
    Image.new("RGB", (5, 4), (shade, 0, 0)).save(buffer, "PNG")
    return buffer.getvalue()


PICTURES = [png(shade) for shade in (10, 20)]


def write(root: Path, names: Iterable[str]) -> Path:
    """Write two pictures below the root for each name with an asterisk, which becomes the number of the picture."""
    for name in names:
        for number, content in enumerate(PICTURES):
            path = root / name.replace("*", str(number))
            path.parent.mkdir(parents=True, exist_ok=True)
            path.write_bytes(content)
    return root


def check(source: FewShot, name: str) -> None:
    split = published(name)
    assert {each: source.origins(each) for each in SPLITS} == {
        each: tuple(f"{split.data}/{cls}" for cls in split.splits[each]) for each in SPLITS
    }
    assert {count for pool in source.pools.values() for count in pool.counts} == {2}
    assert source.episode("test", 0).support.x.shape == (5, 3, 4, 4)


MINI, TIERED, CUB = (published(name) for name in ("mini_imagenet", "tiered_imagenet", "cub"))
LAYOUTS = {
    "a folder for each class": [f"{cls}/*.png" for cls in MINI.classes],
    "folders of the splits": [f"{each}/{cls}/{cls}_*.png" for each in SPLITS for cls in MINI.splits[each]],
    "one flat folder": [f"images/{cls}0000000*.png" for cls in MINI.classes],
}


@pytest.mark.parametrize("layout", LAYOUTS)
def test_mini_imagenet_is_read_in_each_layout(layout: str, tmp_path: Path) -> None:
    check(mini_imagenet(root=str(write(tmp_path / "set", LAYOUTS[layout])), **FEW), "mini_imagenet")


@pytest.mark.usefixtures("unread")
def test_mini_imagenet_is_read_from_a_zip_and_from_the_folder_of_metarun_data(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    with zipfile.ZipFile(tmp_path / "mini_imagenet", "w") as archive:
        for cls in MINI.classes:
            for number, content in enumerate(PICTURES):
                archive.writestr(f"mini/images/{cls}/{number}.png", content)
    monkeypatch.setenv("METARUN_DATA", str(tmp_path))
    check(mini_imagenet(**FEW), "mini_imagenet")


@pytest.mark.usefixtures("unread")
def test_the_lists_beside_the_images_choose_the_images(tmp_path: Path, caplog: pytest.LogCaptureFixture) -> None:
    """Each class has three images, and the lists name two of them."""
    root = write(tmp_path / "set", [*LAYOUTS["one flat folder"], *(f"images/{cls}00000009.png" for cls in MINI.classes)])
    for each in SPLITS:
        lines = [f"{cls}0000000{number}.png,{cls}" for cls in MINI.splits[each] for number in range(2)]
        (root / f"{each}.csv").write_text("\n".join(["filename,label", *lines]))
    check(mini_imagenet(root=str(root), **FEW), "mini_imagenet")
    assert "has 200 images of the classes of mini_imagenet; the published set has 60,000" in caplog.text


def test_mini_imagenet_is_read_from_pickles_of_arrays(tmp_path: Path) -> None:
    for each in SPLITS:
        classes = list(MINI.splits[each])
        images = np.repeat(np.arange(2 * len(classes), dtype=np.uint8), 48).reshape(-1, 4, 4, 3)
        content = {"image_data": images, "class_dict": {cls: [2 * number, 2 * number + 1] for number, cls in enumerate(classes)}}
        (tmp_path / f"mini-imagenet-cache-{each}.pkl").write_bytes(pickle.dumps(content, protocol=2))
    source = mini_imagenet(root=str(tmp_path), **FEW)
    check(source, "mini_imagenet")
    x = source.episode("test", 0).query.x
    assert ((x * 255).round() < 40).all()  # the rows of the test file, not of another one


@pytest.mark.usefixtures("unread")
def test_tiered_imagenet_is_read_and_its_superclasses_are_groups(tmp_path: Path) -> None:
    root = write(tmp_path / "set", [f"{each}/{cls}/*.png" for each in SPLITS for cls in TIERED.splits[each]])
    source = tiered_imagenet(root=str(root), **FEW, within_groups=True)
    check(source, "tiered_imagenet")
    assert [len(set(source.pools[each].groups or ())) for each in SPLITS] == [20, 6, 8]


def test_species_of_cub_may_lack_their_numbers() -> None:
    assert class_of("images/Black_footed_Albatross/1.jpg", CUB.spellings) == "001.Black_footed_Albatross"
    assert len(set(CUB.spellings)) == 2 * 200


@pytest.mark.usefixtures("unread")
def test_cub_is_read_from_the_archive_of_its_authors(tmp_path: Path) -> None:
    root = write(tmp_path / "set", [f"CUB_200_2011/images/{cls}/*.png" for cls in CUB.classes])
    with tarfile.open(tmp_path / "CUB_200_2011.tgz", "w:gz") as archive:
        archive.add(root / "CUB_200_2011", "CUB_200_2011")
    check(cub(root=str(tmp_path / "CUB_200_2011.tgz"), **FEW), "cub")


@pytest.mark.usefixtures("unread")
def test_lists_of_mini_imagenet_say_nothing_about_another_split(tmp_path: Path) -> None:
    root = write(tmp_path / "set", [f"{cls}/*.png" for cls in TIERED.classes])
    for each, other in zip(SPLITS, reversed(SPLITS), strict=True):
        (root / f"{each}.csv").write_text("".join(f"0.png,{cls}\n" for cls in MINI.splits[other]))
    check(tiered_imagenet(root=str(root), **FEW), "tiered_imagenet")


@pytest.mark.usefixtures("unread")
def test_cub_is_read_from_its_folder_without_the_masks(tmp_path: Path) -> None:
    names = [f"CUB_200_2011/{part}/{cls}/*.png" for cls in CUB.classes for part in ("images", "segmentations")]
    root = write(tmp_path / "set", names)
    for place in (root, root / "CUB_200_2011", root / "CUB_200_2011/images"):
        check(cub(root=str(place), **FEW), "cub")


@pytest.mark.usefixtures("unread")
def test_a_class_of_mini_and_of_tiered_imagenet_has_one_origin(tmp_path: Path) -> None:
    """So that metarun refuses a test on mini-ImageNet's classes that a network has seen in tiered-ImageNet."""
    root = str(write(tmp_path / "set", [f"{cls}/*.png" for cls in {*MINI.classes, *TIERED.classes}]))
    mini, tiered = mini_imagenet(root=root, **FEW), tiered_imagenet(root=root, **FEW)
    assert len(set(mini.origins("test")) & set(tiered.origins("train"))) > 0
    shared = set(mini.numbers["test"].tolist()) & set(tiered.numbers["train"].tolist())
    assert len(shared) == len(set(mini.origins("test")) & set(tiered.origins("train")))


@pytest.mark.usefixtures("unread")
def test_other_classes_are_left_out_and_named(tmp_path: Path, caplog: pytest.LogCaptureFixture) -> None:
    root = write(tmp_path / "set", [*LAYOUTS["a folder for each class"], "n00000001/*.png", "n00000002/*.png"])
    check(mini_imagenet(root=str(root), **FEW), "mini_imagenet")
    assert "2 folders of images that are no class of mini_imagenet, such as 'n00000001'" in caplog.text


def test_a_copy_that_lacks_classes_is_refused_with_their_number(tmp_path: Path) -> None:
    root = write(tmp_path / "set", [f"{cls}/*.png" for cls in MINI.splits["train"]])
    with pytest.raises(UserError, match=r"no images of 16 of the 16 val classes \(.*\) and 20 of the 20 test classes .* of mini_imagenet;"):
        mini_imagenet(root=str(root), **FEW)


def test_a_class_with_too_few_images_is_refused_by_its_name(tmp_path: Path) -> None:
    root = write(tmp_path / "set", LAYOUTS["a folder for each class"])
    with pytest.raises(UserError, match=r"n01532829 house finch' has 2, .*; 1 shot \+ 15 queries need 16"):
        mini_imagenet(root=str(root), image_size=4)


def test_a_copy_that_is_absent_or_of_another_form_is_refused_with_the_reason(tmp_path: Path) -> None:
    with pytest.raises(UserError, match=r"task=cub needs task.root=DIR, .* or the folder cub/ in METARUN_DATA"):
        cub(**FEW)
    with pytest.raises(UserError, match="there is no folder or zip"):
        cub(root=str(tmp_path / "absent"), **FEW)
    (tmp_path / "CUB_200_2011.tgz").write_bytes(b"x")
    with pytest.raises(UserError, match=r"cannot unpack .*CUB_200_2011.tgz' into the cache folder"):
        cub(root=str(tmp_path / "CUB_200_2011.tgz"), **FEW)
    with pytest.raises(UserError, match=r"no image of a published class, but 1 file such as 'CUB_200_2011.tgz', an archive"):
        cub(root=str(tmp_path), **FEW)
    (tmp_path / "tiered").mkdir()
    (tmp_path / "tiered/train_images_png.pkl").write_bytes(b"x")
    with pytest.raises(UserError, match=r"'train_images_png.pkl', a pickle, and reading a pickle can run any code"):
        tiered_imagenet(root=str(tmp_path / "tiered"), **FEW)


def test_training_images_of_each_benchmark_are_augmented_by_default() -> None:
    for name in ("mini_imagenet", "tiered_imagenet", "cub", "cifar_fs", "fc100"):
        assert composed(f"task={name}")["task"]["augment"] is True


def test_the_nearest_folder_tells_the_class_before_the_name_of_the_file() -> None:
    known = {name: name for name in ("n01532829", "n02091244")}
    assert class_of("n02091244/n01532829_1.jpg", known) == "n02091244"
    assert class_of("n01532829/n02091244/x/1.jpg", known) == "n02091244"
    assert class_of("all/n0153282900000005.jpg", known) == "n01532829"
    assert class_of("n01532828/n01532828_1.jpg", known) is None
    assert class_of("n01532829.jpg", known) == "n01532829"
