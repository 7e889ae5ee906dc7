"""Two small operations on rows of embeddings."""

from __future__ import annotations

import torch
from torch import Tensor


def unit(z: Tensor) -> Tensor:
    """Return the rows of z (B, D) at length 1. A row of zeros, which a ReLU may give, stays a row of zeros."""
    return z * (z.square().sum(dim=1, keepdim=True) + 1e-12).rsqrt()


def with_ones(z: Tensor) -> Tensor:
    """Return z (B, D) with a last column of ones, (B, D + 1). The weight of that column is the bias of a linear map."""
    return torch.cat([z, torch.ones_like(z[:, :1])], dim=1)
