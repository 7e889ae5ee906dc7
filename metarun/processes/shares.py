"""The rule by which processes divide the tasks of a batch, and the places of their tensors in memory.

The T tasks are cut into chunks, T divided by the size of a chunk, rounded up. The cut does not depend on the number of processes. A process
computes whole chunks, which follow each other. Each process gets the same number of chunks, or one more where it is one of the first. So
results joined in the order of the processes are in the order of the tasks.
"""

from __future__ import annotations

from typing import Any

import torch
from torch import Tensor
from torch.utils._pytree import tree_map_only

ALIGNMENT = 64
"""Bytes. torch's memory on a CPU starts at a multiple of this, and a kernel's rounding may depend on the address modulo this."""


def chunks_of(tasks: int, chunk: int) -> int:
    """Return the number of chunks of a batch."""
    return -(-tasks // chunk)


def shares_of(tasks: int, chunk: int, size: int) -> list[range]:
    """Return the tasks of each of `size` processes, as positions in the batch."""
    each, more = divmod(chunks_of(tasks, chunk), size)
    ends = [chunk * (each * (rank + 1) + min(rank + 1, more)) for rank in range(size)]
    return [range(min(start, tasks), min(end, tasks)) for start, end in zip([0, *ends], ends, strict=False)]


def placed(part: Any, first: int) -> Any:
    """Return rows of a batch, in a pytree of tensors, at addresses that equal those of the whole batch modulo `ALIGNMENT`.

    first: the position of the first row in the batch. A product of a matrix and a vector then rounds as in the whole batch.
    """
    if first == 0:
        return part
    return tree_map_only(Tensor, lambda rows: _placed(rows, first), part)


def _placed(rows: Tensor, first: int) -> Tensor:
    if rows.device.type != "cpu" or rows.dim() == 0 or rows.numel() == 0:
        return rows
    size = rows.element_size()
    offset = first * rows[0].numel() * size % ALIGNMENT // size
    like = torch.empty_like(rows)  # dense, with the strides of the rows where these are dense
    memory = torch.empty(rows.numel() + offset, dtype=rows.dtype)
    moved = memory.as_strided(like.size(), like.stride(), offset)
    return moved.copy_(rows)
