"""Images converted to another shape, so that a trained network can take the images of any data set."""

from __future__ import annotations

from collections.abc import Sequence
from dataclasses import replace
from typing import TypeVar

import torch
from torch import Tensor
from torch.nn.functional import interpolate

from metarun.errors import UserError
from metarun.tasks.sampling import FewShot
from metarun.tasks.stream import Streams

Images = TypeVar("Images", bound=FewShot | Streams)

LUMINANCE = (0.299, 0.587, 0.114)
"""Weights of red, green and blue in grey (ITU-R BT.601), as in Pillow."""

_CHUNK = 1000


def fit_images(source: Images, shape: Sequence[int]) -> Images:
    """Return the source with images of this shape (C, H, W); the same object where they have the shape already.

    Raises UserError for a change of channels other than grey to colour or back.
    """
    if isinstance(source, Streams):
        return replace(source, source=fit_images(source.source, shape))
    pools = source.pools
    if all(tuple(pool.images.shape[1:]) == tuple(shape) for pool in pools.values()):
        return source
    once = {id(pool.images): pool.images for pool in pools.values()}  # splits may share one tensor
    converted = {number: convert(images, shape) for number, images in once.items()}
    return replace(source, pools={split: replace(pool, images=converted[id(pool.images)]) for split, pool in pools.items()})


def convert(images: Tensor, shape: Sequence[int]) -> Tensor:
    """Return images (M, C, H, W), uint8, in another shape (C', H', W').

    Resizing has antialiasing. Grey is the luminance of the colours; colour repeats the grey. UserError for other changes of channels.
    """
    if tuple(images.shape[1:]) == tuple(shape):
        return images
    if images.dim() != 4 or len(shape) != 3:
        raise UserError(
            f"the network takes inputs of shape {tuple(shape)}, and these data have {tuple(images.shape[1:])}; only images convert. "
            "A run on task=features needs the features of the same backbone."
        )
    channels, height, width = shape
    if {images.shape[1], channels} not in ({1}, {3}, {1, 3}):
        raise UserError(f"the network takes images of {channels} channels, and this data set has {images.shape[1]}; only 1 and 3 convert.")
    return torch.cat([_convert(part.float(), channels, (height, width)) for part in images.split(_CHUNK)])


def _convert(images: Tensor, channels: int, size: tuple[int, int]) -> Tensor:
    if images.shape[1] > channels:
        images = (images * torch.tensor(LUMINANCE, device=images.device)[:, None, None]).sum(dim=1, keepdim=True)
    if images.shape[-2:] != size:
        images = interpolate(images, size, mode="bilinear", align_corners=False, antialias=True)
    return images.round().clamp(0, 255).to(torch.uint8).expand(-1, channels, -1, -1)
