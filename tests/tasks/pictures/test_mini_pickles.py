"""The two forms of pickles of mini-ImageNet."""

from __future__ import annotations

import pickle
from pathlib import Path
from typing import Any

import numpy as np
import pytest

from metarun.errors import UserError
from metarun.tasks.pictures.mini_pickles import find_pickles, read_pickles

IMAGES = np.arange(3 * 12, dtype=np.uint8).reshape(3, 2, 2, 3)
CACHE = [f"mini-imagenet-cache-{part}.pkl" for part in ("train", "val", "test")]
SPLIT = [f"miniImageNet_category_split_{part}.pickle" for part in ("train_phase_train", "val", "test")]
CONTENTS = [
    (CACHE, {"image_data": IMAGES, "class_dict": {"n1": [0, 2], "n2": [1]}}),
    (SPLIT, {"data": list(IMAGES), "labels": [7, 8, 7], "catname2label": {"n1": 7, "n2": 8}}),
    (SPLIT, {b"data": IMAGES, b"labels": np.array([7, 8, 7]), b"catname2label": {"n1": 7, "n2": 8}}),
]


def write(folder: Path, names: list[str], content: dict[Any, Any]) -> list[Path]:
    for name in names:
        (folder / name).write_bytes(pickle.dumps(content, protocol=2))
    return find_pickles(folder)


@pytest.mark.parametrize(("names", "content"), CONTENTS)
def test_each_form_gives_images_and_the_rows_of_each_class(names: list[str], content: dict[Any, Any], tmp_path: Path) -> None:
    images, rows = read_pickles(write(tmp_path, names, content))
    assert images.shape == (9, 3, 2, 2)
    assert images[4].permute(1, 2, 0).tolist() == IMAGES[1].tolist()
    assert rows == {"n1": [0, 2, 3, 5, 6, 8], "n2": [1, 4, 7]}


def test_a_folder_needs_all_three_files_of_a_form(tmp_path: Path) -> None:
    assert write(tmp_path, [CACHE[0], CACHE[1], SPLIT[2]], {}) == []


@pytest.mark.parametrize(
    ("content", "reason"),
    [
        ({"class_dict": {"n1": [0]}}, "has no array of images"),
        ({"image_data": IMAGES.astype(np.float32), "class_dict": {}}, "has no array of images"),
        ({"image_data": IMAGES}, "does not say which class"),
        ({"image_data": IMAGES, "class_dict": [1]}, "does not say which class"),
        ({"data": IMAGES, "labels": [9], "catname2label": {"n1": 7}}, "does not say which class"),
        ({"image_data": IMAGES, "class_dict": {"n1": [3]}}, "names images beyond the 3"),
    ],
)
def test_other_content_is_refused(content: dict[str, Any], reason: str, tmp_path: Path) -> None:
    with pytest.raises(UserError, match=reason):
        read_pickles(write(tmp_path, CACHE, content))
