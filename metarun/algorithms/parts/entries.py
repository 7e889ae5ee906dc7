"""A memory of fixed size in the state: entries with a key, a value and a usage. Later tasks look entries up by their keys.

An entry of low usage makes room for a new one. Shapes never depend on the number of entries, so the memory can be recorded and mapped.
In classification, an entry also has the number of the class that it comes from.
"""

from __future__ import annotations

import torch
from torch import Tensor

from metarun import draws
from metarun.layers.precision import at_least_float32, full_precision
from metarun.types import State

KEYS, VALUES, USAGE, CLASSES = "memory.keys", "memory.values", "memory.usage", "memory.classes"
EMPTY = -1.0
"""The usage of a place without an entry. An entry has a usage of 0 or more."""
UNKNOWN = -1
"""The class of a place without an entry, and of an entry whose source numbers no classes."""


def empty_memory(capacity: int, key_size: int, value_size: int, *, classes: bool = False) -> State:
    """Return keys (M, key_size), values (M, value_size) and usage (M,) of a memory without entries, and its classes (M,) if `classes`."""
    keys, values = torch.zeros(capacity, key_size), torch.zeros(capacity, value_size)
    memory = {KEYS: keys, VALUES: values, USAGE: torch.full((capacity,), EMPTY)}
    return memory | ({CLASSES: torch.full((capacity,), UNKNOWN)} if classes else {})


def available(memory: State, barred: Tensor | None = None) -> Tensor:
    """Return which places a task may read, (M,) bool: those with an entry, except the entries of the classes `barred` (N,)."""
    filled = memory[USAGE] >= 0
    if barred is None:
        return filled
    own = (memory[CLASSES][:, None] == barred).any(dim=1) & (memory[CLASSES] != UNKNOWN)
    return filled & ~own


def attend(
    keys: Tensor, memory: State, places: Tensor, sharpness: Tensor, count: int, random_key: Tensor | None = None
) -> tuple[Tensor, Tensor]:
    """Return the attention (U, M) of keys (U, key_size) to `count` of the entries at `places` (M,), and its mean cosine (U, 1).

    The entries are the nearest ones, or with `random_key` random ones. If there is no entry, the attention is even, which is finite.
    """
    with full_precision(keys):  # rounded cosines would tie, and the nearest entries would not be known
        cosine = at_least_float32(keys) @ memory[KEYS].T
    rank = cosine.detach() if random_key is None else draws.uniform(random_key, *cosine.shape)
    rank = rank.masked_fill(~places, -torch.inf)
    chosen = places & (rank >= rank.topk(count, dim=1).values[:, -1:])
    attention = (sharpness * cosine).masked_fill(~chosen, -1e9).softmax(dim=1)  # all at -inf would divide 0 by 0
    return attention, (attention * cosine).sum(dim=1, keepdim=True)


def faded(memory: State, decay: float, reads: Tensor | None) -> State:
    """Return the memory with usage times `decay`, plus the attention (M,) to each entry where `reads` gives it."""
    usage = memory[USAGE] * decay
    if reads is not None:
        usage = usage + reads
    kept = {name: memory[name] for name in (KEYS, VALUES, CLASSES) if name in memory}
    return kept | {USAGE: torch.where(memory[USAGE] < 0, EMPTY, usage)}


def write(memory: State, new: State, used: Tensor) -> State:
    """Return the memory with new entries in the places of lowest usage, empty places first. If there are too many, the last ones stay.

    memory: its tensors, each with a leading axis M. new: the same with a leading axis E. used: (E,) bool, the rows of `new` that are
    entries.
    """
    capacity = len(memory[USAGE])
    later = used.sum() - used.cumsum(dim=0)  # the number of entries after this one
    kept = used & (later < capacity)
    # The rows to drop go to one more place at the end, which the last line cuts off: shapes may not depend on the number of entries.
    places = torch.where(kept, memory[USAGE].argsort(stable=True)[later.clamp(max=capacity - 1)], capacity)
    return {name: torch.cat([old, old[:1]]).index_copy(0, places, new[name].to(old.dtype))[:-1] for name, old in memory.items()}
