"""mini-ImageNet as pickles of arrays, in two forms that copies often have.

- mini-imagenet-cache-train.pkl, …-val.pkl, …-test.pkl: `image_data` (M, 84, 84, 3), and `class_dict`, WordNet id -> rows.
- miniImageNet_category_split_train_phase_train.pickle, …_val.pickle, …_test.pickle: `data` (M, 84, 84, 3), `labels`, and `catname2label`,
  WordNet id -> label.
"""

from __future__ import annotations

from pathlib import Path
from typing import Any

import numpy as np
import torch
from torch import Tensor

from metarun.errors import UserError, printable
from metarun.tasks.pictures.plain_pickle import read_plain

_FORMS = (
    tuple(f"mini-imagenet-cache-{part}.pkl" for part in ("train", "val", "test")),
    tuple(f"miniImageNet_category_split_{part}.pickle" for part in ("train_phase_train", "val", "test")),
)


def find_pickles(root: Path) -> list[Path]:
    """Return the three pickles of one form in the folder or in one of its folders; [] where it has none."""
    folders = [root, *sorted(entry for entry in root.iterdir() if entry.is_dir())] if root.is_dir() else []
    forms = ([folder / name for name in form] for folder in folders for form in _FORMS)
    return next((files for files in forms if all(file.is_file() for file in files)), [])


def read_pickles(files: list[Path]) -> tuple[Tensor, dict[str, list[int]]]:
    """Return the images (M, 3, 84, 84), uint8, and WordNet id -> their rows. No code that a file names runs.

    Raises UserError for a file of another content.
    """
    parts, rows, start = [], dict[str, list[int]](), 0
    for file in files:
        content = read_plain(file)
        images = _images(content, file)
        for name, places in _classes(content, len(images), file).items():
            rows.setdefault(name, []).extend(start + place for place in places)
        start += len(images)
        parts.append(torch.from_numpy(images).permute(0, 3, 1, 2))
    return torch.cat(parts), rows


def _images(content: dict[str, Any], file: Path) -> np.ndarray:
    images = content.get("image_data", content.get("data"))
    if isinstance(images, list) and images and all(isinstance(image, np.ndarray) and image.shape == images[0].shape for image in images):
        images = np.stack(images)
    if not (isinstance(images, np.ndarray) and images.dtype == np.uint8 and images.ndim == 4 and images.shape[-1] == 3):
        raise UserError(f"'{printable(str(file))}' has no array of images (M, height, width, 3) of 8 bits; is it the right file?")
    return images


def _classes(content: dict[str, Any], count: int, file: Path) -> dict[str, list[int]]:
    """Return class -> rows of its images among the `count` images of the file."""
    try:
        if "class_dict" in content:
            found = {str(name): [int(row) for row in rows] for name, rows in content["class_dict"].items()}
        else:
            names = {int(label): str(name) for name, label in content["catname2label"].items()}
            found = {name: [] for name in names.values()}
            for row, label in enumerate(content["labels"]):
                found[names[int(label)]].append(row)
    except (AttributeError, KeyError, TypeError, ValueError):
        raise UserError(f"'{printable(str(file))}' does not say which class its images belong to; is it the right file?") from None
    if not all(0 <= row < count for rows in found.values() for row in rows):
        raise UserError(f"'{printable(str(file))}' names images beyond the {count:,} that it has; it is damaged.")
    return found
