"""The processes of the running command, as the engine sees them. `OneProcess`, the usual case, communicates nothing."""

from __future__ import annotations

import contextlib
from collections.abc import Callable, Iterator, Sequence
from contextvars import ContextVar
from typing import TYPE_CHECKING, Any, Protocol

from metarun.errors import UserError

if TYPE_CHECKING:
    from torch import Tensor


class PeerLostError(UserError):
    """Another process of this command has ended or does not answer, so this one cannot go on."""


class Ranks(Protocol):
    """The processes of one command. Every process must call the methods in the same order, with arguments that fit each other.

    rank: the number of this process. size: the number of processes. local_rank: the number of this process on its machine.
    machines: the number of machines. cores: the CPU cores of the machine that its processes may use; None for torch's own choice.
    A method raises PeerLostError where another process has ended.
    """

    @property
    def rank(self) -> int: ...
    @property
    def size(self) -> int: ...
    @property
    def local_rank(self) -> int: ...
    @property
    def machines(self) -> int: ...
    @property
    def cores(self) -> int | None: ...
    @property
    def first(self) -> bool:
        """Whether this process is number 0, which writes the files and speaks to the user."""

    def in_order(self, device: str) -> bool:
        """Whether `add_in_order` keeps the order of its parts for tensors on this device. NCCL adds in an order of its own."""

    def gather(self, rows: Any, counts: Sequence[int]) -> Any:
        """Return the rows of all processes, in the order of the processes.

        rows: a pytree of tensors with a leading axis of counts[rank] rows; None where this process has no row. counts: the rows of each
        process; those without rows are the last ones.
        """

    def add_in_order(self, parts: list[dict[str, Tensor]], owners: int) -> dict[str, Tensor]:
        """Return 0 + part + part + …: the parts of process 0 in their order, then those of process 1, and so on.

        parts: the parts of this process; this method empties the list. owners: only the first `owners` processes have parts.
        """

    def agree(self, number: int) -> int:
        """Return the largest of the numbers (at least 0) of all processes. Waits for all of them."""

    def tell(self, compute: Callable[[], Any]) -> Any:
        """Call `compute` in the first process only, and return its result in all processes. The result must be a JSON value."""


class OneProcess:
    """A command that runs alone."""

    rank, size, local_rank, machines, first = 0, 1, 0, 1, True
    cores: int | None = None

    def in_order(self, device: str) -> bool:
        """Return True: one process adds in any order that it likes."""
        return True

    def gather(self, rows: Any, counts: Sequence[int]) -> Any:
        """Return the rows."""
        return rows

    def add_in_order(self, parts: list[dict[str, Tensor]], owners: int) -> dict[str, Tensor]:
        """Return the only part, which is the sum so far."""
        (total,) = parts
        return total

    def agree(self, number: int) -> int:
        """Return the number."""
        return number

    def tell(self, compute: Callable[[], Any]) -> Any:
        """Return what `compute` returns."""
        return compute()


ONE = OneProcess()
_HERE: ContextVar[Ranks] = ContextVar("the processes of the command that runs", default=ONE)


def here() -> Ranks:
    """Return the processes of the command that runs; `ONE` for a command that runs alone, and on threads that a command starts.

    A function that computes together with the other processes takes them as an argument. Call `here` only at the start of a command, and
    where metarun writes files.
    """
    return _HERE.get()


@contextlib.contextmanager
def using(ranks: Ranks) -> Iterator[None]:
    """Let `here` return these processes in the `with` block."""
    token = _HERE.set(ranks)
    try:
        yield
    finally:
        _HERE.reset(token)
