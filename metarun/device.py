"""Where a run computes, and in which portions: chosen by rule from shapes, never by timing."""

from __future__ import annotations

import ctypes
import sys
from collections.abc import Mapping
from dataclasses import dataclass
from typing import Any

import torch
from torch import Tensor

from metarun.errors import UserError
from metarun.types import Episode

CHUNK_VALUES = 2_000_000
"""Input values times an allowance for activations that one chunk may hold on a processor: beyond that its caches are left."""


@dataclass(frozen=True)
class Device:
    """name: for torch. chunk: tasks that are mapped at once. threads: of the processor."""

    name: str
    chunk: int
    threads: int


def choose_device(config: Mapping[str, Any], episode: Episode, tasks_per_step: int) -> Device:
    """Return the device that the config names, with what it leaves to `auto` chosen; sets the number of threads."""
    name = config.get("name", "auto")
    if name == "auto":
        name = "cuda" if torch.cuda.is_available() else "cpu"
    if not isinstance(name, str) or name.split(":")[0] not in ("cpu", "cuda"):
        raise UserError(f"device.name={name} is unknown; it must be auto, cpu or cuda.")
    if name.startswith("cuda") and not torch.cuda.is_available():
        raise UserError("device=cuda, but torch finds no CUDA device here; use device=cpu.")
    keep_freed_memory()
    threads = config.get("threads", "auto")
    if threads != "auto":
        torch.set_num_threads(_whole("device.threads", threads))
    chunk = config.get("task_chunk", "auto")
    chunk = _auto_chunk(name, episode, tasks_per_step) if chunk == "auto" else _whole("device.task_chunk", chunk)
    return Device(name, chunk, torch.get_num_threads())


def place(tensors: Mapping[str, Tensor], device: str) -> dict[str, Tensor]:
    """Return parameters or state on the device, convolution weights with their channels last, which the processor's kernels prefer."""
    moved = {name: value.to(device) for name, value in tensors.items()}
    return {name: value.contiguous(memory_format=torch.channels_last) if value.dim() == 4 else value for name, value in moved.items()}


def keep_freed_memory() -> None:
    """Tell glibc to keep large freed blocks: every step frees and asks for the same ones, and page faults cost more than the work.

    Does nothing where the C library is another one.
    """
    if not sys.platform.startswith("linux"):
        return
    mallopt = getattr(ctypes.CDLL(None), "mallopt", None)
    if mallopt is not None:
        mallopt(-3, 1 << 30)  # M_MMAP_THRESHOLD: below a GiB, from the heap
        mallopt(-1, (1 << 31) - 1)  # M_TRIM_THRESHOLD: never give the heap back


def _auto_chunk(name: str, episode: Episode, tasks_per_step: int) -> int:
    if name != "cpu":
        return tasks_per_step
    values = (episode.support.x.numel() + episode.query.x.numel()) * 8
    return max(1, min(tasks_per_step, CHUNK_VALUES // max(values, 1)))


def _whole(key: str, value: Any) -> int:
    if not isinstance(value, int) or isinstance(value, bool) or value < 1:
        raise UserError(f"{key}={value} must be auto or a whole number of at least 1.")
    return value
