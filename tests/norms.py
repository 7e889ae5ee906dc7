"""Normalisation layers and their inputs in float64, for the tests of `metarun.layers`."""

from __future__ import annotations

from typing import Any

import torch
from torch import Tensor, nn

from metarun.layers.adopt import adopt_layers
from metarun.layers.norm import Norm

SHAPES = [(6, 3), (6, 3, 5), (6, 3, 4, 5)]


def plain_norm(features: int, **options: Any) -> Norm:
    """Return an adopted batch normalisation, which does not look at the number of axes, under the name "layer"."""
    (layer,) = adopt_layers(nn.BatchNorm2d(features, **options))
    layer.norm_name = "layer"
    return layer


def norm_layer(features: int = 3, seed: int = 0) -> Norm:
    layer = plain_norm(features).double()
    generator = torch.Generator().manual_seed(seed)
    for parameter in (layer.weight, layer.bias):
        assert parameter is not None
        parameter.data = torch.randn(features, generator=generator, dtype=torch.float64)
    return layer


def images(*shape: int) -> Tensor:
    return 2.0 + 3.0 * torch.randn(*shape, dtype=torch.float64)


def all_rows(x: Tensor) -> Tensor:
    """A mask that leaves nothing out: it makes the layer take the formula instead of the fused kernel."""
    return torch.ones(len(x), dtype=torch.bool)
