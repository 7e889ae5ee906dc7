"""The lists of images beside a copy of mini-ImageNet."""

from __future__ import annotations

import zipfile
from pathlib import Path

import pytest

from metarun.errors import UserError
from metarun.tasks.pictures.image_lists import read_lists
from metarun.tasks.pictures.published import published
from metarun.tasks.pool import SPLITS

MINI = published("mini_imagenet")
FIRST = {each: next(iter(MINI.splits[each])) for each in SPLITS}


def texts(order: str) -> dict[str, str]:
    """Return the three lists with one line each; order: of the columns."""
    return {each: f"a,b\n{order.format(file=f'{cls}_7.JPEG', cls=cls)}\n" for each, cls in FIRST.items()}


@pytest.mark.parametrize("order", ["{file},{cls}", "{cls},{file}", "images/{file},{cls}"])
@pytest.mark.parametrize("place", ["", "split"])
def test_a_line_has_file_and_class_in_any_order(order: str, place: str, tmp_path: Path) -> None:
    (tmp_path / place).mkdir(exist_ok=True)
    for each, text in texts(order).items():
        (tmp_path / place / f"{each}.csv").write_text(text)
    listed = read_lists(tmp_path, MINI)
    assert dict(listed.classes) == {f"{cls}_7.JPEG": cls for cls in FIRST.values()}
    assert listed.class_of(f"some/folder/{FIRST['val']}_7.JPEG") == FIRST["val"]
    assert listed.class_of(f"{FIRST['val']}_8.JPEG") is None


def test_lists_are_read_from_a_zip(tmp_path: Path) -> None:
    with zipfile.ZipFile(tmp_path / "mini.zip", "w") as archive:
        for each, text in texts("{file},{cls}").items():
            archive.writestr(f"mini/{each}.csv", text)
    assert len(read_lists(tmp_path / "mini.zip", MINI).classes) == 3


def test_without_three_lists_there_are_none(tmp_path: Path) -> None:
    (tmp_path / "train.csv").write_text("filename,label\n")
    assert not read_lists(tmp_path, MINI).classes


def test_lists_of_another_split_are_refused_with_the_number_of_classes(tmp_path: Path) -> None:
    for each, cls in zip(("val", "train", "test"), FIRST.values(), strict=True):
        (tmp_path / f"{each}.csv").write_text(f"filename,label\n{cls}_1.jpg,{cls}\n")
    with pytest.raises(UserError, match=r"2 classes are in other splits, such as .* Move the lists away"):
        read_lists(tmp_path, MINI)


def test_images_that_the_lists_name_and_the_copy_lacks_are_counted(tmp_path: Path, caplog: pytest.LogCaptureFixture) -> None:
    for each, text in texts("{file},{cls}").items():
        (tmp_path / f"{each}.csv").write_text(text)
    read_lists(tmp_path, MINI).say_missing(2, tmp_path)
    assert "name 3 images, and " in caplog.text
    assert "has 2 of them" in caplog.text
