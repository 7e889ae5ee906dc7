"""The memory of the machine: refuse what cannot fit, with an estimate, before anything is allocated."""

from __future__ import annotations

import contextlib
import math
import os
import re
from collections.abc import Callable, Iterator
from pathlib import Path
from typing import Any

import torch
from torch.overrides import TorchFunctionMode

from metarun.errors import UserError

_CONTROL_GROUP = Path("/sys/fs/cgroup/memory.max")
"""The limit of a container, on Linux with control groups of version 2."""

_FAILURES = re.compile(
    r"can't allocate memory|not enough memory|out of memory|storage size calculation overflowed|integer multiplication overflow"
    r"|overflow when unpacking|cannot fit .* index-sized|too large to convert",
    re.IGNORECASE,
)


def physical_memory() -> float | None:
    """Return the machine's memory in bytes; None where the system does not say."""
    if "SC_PHYS_PAGES" not in getattr(os, "sysconf_names", {}):
        return None
    return float(os.sysconf("SC_PHYS_PAGES") * os.sysconf("SC_PAGE_SIZE"))


def usable_memory() -> float:
    """Return the bytes that this process may use: the machine's memory, or the limit of its container; infinity where unknown."""
    limits = [physical_memory() or math.inf]
    with contextlib.suppress(OSError, ValueError):
        limits.append(float(_CONTROL_GROUP.read_text(encoding="utf-8")))  # "max" where there is no limit
    return min(limits)


def check_fits(needed: float, what: str, remedy: str) -> None:
    """Raise UserError where `needed` bytes exceed the memory of this machine.

    what: the thing that needs them, as the subject of the sentence. remedy: what to change, such as "lower task.shots".
    """
    if needed > (there := usable_memory()):
        raise UserError(f"{what} needs about {in_bytes(needed)} of memory, and this machine has {in_bytes(there)}; {remedy}.")


def in_bytes(count: float) -> str:
    """Return a number of bytes for a person: "8.6 GB"."""
    for unit in ("bytes", "kB", "MB", "GB", "TB", "PB"):
        if count < 1000 or unit == "PB":
            break
        count /= 1000
    return f"{count:.3g} {unit}" if count < 1e6 else f"{count:.1e} {unit}"


@contextlib.contextmanager
def allocating(what: str, remedy: str, *, counted: bool = False) -> Iterator[None]:
    """Turn a failed allocation inside into a UserError with the estimate; see `check_fits` for the arguments.

    counted: also add up the tensors that are created inside, and raise the error before they exceed the memory. Linux grants an allocation
    that does not fit, and kills the process later.
    """
    with _Counting(what, remedy) if counted else contextlib.nullcontext():
        try:
            yield
        except (MemoryError, OverflowError, RuntimeError, TypeError) as error:
            if not isinstance(error, MemoryError) and not _FAILURES.search(str(error)):
                raise
            raise UserError(f"{what} needs {_lacking(error)}; {remedy}.") from error


def _lacking(error: Exception) -> str:
    """Return the memory that a failed allocation needs, and the memory that is there, as the end of a sentence."""
    if isinstance(error, torch.OutOfMemoryError):  # of a CUDA device
        parts = [re.search(f"{words} ([\\d.]+ \\w+)", str(error)) for words in ("allocate", "total capacity of", "of which")]
        if None in parts:
            return "more memory than the GPU has free"
        more, capacity, free = (part[1] for part in parts if part is not None)
        return f"another {more}, and of the {capacity} of the GPU {free} is free"
    asked = re.search(r"allocate (\d+) bytes", str(error))
    size = f"{in_bytes(float(asked[1]))} at once" if asked else "more memory than there is"
    return f"{size}, and this machine has {in_bytes(usable_memory())}"


class _Counting(TorchFunctionMode):
    """Adds up the bytes of the tensors that torch's factory functions create. Parameters of a network come from these functions."""

    def __init__(self, what: str, remedy: str) -> None:
        super().__init__()
        self.what, self.remedy, self.bytes, self.limit = what, remedy, 0.0, usable_memory()

    def __torch_function__(self, func: Any, types: Any, args: Any = (), kwargs: Any = None) -> Any:
        kwargs = kwargs or {}
        count = _FACTORIES.get(func)
        if count is not None and str(kwargs.get("device", "")) != "meta":
            dtype = kwargs.get("dtype")
            self.bytes += count(*args, **kwargs) * (4 if dtype is None else dtype.itemsize)
            if self.bytes > self.limit:
                check_fits(self.bytes, self.what, self.remedy)
        return func(*args, **kwargs)


def _of_sizes(*size: Any, **kwargs: Any) -> float:
    sizes = kwargs.get("size", size[0] if len(size) == 1 and not isinstance(size[0], int) else size)
    return math.prod(float(each) for each in sizes)


def _of_full(size: Any = (), *_: Any, **kwargs: Any) -> float:
    return _of_sizes(size, **kwargs)


def _of_square(n: int, m: int | None = None, **_: Any) -> float:
    return float(n) * float(n if m is None else m)


def _of_range(*bounds: Any, **_: Any) -> float:
    if not bounds or not all(isinstance(bound, (int, float)) for bound in bounds):
        return 0.0
    start, end = (0, bounds[0]) if len(bounds) == 1 else bounds[:2]
    return 2.0 * max(end - start, 0) / (bounds[2] if len(bounds) > 2 else 1)  # of 8 bytes each


_FACTORIES: dict[Any, Callable[..., float]] = {
    **dict.fromkeys((torch.empty, torch.zeros, torch.ones, *(getattr(torch, name) for name in ("rand", "randn"))), _of_sizes),
    torch.full: _of_full,
    torch.eye: _of_square,
    torch.arange: _of_range,
}
