"""Benchmarks of photographs by their published class lists: mini-ImageNet, tiered-ImageNet and CUB.

The user's copy may have any layout in which a path gives the class. Either a folder above the file has the name of the class, or, for
ImageNet, the name of the file begins with the WordNet id (n0153282900000005.jpg, n01532829_100.JPEG).
"""

from __future__ import annotations

import hashlib
import json
import logging
import os
import re
from collections.abc import Mapping, Sequence
from dataclasses import replace
from pathlib import Path, PurePosixPath
from typing import Literal

import torch
from torch import Tensor

from metarun.errors import UserError, printable
from metarun.files.paths import expanded
from metarun.tasks.converted import convert
from metarun.tasks.fingerprint import Fingerprint, of_images
from metarun.tasks.pictures.archives import explain
from metarun.tasks.pictures.image_files import ImageFiles, find_images
from metarun.tasks.pictures.image_lists import ImageList, read_lists
from metarun.tasks.pictures.images import read_images
from metarun.tasks.pictures.mini_pickles import find_pickles, read_pickles
from metarun.tasks.pictures.published import Published, published
from metarun.tasks.pictures.unpacking import unpacked
from metarun.tasks.sampling import FewShot, Sampling
from metarun.values import Pixels, Text

log = logging.getLogger(__name__)

_WORDNET = re.compile(r"n\d{8}")


def mini_imagenet(*, root: Text | None = None, image_size: Pixels = 84, channels: Literal[1, 3] = 3, **sampling: Sampling) -> FewShot:
    """Deal episodes of mini-ImageNet: 64/16/20 classes of ImageNet (Ravi and Larochelle 2017), images (channels, image_size, image_size).

    root: a folder, zip or tar archive with these classes; None for mini_imagenet/ in $METARUN_DATA. It may be the whole ImageNet, since
        metarun leaves other classes out. Lists train.csv, val.csv and test.csv beside the images choose the images.
    image_size, channels: as of `metarun.tasks.folder.folder`. sampling: ways, shots, … of `FewShot`.
    The pickles of `pictures.mini_pickles` are read as well, without running code. Raises UserError where the copy is absent, has
    another form, or lacks a class.
    """
    place = place_of(root, "mini_imagenet")
    if pickles := find_pickles(unpacked(place)):
        return of_images_in_memory(published("mini_imagenet"), *read_pickles(pickles), place, image_size, channels, sampling)
    return _named("mini_imagenet", root, image_size, channels, sampling)


def tiered_imagenet(*, root: Text | None = None, image_size: Pixels = 84, channels: Literal[1, 3] = 3, **sampling: Sampling) -> FewShot:
    """Deal episodes of tiered-ImageNet: 351/97/160 classes of ImageNet (Ren et al. 2018), images (channels, image_size, image_size).

    The 34 superclasses are the groups of `within_groups`; no superclass has classes in two splits. The arguments are those of
    `mini_imagenet`.
    """
    return _named("tiered_imagenet", root, image_size, channels, sampling)


def cub(*, root: Text | None = None, image_size: Pixels = 84, channels: Literal[1, 3] = 3, **sampling: Sampling) -> FewShot:
    """Deal episodes of CUB-200-2011: 100/50/50 species of birds (Chen et al. 2019), images (channels, image_size, image_size).

    root: the folder CUB_200_2011, its folder images, or a zip or tar archive of them. The arguments are those of `mini_imagenet`.
    """
    return _named("cub", root, image_size, channels, sampling)


def read_copy(split: Published, place: Path, image_size: int, channels: int, sampling: Mapping[str, Sampling]) -> FewShot:
    """Return the source of a published split, with the images of a folder or zip at `place`, (channels, image_size, image_size)."""
    explain(place)
    files, rows = rows_by_class(find_images(unpacked(place)), split)
    if not rows:
        explain(files.root, nothing_found=True)

    def source(images: Tensor, known: Fingerprint | None = None) -> FewShot:
        return FewShot(split.pools(images, rows, str(place)), **{"data": split.data, "files": known, **sampling})

    # Raises if classes or images are too few, before all images are read; `expand` takes no memory.
    source(torch.empty(1, 1, 1, 1).expand(len(files.names), channels, image_size, image_size))
    say_count(len(files.names), split, place)
    return source(read_images(files, size=image_size, channels=channels, name=split.name), of_images(files))


