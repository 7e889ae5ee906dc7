"""Your own images: one folder per class, as a folder or a zip, divided into training, validation and test classes."""

from __future__ import annotations

import json
from collections.abc import Mapping, Sequence
from pathlib import Path
from typing import Any, Literal

import torch
from torch import Tensor

from metarun import draws
from metarun.errors import UserError, first_line, nearest, printable
from metarun.files.paths import expanded
from metarun.tasks.class_names import check_names, composed
from metarun.tasks.fingerprint import Fingerprint, of_images
from metarun.tasks.image_files import ImageFiles, find_images
from metarun.tasks.images import read_images
from metarun.tasks.pool import SPLITS, ClassPool
from metarun.tasks.sampling import FewShot, Sampling
from metarun.values import Listed, Pixels, Seed, Shares, Text

Split = dict[str, list[str]]
"""Split -> names of its classes."""

_SYNONYMS = {
    "train": ("train", "training"),
    "val": ("val", "valid", "validation", "dev"),
    "test": ("test", "testing"),
}
"""The names that a folder of a ready split may have, in upper or lower case."""


def folder(
    *,
    root: Text | None,
    image_size: Pixels = 84,
    channels: Literal[1, 3] = 3,
    split: Shares = (0.64, 0.16, 0.20),
    split_seed: Seed = 0,
    split_file: Text | None = None,
    classes: Mapping[str, Listed] | None = None,
    **sampling: Sampling,
) -> FewShot:
    """Deal episodes of the images in `root`, (channels, image_size, image_size).

    root: a folder or zip with one folder per class; one top-level folder may enclose the class folders. Folders train/, val/ and
        test/ above the class folders give the split; `_SYNONYMS` has the names that they may have. A class has all images below it.
    image_size: pixels; metarun resizes the shorter side to this size and crops the centre. channels: 3 for RGB, 1 for grey.
    split: the shares of training, validation and test classes, as fractions or as numbers of classes. `split_seed` determines
        which classes each split gets.
    split_file: a JSON file with the lists "train", "val" and "test" of class names, in place of a drawn split; others are left out.
    classes: the same lists as a mapping, such as the result of `class_split` for an earlier run. `classes` takes precedence.
    sampling: ways, shots, … of `FewShot`. Its `data` is the name of the folder or zip, unless it is given here.

    Raises UserError for a missing or empty root, unreadable images (the message names the files), too few classes or images for
    the episodes, or a class in two splits. Decoded images are cached until a file changes.
    """
    if root is None:
        raise UserError("task=folder needs task.root=DIR, a folder or zip with one folder of images per class.")
    rows, ready = _classes(files := find_images(root))
    chosen = _choose(files, list(rows), ready, split, split_seed, split_file, classes)

    def source(images: Tensor, known: Fingerprint | None = None) -> FewShot:
        pools = {split: _pool(images, rows, names) for split, names in chosen.items()}
        return FewShot(pools, **{"data": files.root.resolve().stem, "files": known, **sampling})

    # Raises if classes or images are too few or too large, before all images are read; `expand` takes no memory.
    source(torch.empty(1, 1, 1, 1).expand(len(files.names), channels, image_size, image_size))
    return source(read_images(files, size=image_size, channels=channels, name="folder"), of_images(files))


def class_split(source: FewShot) -> Split:
    """Return split -> class names in the order of the pools; `folder(classes=...)` with this mapping deals the same episodes."""
    return {split: list(pool.names) for split, pool in source.pools.items()}


def _classes(files: ImageFiles) -> tuple[dict[str, list[int]], Split | None]:
    """Return class -> rows of its images, sorted by name, and the split if the folders train/, val/ and test/ give one."""
    parts = [name.split("/") for name in files.names]
    while len(_tops(parts)) == 1 and max(map(len, parts)) > 2:
        parts = [path[1:] if len(path) > 1 else path for path in parts]
    splits = _ready_splits(files.root, parts)
    rows: dict[str, list[int]] = {}
    ready: dict[str, dict[str, None]] = {split: {} for split in SPLITS}
    for index, path in enumerate(parts):
        if len(path) < (3 if splits else 2):
            continue  # the file lies outside the class folders, so it has no class
        name = path[1] if splits else path[0]
        rows.setdefault(name, []).append(index)
        if splits:
            ready[splits[path[0]]][name] = None
    if len(rows) < 2:
        raise UserError(
            f"'{printable(str(files.root))}' holds {len(rows)} class folders with images; it needs one folder per class and at least 2 "
            "classes. Images inside other archives do not count."
        )
    check_names(files.root, rows)
    return dict(sorted(rows.items())), {split: list(names) for split, names in ready.items()} if splits else None


