"""Counter-based random numbers: every draw is a pure function of (seed, split, index, slot).

A key is an int64 tensor of any shape. Every function appends its own axes to the key's shape, so one call draws for a whole
batch. The same call on a scalar key works inside `torch.func.vmap`. No function has a hidden state. So a resumed run has the
same episodes and the same noise as a run that never stopped. The mixing function is the finaliser of SplitMix64
(Steele, Lea and Flood, "Fast splittable pseudorandom number generators", OOPSLA 2014).
"""

from __future__ import annotations

import functools
import math
import zlib
from collections.abc import Sequence
from typing import Any

import torch
from torch import Tensor

_WORD = (1 << 64) - 1


def _signed(word: int) -> int:
    """Return the last 64 bits of a number as a signed int64."""
    word &= _WORD
    return word - (1 << 64) if word >= 1 << 63 else word


_GOLDEN = _signed(0x9E3779B97F4A7C15)
_INVERSE = _signed(pow(0x9E3779B97F4A7C15, -1, 1 << 64))
_MIX1 = _signed(0xBF58476D1CE4E5B9)
_MIX2 = _signed(0x94D049BB133111EB)


def _shift_right(z: Tensor, bits: int) -> Tensor:
    """Return a new tensor: z shifted right as if z were unsigned (a logical shift)."""
    return (z >> bits).bitwise_and_((1 << (64 - bits)) - 1)


def _mix(z: Tensor) -> Tensor:
    z = _shift_right(z, 30).bitwise_xor_(z).mul_(_MIX1)
    z = _shift_right(z, 27).bitwise_xor_(z).mul_(_MIX2)
    return _shift_right(z, 31).bitwise_xor_(z)


def _mix_word(z: int) -> int:
    """Return `_mix` of one number. For single numbers Python's integers are many times as fast as tensors."""
    z = (z ^ (z >> 30)) * _MIX1 & _WORD
    z = (z ^ (z >> 27)) * _MIX2 & _WORD
    return z ^ (z >> 31)


def _plus_golden(key: Tensor, multiples: Tensor) -> Tensor:
    """Return key + multiples * _GOLDEN modulo 2^64, as (key / _GOLDEN + multiples) * _GOLDEN.

    The plain form multiplies an `arange` by a constant. torch's compiler turns that product into C++ on a loop counter. Overflow of
    the counter is undefined behaviour: the compiled code wrote beyond the end of its array.
    """
    return (key * _INVERSE + multiples).mul_(_GOLDEN)


def _number(data: int | str) -> int:
    return zlib.crc32(data.encode()) if isinstance(data, str) else data


def fold(key: Tensor, data: int | str | Tensor) -> Tensor:
    """Derive a new key from a key and a number, a name or a tensor of numbers (broadcast against the key)."""
    if isinstance(data, Tensor):
        return _mix(_plus_golden(key, data + 1))
    return _mix(key + _signed((_number(data) + 1) * _GOLDEN))


def key(seed: int, *path: int | str | Tensor) -> Tensor:
    """Return the key of (seed, *path): `key(seed, "train", indices, "classes")` has the shape of `indices`."""
    word = _mix_word((seed + _GOLDEN) & _WORD)
    for place, part in enumerate(path):
        if isinstance(part, Tensor):
            return functools.reduce(fold, path[place:], torch.tensor(_signed(word), device=part.device))
        word = _mix_word((word + (_number(part) + 1) * _GOLDEN) & _WORD)
    return torch.tensor(_signed(word))


def bits(key: Tensor, *shape: int) -> Tensor:
    """Return random int64 of shape (*key.shape, *shape), all 64 bits random."""
    slots = torch.arange(1, math.prod(shape) + 1, device=key.device).reshape(shape)
    return _mix(_plus_golden(key.reshape(key.shape + (1,) * len(shape)), slots))


def uniform(key: Tensor, *shape: int, low: float = 0.0, high: float = 1.0, dtype: torch.dtype = torch.float32) -> Tensor:
    """Return uniform draws in [low, high) of shape (*key.shape, *shape)."""
    return _unit(bits(key, *shape), dtype).mul_(high - low).add_(low)


def _unit(random: Tensor, dtype: torch.dtype) -> Tensor:
    """Return random bits as numbers in [0, 1)."""
    mantissa = 53 if dtype == torch.float64 else 24
    return _shift_right(random, 64 - mantissa).to(dtype).mul_(2.0**-mantissa)


