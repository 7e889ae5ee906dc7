"""The user's images: which files count, which class each has, and what is refused before anything works."""

from __future__ import annotations

import os
import zipfile
from collections.abc import Iterable
from pathlib import Path

import pytest
import torch
from PIL import Image

from metarun.errors import UserError
from metarun.tasks.pictures.labelled import Pictures, copies_of, pixels_of, read_query, read_support
from metarun.tasks.pool import unit_range


def draw(root: Path, names: Iterable[str], side: int = 4) -> Path:
    for number, name in enumerate(names):
        (root / name).parent.mkdir(parents=True, exist_ok=True)
        Image.new("L", (side, side), 20 * number).save(root / name, "PNG")
    return root


def found(pictures: Pictures) -> dict[str, str | None]:
    return dict(zip(pictures.names, pictures.labels, strict=True))


# Support sets


def test_a_class_has_all_pictures_below_its_folder(tmp_path: Path) -> None:
    root = draw(tmp_path, ["cat/1.png", "cat/more/2.PNG", "dog/1.png", ".hidden/1.png", "dog/._1.png"])
    (root / "dog/Thumbs.db").write_bytes(b"x")
    assert found(read_support(str(root))) == {"cat/1.png": "cat", "cat/more/2.PNG": "cat", "dog/1.png": "dog"}


def test_folders_around_all_class_folders_do_not_count_in_a_zip_either(tmp_path: Path) -> None:
    root = draw(tmp_path / "in", ["all/photos/cat/1.png", "all/photos/dog/1.png"])
    with zipfile.ZipFile(tmp_path / "photos.zip", "w") as archive:
        for file in sorted(root.rglob("*.png")):
            archive.write(file, file.relative_to(root))
    for path in (root, tmp_path / "photos.zip"):
        assert found(read_support(str(path))) == {"all/photos/cat/1.png": "cat", "all/photos/dog/1.png": "dog"}


def test_loose_pictures_and_empty_folders_are_mentioned(tmp_path: Path) -> None:
    root = draw(tmp_path, ["cat/1.png", "dog/1.png", "loose.png"])
    (root / "owl").mkdir()
    pictures = read_support(str(root))
    assert list(pictures.names) == ["cat/1.png", "dog/1.png"]
    assert pictures.notes == (
        f"support={root}: 1 image in no class folder, left out.",
        f"support={root}: no image in the folder owl.",
    )


@pytest.mark.parametrize(("names", "said"), [(["cat/1.png"], "holds 1 class "), (["1.png"], "holds 0 classes "), ([], "holds 0 classes ")])
def test_fewer_than_two_classes_are_refused_with_what_is_needed(tmp_path: Path, names: list[str], said: str) -> None:
    with pytest.raises(UserError, match=f"{said}.*give at least 2: one folder of images per class"):
        read_support(str(draw(tmp_path, names)))


def test_a_divided_data_set_is_no_support_set(tmp_path: Path) -> None:
    root = draw(tmp_path, ["Train/cat/1.png", "Val/dog/1.png"])
    with pytest.raises(UserError, match=r"holds Train, Val with class folders, which.*such as support=.*Train"):
        read_support(str(root))
    assert set(read_support(str(draw(tmp_path / "vehicles", ["train/1.png", "test/1.png"]))).labels) == {"train", "test"}


def test_a_csv_file_has_paths_relative_to_itself(tmp_path: Path) -> None:
    draw(tmp_path / "pictures", ["1.png", "2.png"])
    (tmp_path / "lists").mkdir()
    file = tmp_path / "lists/known.csv"
    file.write_text(
        f'label;path\n"a; ""b""";../pictures/1.png\ndog;{tmp_path}/pictures/2.png\ndog;{tmp_path}/pictures/2.png\n', encoding="utf-8-sig"
    )
    pictures = read_support(str(file))
    assert found(pictures) == {"../pictures/1.png": 'a; "b"', f"{tmp_path}/pictures/2.png": "dog"}
    assert [int(image.max()) for image in pixels_of([pictures], size=4, channels=1)[0]] == [0, 20]


@pytest.mark.parametrize(
    ("text", "said"),
    [
        ("1.png,cat\n2.png,dog\n", "support=.*known.csv has no column 'path'; its first line must name .* and it is '1.png,cat'"),
        ("path,class\n1.png,cat\n", "has no column 'label'"),
        ("path,label\n1.png,\n", "line 2 of .*known.csv has no label"),
        ("path,label\n,cat\n", "line 2 of .*known.csv has no path"),
        ("path,label\n1.png,cat\n1.png,dog\n", "line 3 of .* gives '1.png' the label 'dog', and an earlier line 'cat'"),
        ("path,label\n1.png,cat\n2.png,cat\n", "holds 1 class with images .cat."),
        ("path,label\n", "support=.*known.csv has no rows below its header line"),
        ("", "support=.*known.csv is empty"),
        ("path,label\n1.png\n", "line 2 of .* has 1 fields, but the header has 2 columns; add or remove commas\\.$"),
    ],
)  # fmt: skip
def test_a_list_that_is_wrong_is_refused_with_its_line(tmp_path: Path, text: str, said: str) -> None:
    (tmp_path / "known.csv").write_text(text)
    with pytest.raises(UserError, match=said):
        read_support(str(tmp_path / "known.csv"))