def _ready_splits(root: Path, parts: Sequence[Sequence[str]]) -> dict[str, str]:
    """Return top-level folder -> split where the folders are train/, val/ and test/ with class folders in them, else nothing."""
    tops = sorted(_tops(parts))
    splits = {top: split for top in tops for split, names in _SYNONYMS.items() if top.lower() in names}
    if not ("train" in splits.values() and len(set(splits.values())) > 1 and max(map(len, parts)) > 2):
        return {}
    if len(tops) != 3 or set(splits.values()) != set(SPLITS):
        held = printable(", ".join(tops))
        raise UserError(f"'{printable(str(root))}' holds {held}; a ready split needs the folders train, val and test, and no other.")
    return splits


def _tops(parts: Sequence[Sequence[str]]) -> set[str]:
    return {path[0] for path in parts if len(path) > 1}


def _choose(
    files: ImageFiles,
    names: Sequence[str],
    ready: Split | None,
    split: Sequence[float],
    split_seed: Seed,
    split_file: Text | None,
    classes: Mapping[str, Sequence[str]] | None,
) -> Split:
    """Return the first split that exists of `classes`, `split_file` and the folders' own; else draw one."""
    if classes is not None:
        return _check(classes, names, "task.classes", files.root)
    if split_file is not None:
        return _check(_read_split(split_file), names, f"'{split_file}'", files.root)
    if ready is not None:
        return _check(ready, names, f"'{files.root}'", files.root)
    sizes = _sizes(split, len(names))
    order = iter(draws.permutation(draws.key(split_seed, "folder", "classes"), len(names)).tolist())
    return {name: sorted(names[next(order)] for _ in range(size)) for name, size in zip(SPLITS, sizes, strict=True)}


def _sizes(split: Sequence[float], count: int) -> list[int]:
    """Return how many of `count` classes are for training, validation and test under `split`."""
    numbers = [float(number) for number in split]
    if len(numbers) != 3 or not all(number > 0 for number in numbers):
        raise UserError(f"task.split={list(split)} must be three positive numbers for train, val and test, such as [0.64, 0.16, 0.2].")
    if all(number.is_integer() for number in numbers):
        sizes = [int(number) for number in numbers]
    elif sum(numbers) > 1.0 + 1e-6:
        raise UserError(f"task.split={list(split)} adds up to {sum(numbers):g}; fractions must add up to at most 1.")
    else:
        val, test = round(numbers[1] * count), round(numbers[2] * count)
        sizes = [min(round(numbers[0] * count), count - val - test), val, test]
    if sum(sizes) > count or min(sizes) < 2:
        raise UserError(
            f"task.split={list(split)} makes {sizes[0]}/{sizes[1]}/{sizes[2]} of the {count} classes; each split needs at least 2, "
            f"all together at most {count}. Give task.split as three numbers of classes, or more classes."
        )
    return sizes


def _read_split(path: str) -> Any:
    needed = "it must be a JSON file with the lists train, val and test"
    try:
        file = expanded(path)
        if file.exists() and not file.is_file():  # a pipe would keep the run waiting
            raise UserError(f"task.split_file '{printable(path)}' is no file; {needed}.")
        return json.loads(file.read_text(encoding="utf-8"))
    except (OSError, ValueError, RecursionError) as error:
        raise UserError(f"cannot read task.split_file '{printable(path)}' ({printable(first_line(error))}); {needed}.") from error


def _check(chosen: Any, names: Sequence[str], source: str, root: Path) -> Split:
    """Return the three lists; UserError for an unknown class, or for a class that is listed twice."""
    lists = [chosen.get(split) for split in SPLITS] if isinstance(chosen, Mapping) else [None]
    if not all(isinstance(listed, list | tuple) and listed and all(isinstance(name, str) for name in listed) for listed in lists):
        raise UserError(f"{source} must have the three lists train, val and test of class names, none of them empty.")
    known, seen = {composed(name): name for name in names}, dict[str, str]()
    for split in SPLITS:
        for name in map(composed, chosen[split]):
            if name not in known:
                raise UserError(
                    f"{source} has class '{printable(name)}' in {split}, but '{printable(str(root))}' has no such folder with images."
                    f"{printable(nearest(name, names))}"
                )
            if name in seen:
                raise UserError(f"{source} has class '{printable(name)}' in {seen[name]} and in {split}; a class may occur only once.")
            seen[name] = split
    return {split: [known[composed(name)] for name in chosen[split]] for split in SPLITS}


def _pool(images: Tensor, rows: Mapping[str, Sequence[int]], names: Sequence[str]) -> ClassPool:
    places = torch.tensor([row for name in names for row in rows[name]])  # indices, not a copy: the images may need more space than RAM has
    return ClassPool(images, counts=[len(rows[name]) for name in names], names=list(names), rows=places)
