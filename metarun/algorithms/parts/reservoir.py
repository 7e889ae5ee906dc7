"""A buffer of past examples of a stream: a uniform sample of all examples so far, of a fixed size.

Vitter, "Random sampling with a reservoir", ACM Transactions on Mathematical Software 11(1), 1985, algorithm R. Example number n (from 0)
takes place n while there is room. Later it takes a random place of 0 … n, if the buffer has this place.
"""

from __future__ import annotations

from typing import NamedTuple

import torch
from torch import Tensor

from metarun import draws


class Reservoir(NamedTuple):
    """x: (M, ...) inputs or features. y: (M, N). seen: (), int64, the number of examples so far."""

    x: Tensor
    y: Tensor
    seen: Tensor


def empty_reservoir(size: int, x: Tensor, y: Tensor) -> Reservoir:
    """Return a buffer without examples for `size` examples such as the rows of x (B, ...) and y (B, N)."""
    return Reservoir(x.new_zeros(size, *x.shape[1:]), y.new_zeros(size, *y.shape[1:]), torch.zeros((), dtype=torch.int64, device=y.device))


def recalled(buffer: Reservoir, key: Tensor, count: int) -> tuple[Tensor, Tensor, Tensor]:
    """Return `count` random examples, x (count, ...) and y (count, N), and which of them are real, (count,) bool: none in an empty buffer.

    An example may come twice.
    """
    filled = buffer.seen.clamp(max=len(buffer.y))
    rows = draws.integers(draws.fold(key, "recall"), count, size=filled.clamp(min=1))
    return buffer.x[rows], buffer.y[rows], (filled > 0).expand(count)


def stored(buffer: Reservoir, x: Tensor, y: Tensor, key: Tensor) -> Reservoir:
    """Return the buffer after the examples x (B, ...) and y (B, N) have passed, one after the other."""
    size = len(buffer.y)
    for number in range(len(y)):
        random = draws.integers(draws.fold(draws.fold(key, "store"), number), size=buffer.seen + 1)
        place = torch.where(buffer.seen < size, buffer.seen, random)
        here = torch.arange(size, device=y.device) == place  # nowhere, if the buffer lacks this place
        buffer = Reservoir(_put(buffer.x, here, x[number]), _put(buffer.y, here, y[number]), buffer.seen + 1)
    return buffer


def _put(rows: Tensor, here: Tensor, row: Tensor) -> Tensor:
    return torch.where(here.reshape(-1, *[1] * (rows.dim() - 1)), row, rows)
