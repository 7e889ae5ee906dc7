"""The preparation of images: from a file, a Pillow image or an array to the values that a source of images deals."""

from __future__ import annotations

import math
from collections.abc import Iterable, Mapping
from concurrent.futures import ThreadPoolExecutor
from dataclasses import dataclass
from pathlib import Path
from typing import Any, ClassVar

import numpy as np
import torch
from PIL import Image, ImageFile
from torch import Tensor

from metarun.errors import UserError, printable
from metarun.files.paths import expanded
from metarun.tasks.pictures.decoding import UnreadableError, decode, reason, shaped
from metarun.tasks.pictures.image_files import read_file
from metarun.tasks.pool import unit_range
from metarun.tasks.tables.raw_numbers import rows_of

MOST_SIDE = 10_000
"""The longest side of a prepared image."""
_SHOWN = 10
"""Unreadable images that an error names."""


@dataclass(frozen=True)
class ImagePreparation:
    """Turns images into float32 (B, channels, size, size) in [0, 1], as the sources of images do (`pictures.decoding.decode`).

    inverted: ink is 1 and paper 0, while the files have dark ink on light paper.
    """

    size: int
    channels: int
    inverted: bool = False
    kind: ClassVar[str] = "images"

    @property
    def shape(self) -> tuple[int, int, int]:
        """The shape of one input."""
        return self.channels, self.size, self.size

    def inputs(self, x: Any) -> Tensor:
        """Return images as the source deals them.

        x: one image or several. A raw image is a path, the bytes of a file, a Pillow image, or uint8 values: (H, W) or
            (H, W, channels) in an array, (channels, H, W) in a tensor. It is turned upright, resized, cropped and, with `inverted`,
            inverted. An array or a tensor of floats is prepared already: `shape`, or (B, *shape), values in [0, 1].

        Raises UserError that names the images that cannot be read.
        """
        given = _several(x)
        if _is_floats(given):
            return self._prepared(given)
        items = list(given)
        if not items:
            raise UserError("x has no images; give at least one.")
        with ThreadPoolExecutor(max_workers=8) as pool:
            # Pillow images are read here, one after the other: two of them may share a file.
            found = list(pool.map(self._attempt, map(_bytes_of_lazy, items)))
        refused = [(number, each) for number, each in enumerate(found) if isinstance(each, str)]
        if refused:
            named = ", ".join(f"{_name(items[number], number)} ({printable(why)})" for number, why in refused[:_SHOWN])
            more = f" and {len(refused) - _SHOWN} more" if len(refused) > _SHOWN else ""
            raise UserError(f"cannot read {len(refused)} of {len(items)} images: {named}{more}; repair, convert or leave them out.")
        return torch.cat(found)  # type: ignore[arg-type]

    images = inputs

    def targets(self, y: Any) -> Tensor:
        """Return y, (B,) or (B, D), as float32 (B, D): images have no unit for a target."""
        return rows_of(y, None).to(torch.float32)

    def in_units(self, y: Tensor) -> Tensor:
        """Return y in float64."""
        return y.double()

    def stored(self) -> dict[str, Any]:
        """Return the plain values."""
        return {"kind": self.kind, "size": self.size, "channels": self.channels, "inverted": self.inverted}

    def _attempt(self, item: Any) -> Tensor | str:
        """Return one image (1, *shape), or the reason why there is none."""
        try:
            if _is_floats(item):
                return self._prepared(item)
            image = self._decoded(item)
        except UserError as error:
            return str(error).rstrip(".")
        except Exception as error:  # Pillow's readers raise exceptions of every kind on bad bytes
            return reason(error)
        pixels = torch.from_numpy(np.array(image.transpose(2, 0, 1)))[None]
        return unit_range(pixels.bitwise_not() if self.inverted else pixels)

    def _decoded(self, item: Any) -> np.ndarray:
        """Return a raw image as uint8 (size, size, channels)."""
        as_asked: dict[str, Any] = {"size": self.size, "channels": self.channels}
        if isinstance(item, (str, Path)):
            return decode(read_file(expanded(item)), name=Path(item).name, **as_asked)
        if isinstance(item, (bytes, bytearray, memoryview)):
            return decode(bytes(item), **as_asked)
        if isinstance(item, Image.Image):
            return shaped(item, **as_asked)
        return shaped(Image.fromarray(_pixels(item)), **as_asked)

    def _prepared(self, values: Any) -> Tensor:
        """Return prepared images (B, *shape), checked."""
        x = torch.as_tensor(values).detach()
        x = (x[None] if x.dim() == 3 else x).to(torch.float32)
        if tuple(x.shape[1:]) != self.shape or not len(x):
            raise UserError(
                f"images of floats must have the shape {self.shape} of the network's inputs, and yours have {tuple(values.shape)}; "
                "give other images as uint8 with values from 0 to 255, as paths or as Pillow images."
            )
        low, high = float(x.min()), float(x.max())
        if not (low >= -1e-3 and high <= 1 + 1e-3):
            raise UserError(f"images of floats must have values in [0, 1], and yours have values from {low:.6g} to {high:.6g}.")
        return x


