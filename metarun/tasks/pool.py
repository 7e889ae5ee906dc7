"""The classes of one split with their images, and the names of the splits."""

from __future__ import annotations

import hashlib
from collections.abc import Collection, Mapping, Sequence
from dataclasses import dataclass, replace

import torch
from torch import Tensor

from metarun.errors import UserError, nearest

SPLITS = ("train", "val", "test")


@dataclass(frozen=True)
class ClassPool:
    """The images of one split, grouped by class.

    images: (M, C, H, W) uint8, or vectors (M, D) float32 in their place; the images of class 0 first, then those of class 1, …; in any
        order and number where `rows` is set.
    counts: images per class, in the order of the classes; the counts sum to M.
    names: one name per class, for error messages.
    groups: the superclass of each class (Omniglot: its alphabet), classes of one group next to each other; None without groups.
    origins: for each class, the name of the class that it is a copy of (a turned character: the upright one); None where none is a copy.
    inverted: whether the images are those of the files with black and white exchanged.
    rows: (M,) the index in `images` of each of the M images, class by class; None where `images` holds exactly these M images.
    """

    images: Tensor
    counts: Sequence[int]
    names: Sequence[str]
    groups: Sequence[str] | None = None
    rows: Tensor | None = None
    origins: Sequence[str] | None = None
    inverted: bool = False

    def __post_init__(self) -> None:
        size = len(self.images if self.rows is None else self.rows)
        if not (len(self.counts) == len(self.names) and sum(self.counts) == size):
            raise ValueError(f"{len(self.names)} names, {len(self.counts)} counts (sum {sum(self.counts)}), {size} images do not fit")
        if self.groups is not None:
            runs = 1 + sum(a != b for a, b in zip(self.groups, self.groups[1:], strict=False))
            if runs != len(set(self.groups)):
                raise ValueError("classes of one group must stand next to each other")

    def to(self, device: torch.device | str) -> ClassPool:
        """Return the pool on the device, with the images of its own classes only."""
        if self.images.device == torch.device(device):
            return self
        images = self.images if self.rows is None else self.images[self.rows]
        return replace(self, images=images.to(device), rows=None)

    def values(self, chosen: Tensor) -> Tensor:
        """Return the images `chosen` (B,), numbered class by class: float32 (B, C, H, W) in [0, 1], on the pool's device.

        Vectors (B, D) stay as they are.
        """
        rows = chosen if self.rows is None else self.rows.index_select(0, chosen)
        device = self.images.device
        pixels = self.images.index_select(0, rows.to(device, non_blocking=True))
        return pixels if pixels.is_floating_point() else unit_range(pixels)


def unit_range(pixels: Tensor) -> Tensor:
    """Return uint8 pixels as float32 in [0, 1]. Every source and every preparation of images divides here, so their bits are equal."""
    white = torch.full((), 255.0, device=pixels.device)  # a tensor: by a number, CUDA would multiply by 1 / 255 and round differently
    return pixels.to(torch.float32).div_(white)


def numbers_of(names: Sequence[str]) -> Tensor:
    """Return a number for each name, (C,) int64, from 0 on. The name alone determines its number, in any process and on any machine."""
    digests = [hashlib.blake2b(name.encode(errors="surrogateescape"), digest_size=8).digest() for name in names]
    return torch.tensor([int.from_bytes(digest, "big") >> 1 for digest in digests], dtype=torch.int64)


def is_whole(value: object) -> bool:
    """Return whether a value of a config is a whole number; a bool is not."""
    return isinstance(value, int) and not isinstance(value, bool)


def check_split(split: str, known: Collection[str] = SPLITS) -> None:
    """Raise `UserError` for a split that does not exist."""
    if split not in known:
        raise UserError(f"there is no split '{split}'; this task has {', '.join(known)}.{nearest(split, known)}")


def pool_of(pools: Mapping[str, ClassPool], split: str) -> ClassPool:
    """Return the pool of a split. Raises UserError, with the known splits, for an unknown one."""
    check_split(split, pools)
    return pools[split]
