"""Random changes of training photographs: another crop, a mirror image, another brightness.

The draws are a pure function of the episode's key and of the place of the image in the episode. So episode n of a run always has the same
images: alone or in a batch, before or after a resume.

Differences from torchvision's `RandomResizedCrop` (Inception's crop, Szegedy et al. 2015), `RandomHorizontalFlip` and `ColorJitter`:

- metarun crops the image of the episode, which is the centre of the file's image, and not the whole image in the file.
- The crop has between `LEAST` and all of the area; torchvision's default begins at 0.08 of the area, which leaves 24 of 84 pixels a side.
- Area and shape are drawn once. A side that is longer than the image is shortened. torchvision draws again, then takes the centre.
- Edges of the crop lie between pixels too. Resizing is bilinear; it never shrinks, so it needs no antialiasing.
"""

from __future__ import annotations

import math

import torch
from torch import Tensor
from torch.nn.functional import grid_sample

from metarun import draws

LEAST = 0.6
"""The smallest share of the area that a crop keeps. On Caltech 101, crops down to 0.35 lowered the accuracy (docs/data.md)."""
SHAPE = 4 / 3
"""The ratio of width to height of a crop lies between 1/SHAPE and SHAPE (torchvision's default)."""
BRIGHTNESS = 0.2
"""Images are multiplied by 1 - BRIGHTNESS to 1 + BRIGHTNESS."""


def augmented(images: Tensor, keys: Tensor) -> Tensor:
    """Return changed copies of images (B, C, H, W) in [0, 1], on their device. keys: (B,), one for each image, on the CPU.

    Each image is cropped and resized to its size, mirrored with a chance of 1/2, and multiplied by its brightness; values stay in [0, 1].
    """
    window, brightness = (part.to(images.device, non_blocking=True) for part in drawn(keys))
    height, width = images.shape[-2:]
    x, y = (window[:, axis, :1] * _centres(size, images.device) + window[:, axis, 1:] for axis, size in enumerate((width, height)))
    grid = torch.stack([x[:, None, :].expand(-1, height, -1), y[:, :, None].expand(-1, -1, width)], dim=-1)
    cropped = grid_sample(images, grid, mode="bilinear", padding_mode="border", align_corners=False)
    return cropped.mul_(brightness[:, None, None, None]).clamp_(0, 1)


def drawn(keys: Tensor) -> tuple[Tensor, Tensor]:
    """Return the window (B, 2, 2) and the brightness (B,) of each key (B,).

    window: for x and for y, half the length of the crop and its centre, where the image reaches from -1 to 1. A negative length of x
    mirrors the image.
    """
    area, shape, left, top, mirror, light = draws.uniform(keys, 6).unbind(dim=-1)
    area = LEAST + (1 - LEAST) * area
    ratio = torch.exp((2 * shape - 1) * math.log(SHAPE))
    width, height = (area * ratio).sqrt().clamp(max=1), (area / ratio).sqrt().clamp(max=1)
    x, y = (2 * left - 1) * (1 - width), (2 * top - 1) * (1 - height)
    side = torch.where(mirror < 0.5, -width, width)
    window = torch.stack([torch.stack([side, x], dim=-1), torch.stack([height, y], dim=-1)], dim=1)
    return window, 1 - BRIGHTNESS + 2 * BRIGHTNESS * light


def _centres(size: int, device: torch.device) -> Tensor:
    """Return the centres of `size` pixels on a line from -1 to 1."""
    return (2 * torch.arange(size, device=device, dtype=torch.float32) + 1) / size - 1
