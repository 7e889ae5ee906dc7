"""CIFAR-FS and FC100, two divisions of the 100 classes of CIFAR-100 (Krizhevsky 2009) into training, validation and test classes.

Both use all 600 images of a class: the 500 of CIFAR-100's training part and the 100 of its test part.
"""

from __future__ import annotations

import os
from collections.abc import Mapping
from pathlib import Path
from typing import Literal

from metarun.errors import UserError
from metarun.files.cache import cache_folder
from metarun.files.paths import expanded
from metarun.tasks.named_splits import of_images_in_memory, read_copy
from metarun.tasks.pictures.cifar_files import find_official, read_official
from metarun.tasks.pictures.downloading import download as download_set
from metarun.tasks.pictures.published import Published, published
from metarun.tasks.pictures.unpacking import unpacked
from metarun.tasks.sampling import FewShot, Sampling
from metarun.values import Pixels, Text


def cifar_fs(
    *, root: Text | None = None, download: bool = False, image_size: Pixels = 32, channels: Literal[1, 3] = 3, **sampling: Sampling
) -> FewShot:
    """Deal episodes of CIFAR-FS: 64/16/20 classes (Bertinetto et al. 2019), images (channels, image_size, image_size).

    root: a folder with cifar-100-binary or cifar-100-python, one of these two, a folder of images for each class, or an archive of these.
        None: cifar100/ in $METARUN_DATA if it is set, else in the cache folder. download: fetch CIFAR-100 into it through torchvision.
    image_size: the images have 32x32 pixels, and another size is resampled. channels: 3 for RGB, 1 for grey.
    sampling: ways, shots, … of `FewShot`. The groups of `within_groups` are the 20 superclasses; they have classes in several splits.
    Raises UserError where the images are absent, damaged, or lack a class.
    """
    return _read(published("cifar_fs"), root, download, image_size, channels, sampling)


def fc100(
    *, root: Text | None = None, download: bool = False, image_size: Pixels = 32, channels: Literal[1, 3] = 3, **sampling: Sampling
) -> FewShot:
    """Deal episodes of FC100: 60/20/20 classes (Oreshkin et al. 2018), images (channels, image_size, image_size).

    The splits have 12, 4 and 4 whole superclasses, so the test classes are less like the training classes than those of CIFAR-FS.
    The arguments are those of `cifar_fs`.
    """
    return _read(published("fc100"), root, download, image_size, channels, sampling)


def _read(split: Published, root: str | None, download: bool, image_size: int, channels: int, sampling: Mapping[str, Sampling]) -> FewShot:
    place = unpacked(_place(root))
    official = find_official(place)
    if official is None and download and not place.is_file():
        download_set("CIFAR100", "CIFAR-100", place)
        official = find_official(place)
    if official is None:
        if not place.exists():
            raise UserError(
                f"CIFAR-100 is not in '{place}'. Give task.root=DIR with cifar-100-binary or cifar-100-python in it, or download it: "
                "pip install torchvision (a version that fits the installed torch), then task.download=true."
            )
        return read_copy(split, place, image_size, channels, sampling)
    labelled = read_official(official, sorted(split.classes))
    rows: dict[str, list[int]] = {}
    for index, name in enumerate(labelled.classes):
        rows.setdefault(name, []).append(index)
    return of_images_in_memory(split, labelled.images, rows, official, image_size, channels, sampling)


def _place(root: str | None) -> Path:
    if root is not None:
        return expanded(root)
    data = os.environ.get("METARUN_DATA")
    return (expanded(data) if data else cache_folder()) / "cifar100"
