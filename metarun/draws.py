"""Counter-based random numbers: every draw is a pure function of (seed, split, index, slot).

A key is an int64 tensor of any shape; every function appends its own axes to it, so one call draws for a whole batch, and
the same call on a scalar key works inside `torch.func.vmap`. Nothing here has a hidden state, which is why a resumed run
sees the same episodes and the same noise as one that never stopped. The mixing function is the finaliser of SplitMix64
(Steele, Lea and Flood, "Fast splittable pseudorandom number generators", OOPSLA 2014).
"""

from __future__ import annotations

import math
import zlib

import torch
from torch import Tensor


def _signed(value: int) -> int:
    return value - (1 << 64) if value >= 1 << 63 else value


_GOLDEN = _signed(0x9E3779B97F4A7C15)
_MIX1 = _signed(0xBF58476D1CE4E5B9)
_MIX2 = _signed(0x94D049BB133111EB)


def _shift_right(z: Tensor, bits: int) -> Tensor:
    """Shift logically, as if z were unsigned."""
    return (z >> bits) & ((1 << (64 - bits)) - 1)


def _mix(z: Tensor) -> Tensor:
    z = (z ^ _shift_right(z, 30)) * _MIX1
    z = (z ^ _shift_right(z, 27)) * _MIX2
    return z ^ _shift_right(z, 31)


def fold(key: Tensor, data: int | str | Tensor) -> Tensor:
    """Derive a new key from a key and a number, a name or a tensor of numbers (broadcast against the key)."""
    if isinstance(data, str):
        data = zlib.crc32(data.encode())
    return _mix(key + (data + 1) * torch.tensor(_GOLDEN))


def key(seed: int, *path: int | str | Tensor) -> Tensor:
    """Return the key of (seed, *path): `key(seed, "train", indices, "classes")` has the shape of `indices`."""
    out = _mix(torch.tensor(seed, dtype=torch.int64) + _GOLDEN)
    for part in path:
        out = fold(out, part)
    return out


def bits(key: Tensor, *shape: int) -> Tensor:
    """Return random int64 of shape (*key.shape, *shape), all 64 bits random."""
    slots = torch.arange(1, math.prod(shape) + 1, device=key.device).reshape(shape)
    return _mix(key.reshape(key.shape + (1,) * len(shape)) + slots * _GOLDEN)


def uniform(key: Tensor, *shape: int, low: float = 0.0, high: float = 1.0, dtype: torch.dtype = torch.float32) -> Tensor:
    """Return uniform draws in [low, high) of shape (*key.shape, *shape)."""
    mantissa = 53 if dtype == torch.float64 else 24
    unit = _shift_right(bits(key, *shape), 64 - mantissa).to(dtype) * 2.0**-mantissa
    return low + (high - low) * unit


def normal(key: Tensor, *shape: int, dtype: torch.dtype = torch.float32) -> Tensor:
    """Return standard normal draws of shape (*key.shape, *shape), by the inverse of the distribution function."""
    unit = (_shift_right(bits(key, *shape), 12).to(torch.float64) + 0.5) * 2.0**-52
    return (math.sqrt(2.0) * torch.erfinv(2.0 * unit - 1.0)).to(dtype)


def integers(key: Tensor, *shape: int, size: int | Tensor) -> Tensor:
    """Return integers in [0, size) of shape (*key.shape, *shape); a tensor `size` is broadcast against that shape."""
    return (uniform(key, *shape, dtype=torch.float64) * size).to(torch.int64)


def permutation(key: Tensor, count: int) -> Tensor:
    """Return random orders of 0..count-1, shape (*key.shape, count)."""
    return bits(key, count).argsort(dim=-1, stable=True)


def distinct(key: Tensor, count: int, size: Tensor) -> Tensor:
    """Return `count` different integers in [0, size) in random order, shape (*key.shape, count); `size` has the key's shape.

    Floyd's algorithm, so the cost depends on `count` and not on `size`: a class pool may have any number of classes.
    """
    draws = uniform(fold(key, "set"), count, dtype=torch.float64)
    chosen = torch.empty(draws.shape, dtype=torch.int64)
    for i in range(count):
        last = size - count + i
        candidate = (draws[..., i] * (last + 1)).to(torch.int64)
        taken = (chosen[..., :i] == candidate[..., None]).any(dim=-1)
        chosen[..., i] = torch.where(taken, last, candidate)
    return chosen.gather(-1, permutation(fold(key, "order"), count))
