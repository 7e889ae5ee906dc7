"""Several processes that compute together, over torch.distributed: gloo for everything on a CPU, NCCL for tensors on GPUs."""

from __future__ import annotations

import json
import re
import time
from collections.abc import Callable, Iterator, Sequence
from contextlib import contextmanager
from dataclasses import dataclass
from typing import Any

import torch
import torch.distributed as dist
from torch import Tensor
from torch.utils._pytree import tree_map, tree_map_only

from metarun.functional import split_tensors
from metarun.processes.launch import Place
from metarun.processes.ranks import PeerLostError

SEGMENT = 1 << 20
"""Numbers of a sum that travel at once. While one process adds a segment, the process before it sends the next one."""
LOST = "another process of this command has ended, so all end; the last checkpoint is kept."
FAILED = "failed"
"""The entry of the store that counts the processes that have failed."""
LOOK = 0.02
"""Seconds between two looks into the store."""
_CONNECTION = re.compile(r"gloo|nccl|connection|socket|broken pipe|timed? ?out|store|aborted", re.IGNORECASE)


class Group:
    """The processes of one command. See `metarun.processes.ranks.Ranks` for the methods.

    place: of this process. store: connects all of them. host: their group of gloo. nccl: whether NCCL carries the tensors on GPUs.
    machines, cores: as in `Ranks`.
    """

    def __init__(self, place: Place, store: Any, host: Any, *, nccl: bool = False, machines: int = 1, cores: int | None = None) -> None:
        self.rank, self.size, self.local_rank, self.first = place.rank, place.size, place.local_rank, place.rank == 0
        self.machines, self.cores = machines, cores
        self._store, self._host, self._nccl, self._told = store, host, nccl, 0

    def in_order(self, device: str) -> bool:
        """Return whether gloo adds tensors on this device."""
        return not (self._nccl and device.startswith("cuda"))

    def gather(self, rows: Any, counts: Sequence[int]) -> Any:
        """Return the rows of all processes. Each process sends its rows as bytes, padded to the size of the largest share."""
        with talking():
            rows = self._of_all(rows, counts[-1] == 0)
            if counts[self.rank] == 0:
                rows = tree_map_only(Tensor, lambda leaf: leaf[:0], rows)
            tensors, refill = split_tensors(rows)
            if not tensors:
                return rows
            device = tensors[0].device
            carrier = device if not self.in_order(device.type) else torch.device("cpu")
            sizes = [sum(_row_bytes(each) for each in tensors) * count for count in counts]
            sent = torch.zeros(max(sizes), dtype=torch.uint8, device=carrier)
            sent[: sizes[self.rank]] = torch.cat([_as_bytes(each) for each in tensors]).to(carrier)
            received = [torch.empty_like(sent) for _ in counts]
            dist.all_gather(received, sent, group=self._carried_by(carrier))
        parts = [_from_bytes(part[:size].to(device), tensors, count) for part, size, count in zip(received, sizes, counts, strict=True)]
        return refill([torch.cat(each) for each in zip(*parts, strict=True)])

    def add_in_order(self, parts: list[dict[str, Tensor]], owners: int) -> dict[str, Tensor]:
        """Return the sum, in memory laid out as the parts.

        With gloo the sum goes from process to process. Each adds its parts, and the last owner sends the sum to all.
        """
        with talking():
            like = self._of_all(parts[0] if parts else None, owners < self.size)
            total = {name: torch.zeros_like(value) for name, value in like.items()}
            flats = [_flat(parts.pop(0)) for _ in range(len(parts))]
            for dtype, pieces in _flat(total).items():
                summed = self._sum(pieces, [flat[dtype] for flat in flats], owners)
                same = [value for value in total.values() if value.dtype == dtype]
                for value, piece in zip(same, summed.split([value.numel() for value in same]), strict=True):
                    value.copy_(piece.view(value.shape))
        return total

    def agree(self, number: int) -> int:
        """Return the largest number."""
        with talking():
            mine = torch.tensor([number])
            received = [torch.empty_like(mine) for _ in range(self.size)]
            dist.all_gather(received, mine, group=self._host)
        return int(max(received))

    def tell(self, compute: Callable[[], Any]) -> Any:
        """Return what `compute` returns in the first process, through the store. Raises PeerLostError where another process has failed."""
        self._told += 1
        key = f"told/{self._told}"
        if self.first:
            value = compute()
            with talking():
                self._store.set(key, json.dumps(value))
            return value
        with talking():
            await_entries(self._store, [key])
            return json.loads(self._store.get(key))

    def fails_first(self) -> bool:
        """Note that this process has failed; return whether it is the first one, which tells the user."""
        try:
            return bool(self._store.add(FAILED, 1) == 1)
        except RuntimeError:  # the store went with the first process
            return self.rank == 1

    def note(self, name: str) -> None:
        """Note for the other processes that something has happened."""
        _ignoring_loss(lambda: self._store.set(name, "1"))

    def await_notes(self, names: list[str], seconds: float) -> None:
        """Wait until other processes have noted that these things have happened, but not longer than `seconds`."""
        if names:
            _ignoring_loss(lambda: await_entries(self._store, names, seconds, whatever_fails=True))

    def close(self) -> None:
        """End the connections. The others then get PeerLostError from what they wait for."""
        self._host = None
        dist.destroy_process_group()

    def _carried_by(self, device: torch.device) -> Any:
        return self._host if device.type == "cpu" else dist.group.WORLD

    def _of_all(self, tree: Any, some_idle: bool) -> Any:
        """Return the pytree; in an idle process, which passes None, tensors of the forms of the first process's, with any values."""
        if not some_idle:
            return tree
        sent = [tree_map(Form.of, tree) if self.first else None]
        dist.broadcast_object_list(sent, src=0, group=self._host)
        return tree if tree is not None else tree_map_only(Form, lambda form: form.empty(self.local_rank), sent[0])

    def _sum(self, total: Tensor, parts: list[Tensor], owners: int) -> Tensor:
        """Add the parts of all processes to a flat tensor of zeros."""
        if not self.in_order(total.device.type):
            for part in parts:
                total += part
            dist.all_reduce(total)
            return total
        total, device = total.cpu(), total.device
        sending = []
        for start in range(0, len(total) if self.rank < owners else 0, SEGMENT):
            segment = total[start : start + SEGMENT]
            if self.rank > 0:
                dist.recv(segment, src=self.rank - 1, group=self._host)
            for part in parts:
                segment += part[start : start + SEGMENT].cpu()
            if self.rank < owners - 1:
                sending.append(dist.isend(segment, dst=self.rank + 1, group=self._host))
        for each in filter(None, sending):
            each.wait()
        dist.broadcast(total, src=owners - 1, group=self._host)
        return total.to(device)