def normal(key: Tensor, *shape: int, dtype: torch.dtype = torch.float32) -> Tensor:
    """Return standard normal draws of shape (*key.shape, *shape), by inverse transform sampling."""
    unit = _shift_right(bits(key, *shape), 12).to(torch.float64).add_(0.5).mul_(2.0**-52)
    return unit.mul_(2.0).sub_(1.0).erfinv_().mul_(math.sqrt(2.0)).to(dtype)


def noise(key: Tensor, *shape: int, dtype: torch.dtype = torch.float32) -> Tensor:
    """Return standard normal draws of shape (*key.shape, *shape), three times as fast as `normal`.

    Two draws come from the halves of one word (Box and Muller, "A note on the generation of random normal deviates", 1958), in the
    precision of `dtype`, so no draw is beyond ±6.8. `noise` is a custom operation, so recorders and compilers keep it whole. A compiler
    that fused it into the operations that read it would repeat the draws for each reader.
    """
    drawn: Tensor = _noise(key, list(shape), dtype)
    return drawn


@torch.library.custom_op("metarun::noise", mutates_args=())
def _noise(key: Tensor, shape: Sequence[int], dtype: torch.dtype) -> Tensor:
    count = math.prod(shape)
    words = bits(key, (count + 1) // 2)
    chance = _shift_right(words, 32).to(dtype).add_(0.5).mul_(2.0**-32)
    angle = words.bitwise_and_((1 << 32) - 1).to(dtype).mul_(2.0**-31 * math.pi)
    radius = chance.log_().mul_(-2.0).sqrt_()
    # Interleave the pairs, so that draw number i is the same for every `count`, as in `normal`.
    pairs = torch.stack([angle.cos().mul_(radius), angle.sin_().mul_(radius)], dim=-1).flatten(-2)
    return pairs[..., :count].reshape(*key.shape, *shape)


@_noise.register_fake
def _(key: Tensor, shape: Sequence[int], dtype: torch.dtype) -> Tensor:
    return key.new_empty(*key.shape, *shape, dtype=dtype)


@_noise.register_vmap
def _(info: Any, in_dims: Any, key: Tensor, shape: Sequence[int], dtype: torch.dtype) -> tuple[Tensor, int]:
    return _noise(key.movedim(in_dims[0], 0), shape, dtype), 0


def integers(key: Tensor, *shape: int, size: int | Tensor) -> Tensor:
    """Return integers in [0, size) of shape (*key.shape, *shape); a tensor `size` is broadcast against that shape."""
    return (uniform(key, *shape, dtype=torch.float64) * size).to(torch.int64)


def permutation(key: Tensor, count: int) -> Tensor:
    """Return random orders of 0..count-1, shape (*key.shape, count)."""
    return bits(key, count).argsort(dim=-1, stable=True)


def distinct(key: Tensor, count: int, size: Tensor) -> Tensor:
    """Return `count` different integers in [0, size) in random order, shape (*key.shape, count); `size` has the key's shape.

    Floyd's algorithm, so the cost depends on `count` and not on `size`: a class pool may have any number of classes. Turn i draws a
    candidate from 0 … last, where last = size - count + i. If an earlier turn took the candidate, turn i takes `last`, which is new.
    """
    names = torch.tensor([_number("set"), _number("order")], device=key.device)
    chance, order = bits(fold(key[..., None], names), count).unbind(dim=-2)
    least = (size - count)[..., None]
    last = least + torch.arange(count, device=key.device)
    candidate = (_unit(chance, torch.float64) * (last + 1)).to(torch.int64)
    chosen = torch.where(_taken(candidate, candidate - least), last, candidate)
    return chosen.gather(-1, order.argsort(dim=-1, stable=True))


def _taken(candidate: Tensor, as_last: Tensor) -> Tensor:
    """Return, for all turns at once, which candidates (…, count) are in the set at their turn.

    as_last: the turn whose `last` equals the candidate; negative where there is none. A candidate is in the set if an earlier turn had the
    same candidate, or if it is the `last` of an earlier turn whose own candidate was in the set. Pointer doubling follows these chains.
    """
    count = candidate.shape[-1]
    value, turn = candidate.sort(dim=-1, stable=True)
    taken = torch.zeros_like(candidate, dtype=torch.bool).scatter_(-1, turn[..., 1:], value[..., 1:] == value[..., :-1])
    before = torch.where(as_last < 0, torch.arange(count, device=candidate.device), as_last)  # a chain ends at a turn that points to itself
    for _ in range((count - 1).bit_length()):
        taken = taken | taken.gather(-1, before)
        before = before.gather(-1, before)
    return taken
