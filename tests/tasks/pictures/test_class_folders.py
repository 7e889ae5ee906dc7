"""Class folders out of the names of files alone."""

from __future__ import annotations

from pathlib import Path

import pytest

from metarun.errors import UserError
from metarun.tasks.pictures.class_folders import ClassFolders, class_folders
from metarun.tasks.pictures.image_files import ImageFiles


def found(*names: str, empty: tuple[str, ...] = ()) -> ClassFolders:
    files = ImageFiles(Path("photos"), tuple(sorted(names)), "stamp", tuple(1 for _ in names), (), empty)
    return class_folders(files)


def test_classes_have_all_images_below_them_and_loose_images_are_apart() -> None:
    folders = found("oak/1.jpg", "oak/old/2.jpg", "elm/1.jpg", "loose.jpg", empty=("ash", "oak/none"))
    assert {name: [folders.names[place] for place in rows] for name, rows in folders.rows.items()} == {
        "elm": ["elm/1.jpg"],
        "oak": ["oak/1.jpg", "oak/old/2.jpg"],
    }
    assert folders.files.names == ("elm/1.jpg", "oak/1.jpg", "oak/old/2.jpg")
    assert folders.listed.names == ("elm/1.jpg", "loose.jpg", "oak/1.jpg", "oak/old/2.jpg")
    assert (folders.loose, folders.empty) == (["loose.jpg"], ["ash"])
    assert folders.ready is None


def test_names_do_not_depend_on_folders_around_the_classes() -> None:
    around = found("top/in/oak/1.jpg", "top/in/elm/1.jpg", "top/x.jpg", empty=("top/in/ash", "other"))
    assert list(around.names) == ["elm/1.jpg", "oak/1.jpg"]
    assert around.empty == ["ash"]


@pytest.mark.parametrize("names", ["train val test", "Base VAL Novel", "meta-train meta-val meta-test", "training dev testing"])
def test_folders_of_a_ready_split_have_usual_names_in_any_case(names: str) -> None:
    train, val, test = names.split()
    folders = found(f"{train}/a/1.jpg", f"{train}/loose.jpg", f"{val}/b/1.jpg", f"{test}/c/1.jpg", empty=(f"{val}/d",))
    assert folders.ready == {"train": ["a"], "val": ["b"], "test": ["c"]}
    assert folders.loose == [f"{train}/loose.jpg"]
    assert folders.empty == [f"{val}/d"]


def test_two_folders_of_a_split_give_a_part_of_it_and_a_class_of_this_name_gives_none() -> None:
    assert found("train/a/1.jpg", "test/b/1.jpg").ready == {"train": ["a"], "test": ["b"]}
    assert found("train/1.jpg", "test/2.jpg", "car/3.jpg").ready is None


@pytest.mark.parametrize("others", [("val/b/1.jpg", "cars/c/1.jpg"), ("val/b/1.jpg", "dev/c/1.jpg")])
def test_other_folders_beside_a_ready_split_are_refused(others: tuple[str, str]) -> None:
    with pytest.raises(UserError, match="a ready split needs the folders train, val and test, and no other"):
        found("train/a/1.jpg", *others)


def test_a_folder_with_one_class_is_refused_and_says_which_folders_have_no_image() -> None:
    with pytest.raises(UserError, match=r"holds 1 class folders.* Without an image: ash, elm\."):
        found("oak/1.jpg", empty=("ash", "elm"))


def test_hidden_files_leave_their_class_and_the_others_keep_their_places() -> None:
    folders = found("oak/1.jpg", "oak/2.jpg", "elm/1.jpg")
    assert folders.hiding(["oak/1.jpg", "elm/1.jpg"]).rows == {"elm": [], "oak": [2]}