def of_images_in_memory(
    split: Published,
    images: Tensor,
    rows: Mapping[str, Sequence[int]],
    place: Path,
    image_size: int,
    channels: int,
    sampling: Mapping[str, Sampling],
) -> FewShot:
    """Return the source of a published split. images: (M, 3, H, W), uint8. rows: class -> its images. place: as messages show it."""
    split.check(rows, str(place))
    say_count(sum(len(rows[name]) for name in split.classes), split, place)
    images = convert(images, (channels, image_size, image_size))
    return FewShot(split.pools(images, rows, str(place)), **{"data": split.data, **sampling})


def place_of(root: str | None, name: str) -> Path:
    """Return the folder or zip of a copy: `root`, else the folder `name` in $METARUN_DATA; UserError without both."""
    if root is not None:
        return expanded(root)
    if data := os.environ.get("METARUN_DATA"):
        return expanded(data) / name
    raise UserError(f"task={name} needs task.root=DIR, your copy of the images, or the folder {name}/ in METARUN_DATA.")


def rows_by_class(files: ImageFiles, split: Published) -> tuple[ImageFiles, dict[str, list[int]]]:
    """Return the files of published classes, and class -> their indices in the order of the names."""
    known = split.spellings
    listed = read_lists(files.root, split) if split.name == "mini_imagenet" else ImageList()
    found = {name: class_of(name, known) for name in files.names}
    found |= {name: cls for name in files.names if listed.classes and (cls := listed.class_of(name))}
    chosen = _chosen(files, found, listed)
    rows: dict[str, list[int]] = {}
    for index, name in enumerate(chosen):
        rows.setdefault(str(found[name]), []).append(index)
    _say_left_out(files, found, split)
    return _only(files, chosen), rows


def class_of(name: str, known: Mapping[str, str]) -> str | None:
    """Return the class of a file: by the nearest folder above it that has the name of a class, else by the WordNet id of its name.

    known: spelling of a class -> the class.
    """
    *folders, file = name.split("/")  # not a path object: a set may have a million files
    for folder in reversed(folders):
        if folder in known:
            return known[folder]
    start = _WORDNET.match(file)
    return known.get(start.group()) if start else None


def say_count(count: int, split: Published, root: Path) -> None:
    """Warn where a copy has another number of images than the published set."""
    if count != split.images:
        log.warning(
            "'%s' has %s images of the classes of %s; the published set has %s, so scores compare only roughly with published ones",
            *(printable(str(root)), f"{count:,}", split.name, f"{split.images:,}"),
        )


def _named(name: str, root: str | None, image_size: int, channels: int, sampling: Mapping[str, Sampling]) -> FewShot:
    return read_copy(published(name), place_of(root, name), image_size, channels, sampling)


def _chosen(files: ImageFiles, found: Mapping[str, str | None], listed: ImageList) -> list[str]:
    """Return the names of the files to use: those that the lists name, if the lists name some, else all with a class.

    Where some of them lie below a folder "images", only these count: copies of CUB have masks of the same names in other folders.
    """
    named = [name for name in files.names if listed.classes and listed.class_of(name) is not None]
    chosen = named or [name for name in files.names if found[name] is not None]
    if named:
        listed.say_missing(len(named), files.root)
    below = [name for name in chosen if "images/" in name and "images" in name.split("/")]
    return below or chosen


def _only(files: ImageFiles, chosen: Sequence[str]) -> ImageFiles:
    """Return the files with these names, in this order, with a stamp of their own."""
    place = {name: index for index, name in enumerate(files.names)}
    kept = [place[name] for name in chosen]
    stamp = hashlib.sha256(json.dumps([files.stamp, list(chosen)]).encode()).hexdigest()
    checks = tuple(files.checks[index] for index in kept) if files.checks else ()
    return replace(files, names=tuple(chosen), stamp=stamp, sizes=tuple(files.sizes[index] for index in kept), checks=checks)


def _say_left_out(files: ImageFiles, found: Mapping[str, str | None], split: Published) -> None:
    others = {PurePosixPath(name).parent.name for name, known in found.items() if known is None} - {""}
    if others:
        log.warning(
            "'%s' has %d folders of images that are no class of %s, such as '%s'; metarun leaves them out",
            *(printable(str(files.root)), len(others), split.name, printable(min(others))),
        )