def test_two_spellings_of_one_class_are_refused(tmp_path: Path) -> None:
    (tmp_path / "known.csv").write_text("path,label\n1.png,cafe\u0301\n2.png,caf\u00e9\n", encoding="utf-8")
    with pytest.raises(UserError, match="code points"):
        read_support(str(tmp_path / "known.csv"))


@pytest.mark.parametrize("read", [read_support, lambda path: read_query(path, ["cat", "dog"])])
def test_what_is_not_there_or_is_no_file_is_refused(tmp_path: Path, read: object) -> None:
    os.mkfifo(tmp_path / "pipe")
    for name, said in (("nowhere", "there is no such file or folder"), ("pipe", "is a pipe")):
        with pytest.raises(UserError, match=f"^(support|query)=.*{name}.*{said}"):
            read(str(tmp_path / name))  # type: ignore[operator]


# Queries


def test_folders_named_like_a_support_class_are_labels_and_the_others_foreign(tmp_path: Path) -> None:
    root = draw(tmp_path, ["all/cat/1.png", "all/dog/new/2.png", "all/owl/3.png", "4.png"])
    assert found(read_query(str(root), ["cat", "dog"])) == {
        "4.png": None,
        "all/cat/1.png": "cat",
        "all/dog/new/2.png": "dog",
        "all/owl/3.png": "owl",
    }


def test_folders_are_no_labels_where_none_has_the_name_of_a_class(tmp_path: Path) -> None:
    root = draw(tmp_path, ["2020/1.png", "2021/2.png", "3.png"])
    assert set(read_query(str(root), ["cat", "dog"]).labels) == {None}


def test_a_label_keeps_the_spelling_of_the_support_set(tmp_path: Path) -> None:
    root = draw(tmp_path / "photos", ["caf\u00e9/1.png", "owl/1.png"])
    assert set(read_query(str(root), ["cafe\u0301", "dog"]).labels) == {"cafe\u0301", "owl"}
    (tmp_path / "new.csv").write_text("path,label\n1.png,caf\u00e9\n2.png,\n", encoding="utf-8")
    assert read_query(str(tmp_path / "new.csv"), ["cafe\u0301", "dog"]).labels == ("cafe\u0301", None)


def test_one_image_and_a_list_of_paths_alone_are_queries(tmp_path: Path) -> None:
    draw(tmp_path, ["one.png"])
    assert found(read_query(str(tmp_path / "one.png"), ["cat"])) == {str(tmp_path / "one.png"): None}
    (tmp_path / "new.csv").write_text("path\none.png\none.png\n")
    pictures = read_query(str(tmp_path / "new.csv"), ["cat"])
    assert pictures.names == ("one.png", "one.png")
    assert len(pixels_of([pictures], size=4, channels=1)[0]) == 2


def test_a_query_folder_without_an_image_is_refused(tmp_path: Path) -> None:
    with pytest.raises(UserError, match="holds no image"):
        read_query(str(tmp_path), ["cat"])


# Pixels


def test_all_unreadable_files_are_named_at_once(tmp_path: Path) -> None:
    draw(tmp_path / "known", ["cat/1.png", "dog/1.png"])
    (tmp_path / "known/dog/bad.jpg").write_bytes(b"\xff\xd8no")
    (tmp_path / "new.csv").write_text("path\nabsent.png\nempty.png\n")
    (tmp_path / "empty.png").write_bytes(b"")
    sets = [read_support(str(tmp_path / "known")), read_query(str(tmp_path / "new.csv"), ["cat"])]
    with pytest.raises(UserError) as refused:
        pixels_of(sets, size=4, channels=1)
    for name, why in (("dog/bad.jpg", "damaged JPEG"), ("absent.png", "No such file"), ("empty.png", "empty")):
        assert name in str(refused.value)
        assert why in str(refused.value)
    with pytest.raises(UserError) as once:
        pixels_of([sets[0], sets[0]], size=4, channels=1)
    assert str(once.value).count("dog/bad.jpg") == 1


def test_inverted_pixels_have_bright_ink(tmp_path: Path) -> None:
    pictures = read_query(str(draw(tmp_path, ["a.png", "b.png"])), ["cat"])
    [pixels] = pixels_of([pictures], size=2, channels=3, inverted=True)
    assert pixels.shape == (2, 3, 2, 2)
    assert pixels.dtype == torch.uint8
    assert [int(each.max()) for each in pixels] == [255, 235]
    assert unit_range(pixels)[1].max() == torch.tensor(235.0) / torch.tensor(255.0)


def test_copies_are_found_by_their_pixels() -> None:
    pixels = torch.arange(12, dtype=torch.uint8).reshape(3, 1, 2, 2)
    assert copies_of(pixels, pixels[[2, 0]]) == [True, False, True]
