"""CIFAR-100 in the two forms of its authors."""

from __future__ import annotations

import pickle
from pathlib import Path

import numpy as np
import pytest

from metarun.errors import UserError
from metarun.tasks.pictures.cifar_files import find_official, read_official

NAMES = [f"c{number:02d}" for number in range(100)]


def write_binary(folder: Path, labels: dict[str, list[int]]) -> Path:
    folder.mkdir(parents=True, exist_ok=True)
    for part, numbers in labels.items():
        rows = np.zeros((len(numbers), 3074), dtype=np.uint8)
        rows[:, 0], rows[:, 1] = 99, numbers
        rows[:, 2:] = np.arange(3072) % 251
        rows[:, 2] = numbers
        rows.tofile(folder / f"{part}.bin")
    return folder


def write_pickles(folder: Path, labels: dict[str, list[int]]) -> Path:
    folder.mkdir(parents=True, exist_ok=True)
    for part, numbers in labels.items():
        data = np.tile((np.arange(3072) % 251).astype(np.uint8), (len(numbers), 1))
        data[:, 0] = numbers
        content = {b"data": data, b"fine_labels": numbers, b"coarse_labels": [0] * len(numbers), b"filenames": ["x"] * len(numbers)}
        (folder / part).write_bytes(pickle.dumps(content, protocol=2))
    return folder


LABELS = {"train": [5, 0, 99], "test": [7]}


@pytest.mark.parametrize(("write", "name"), [(write_binary, "cifar-100-binary"), (write_pickles, "cifar-100-python")])
def test_both_forms_give_equal_images_and_classes(write, name: str, tmp_path: Path) -> None:
    """The byte at (channel, row, column) is byte 1024 channel + 32 row + column of an image."""
    folder = write(tmp_path / name, LABELS)
    assert find_official(tmp_path) == find_official(folder) == folder
    images, classes = read_official(folder, NAMES)
    assert classes == ["c05", "c00", "c99", "c07"]
    assert images.shape == (4, 3, 32, 32)
    assert images[:, 0, 0, 0].tolist() == [5, 0, 99, 7]
    assert images[0, 2, 1, 3].item() == (2 * 1024 + 32 + 3) % 251


def test_a_folder_without_both_parts_is_not_the_official_form(tmp_path: Path) -> None:
    write_binary(tmp_path / "cifar-100-binary", {"train": [1]})
    assert find_official(tmp_path) is None


def test_damaged_files_are_refused_with_the_reason(tmp_path: Path) -> None:
    folder = write_binary(tmp_path / "a", LABELS)
    (folder / "test.bin").write_bytes(bytes(3073))
    with pytest.raises(UserError, match="has 3,073 bytes, not a multiple of 3074"):
        read_official(folder, NAMES)
    with pytest.raises(UserError, match="has the class number 100, and CIFAR-100 has 0 to 99"):
        read_official(write_binary(tmp_path / "b", {"train": [100], "test": [0]}), NAMES)
    folder = write_pickles(tmp_path / "c", LABELS)
    (folder / "test").write_bytes(pickle.dumps({"data": [1], "fine_labels": [1]}))
    with pytest.raises(UserError, match="is not a file of CIFAR-100"):
        read_official(folder, NAMES)
