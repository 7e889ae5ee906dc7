"""Orders of the examples of one task: shuffled mini-batches, and a random sequence. Padding never changes an order."""

from __future__ import annotations

import torch
from torch import Tensor

from metarun import draws
from metarun.types import Examples


def mini_batches(support: Examples, key: Tensor, count: int, size: int) -> list[Tensor]:
    """Return the rows of `count` mini-batches, (size,) each: pass after pass over the real rows, each pass in a new random order."""
    rows = support.x.shape[0]
    real = torch.ones(rows, dtype=torch.bool, device=support.x.device) if support.mask is None else support.mask
    number = real.sum()
    position = torch.arange(count * size, device=support.x.device)
    passes, place = position // number, position % number
    # The rank of an example among the real rows determines its draw.
    rank = (real.cumsum(0) - 1).clamp(min=0)
    orders = draws.bits(draws.fold(key, passes), rows).gather(1, rank.expand(len(position), rows))
    orders = orders.masked_fill(~real, torch.iinfo(torch.int64).max).argsort(dim=1, stable=True)
    return list(orders.gather(1, place[:, None])[:, 0].reshape(count, size))


def random_order(z: Tensor, mask: Tensor | None, key: Tensor) -> Tensor:
    """Return a random order (B,) of the rows of z, padding last."""
    rows = z.shape[0]
    if mask is None:
        return draws.permutation(key, rows)
    rank = (mask.cumsum(0) - 1).clamp(min=0)
    return draws.bits(key, rows)[rank].masked_fill(~mask, torch.iinfo(torch.int64).max).argsort(stable=True)
