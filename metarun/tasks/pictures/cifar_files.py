"""CIFAR-100 as its authors publish it: cifar-100-binary (train.bin, test.bin) and cifar-100-python (two pickles and their names)."""

from __future__ import annotations

from collections.abc import Sequence
from pathlib import Path
from typing import NamedTuple

import numpy as np
import torch
from torch import Tensor

from metarun.errors import UserError, printable
from metarun.tasks.pictures.plain_pickle import read_plain

_SIDE = 32
_PIXELS = 3 * _SIDE * _SIDE
_ROW = 2 + _PIXELS
"""Bytes of one image in the binary form: the superclass, the class, then the red, green and blue pixels, row by row."""

_PARTS = ("train", "test")


class Labelled(NamedTuple):
    """images: (M, 3, 32, 32) uint8. classes: the class of each image."""

    images: Tensor
    classes: list[str]


def find_official(root: Path) -> Path | None:
    """Return the folder of the official form in or below `root`; None where there is none."""
    for folder in (root, root / "cifar-100-binary", root / "cifar-100-python"):
        if any(all((folder / f"{part}{ending}").is_file() for part in _PARTS) for ending in (".bin", "")):
            return folder
    return None


def read_official(folder: Path, names: Sequence[str]) -> Labelled:
    """Return all images of the folder that `find_official` found, training part first.

    names: the 100 classes in alphabetical order, which is the order of the labels.
    Raises UserError for a damaged file.
    """
    binary = (folder / "train.bin").is_file()
    pixels, labels = zip(*(_binary(folder / f"{part}.bin") if binary else _pickled(folder / part) for part in _PARTS), strict=True)
    numbers = np.concatenate(labels)
    outside = numbers[(numbers < 0) | (numbers >= len(names))]
    if outside.size:
        raise UserError(
            f"'{printable(str(folder))}' has the class number {outside[0]}, and CIFAR-100 has 0 to {len(names) - 1}; download it again."
        )
    images = torch.from_numpy(np.concatenate(pixels).reshape(-1, 3, _SIDE, _SIDE))
    return Labelled(images, [names[number] for number in numbers.tolist()])


def _binary(path: Path) -> tuple[np.ndarray, np.ndarray]:
    """Return pixels (M, 3072) and classes (M,) of a file of the binary form."""
    try:
        content = np.fromfile(path, dtype=np.uint8)
    except OSError as error:
        raise UserError(f"cannot read '{printable(str(path))}' ({error.strerror}).") from error
    if not content.size or content.size % _ROW:
        raise UserError(
            f"'{printable(str(path))}' has {content.size:,} bytes, not a multiple of {_ROW}, the size of one image; download it again."
        )
    rows = content.reshape(-1, _ROW)
    return rows[:, 2:], rows[:, 1].astype(np.int64)


def _pickled(path: Path) -> tuple[np.ndarray, np.ndarray]:
    """Return pixels (M, 3072) and classes (M,) of a pickle of the form for Python."""
    content = read_plain(path)
    pixels, labels = content.get("data"), content.get("fine_labels")
    whole = isinstance(pixels, np.ndarray) and pixels.dtype == np.uint8 and pixels.ndim == 2 and pixels.shape[1] == _PIXELS
    listed = isinstance(labels, list) and all(isinstance(label, int) for label in labels)
    if not (isinstance(pixels, np.ndarray) and isinstance(labels, list) and whole and listed and len(labels) == len(pixels)):
        raise UserError(f"'{printable(str(path))}' is not a file of CIFAR-100: it has no images of {_PIXELS} bytes with fine_labels.")
    return pixels, np.array(labels, dtype=np.int64)