@dataclass(frozen=True)
class Form:
    """What an idle process must know of a tensor that the others have."""

    shape: tuple[int, ...]
    stride: tuple[int, ...]
    dtype: torch.dtype
    device: str

    @staticmethod
    def of(leaf: Any) -> Any:
        """Return the form of a tensor, and any other leaf as it is."""
        return Form(tuple(leaf.shape), leaf.stride(), leaf.dtype, leaf.device.type) if isinstance(leaf, Tensor) else leaf

    def empty(self, local_rank: int) -> Tensor:
        """Return a tensor of this form with any values, on this process's device."""
        device = self.device if self.device == "cpu" else f"{self.device}:{local_rank}"
        return torch.empty_strided(self.shape, self.stride, dtype=self.dtype, device=device)


@contextmanager
def talking() -> Iterator[None]:
    """Raise PeerLostError in the place of torch's error about a connection."""
    try:
        yield
    except RuntimeError as error:
        if not _CONNECTION.search(f"{type(error).__name__} {error}"):
            raise
        raise PeerLostError(LOST) from error


def await_entries(store: Any, keys: list[str], seconds: float = float("inf"), *, whatever_fails: bool = False) -> None:
    """Wait until the store has entries of all these names. torch's own wait would not let a signal through.

    Raises PeerLostError after `seconds`, and where a process has failed unless `whatever_fails`.
    """
    begun = time.monotonic()
    while not store.check(keys):
        if time.monotonic() - begun > seconds or (not whatever_fails and store.check([FAILED])):
            raise PeerLostError(LOST)
        time.sleep(LOOK)


def _ignoring_loss(call: Callable[[], object]) -> None:
    try:
        call()
    except (RuntimeError, PeerLostError):
        return


def _flat(tensors: dict[str, Tensor]) -> dict[torch.dtype, Tensor]:
    """Return the numbers of the tensors of each type, one tensor after the other."""
    types = dict.fromkeys(value.dtype for value in tensors.values())
    return {dtype: torch.cat([value.reshape(-1) for value in tensors.values() if value.dtype == dtype]) for dtype in types}


def _row_bytes(tensor: Tensor) -> int:
    rows = tensor.shape[1:]
    return rows.numel() * tensor.element_size()


def _as_bytes(tensor: Tensor) -> Tensor:
    return tensor.contiguous().reshape(-1).view(torch.uint8)


def _from_bytes(received: Tensor, like: Sequence[Tensor], count: int) -> list[Tensor]:
    """Return the rows of one process from its bytes. like: tensors with rows of the same form."""
    pieces = received.split([_row_bytes(each) * count for each in like])
    # A copy, since the bytes of a piece need not begin where a number of this type may.
    return [piece.clone().view(each.dtype).view(count, *each.shape[1:]) for piece, each in zip(pieces, like, strict=True)]