def _several(x: Any) -> Any:
    """Return the examples of x: x itself, or a list of the one image that x is."""
    if isinstance(x, (str, Path, bytes, bytearray, memoryview, Image.Image)):
        return [x]
    if isinstance(x, Mapping) or not isinstance(x, (Iterable, Tensor)):
        raise UserError(f"x is a {type(x).__name__}; give images as a list of paths or images, as an array or as a tensor.")
    if isinstance(x, np.ndarray) and x.ndim == 1 and x.dtype.kind in "OU":  # paths, or Pillow images
        return x.tolist()
    if isinstance(x, (np.ndarray, Tensor)) and x.ndim < 3:
        raise UserError(f"x has shape {tuple(x.shape)}; it must have an axis of examples before those of an image.")
    return x


def _is_floats(values: Any) -> bool:
    if isinstance(values, Tensor):
        return values.is_floating_point()
    return isinstance(values, np.ndarray) and values.dtype.kind == "f"


def _bytes_of_lazy(item: Any) -> Any:
    """Return the bytes of an image that Pillow has opened and not read, so that it is decoded as the file is; other items as they are."""
    file = getattr(item, "fp", None)
    if not (isinstance(item, ImageFile.ImageFile) and item.tile and file is not None and item.tell() == 0):
        return item
    try:
        place = file.tell()
        file.seek(0)
        data = file.read()
        file.seek(place)
    except (OSError, ValueError):
        return item
    return data


def _pixels(item: Any) -> np.ndarray:
    """Return uint8 values of an image as Pillow takes them, (H, W) or (H, W, channels)."""
    if not isinstance(item, (np.ndarray, Tensor)):
        raise UnreadableError(f"a {type(item).__name__} is no image")
    values = item.detach().cpu().numpy() if isinstance(item, Tensor) else item
    if values.dtype != np.uint8:
        raise UnreadableError(f"its values have the type {values.dtype}; give uint8 values from 0 to 255, or prepared floats")
    if isinstance(item, Tensor) and values.ndim == 3:
        values = values.transpose(1, 2, 0)
    if values.ndim == 3 and values.shape[2] == 1:
        values = values[:, :, 0]
    if values.ndim not in (2, 3) or (values.ndim == 3 and values.shape[2] not in (2, 3, 4)) or not math.prod(values.shape):
        raise UnreadableError(f"its shape {tuple(item.shape)} is no image's: (H, W) or (H, W, 3) in an array, (3, H, W) in a tensor")
    return np.ascontiguousarray(values)


def _name(item: Any, number: int) -> str:
    return f"'{printable(str(item))}'" if isinstance(item, (str, Path)) else f"image {number}"
