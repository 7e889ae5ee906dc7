"""The device that a config names, tensors on it, and the memory settings of the process."""

from __future__ import annotations

import ctypes
import sys
from collections.abc import Mapping
from dataclasses import dataclass
from typing import Annotated, Any, Literal

import torch
from torch import Tensor

from metarun.compute.plan import KERNELS, PRECISIONS, Device
from metarun.errors import UserError
from metarun.processes.ranks import Ranks, here
from metarun.values import Count, Form, Range

_STOCK_THREADS = torch.get_num_threads()
"""torch's own choice, before any run of this process changes it."""


Auto = Literal["auto"]


@dataclass(frozen=True)
class DeviceKeys:
    """The keys of the group `device`. name: may name one of several CUDA devices, such as cuda:1."""

    name: Annotated[str, Form(r"auto|cpu|cuda(:\d{1,3})?", "auto, cpu or cuda")]
    task_chunk: Auto | Count
    threads: Auto | Annotated[int, Range(least=1, most=1024)]
    compile: Auto | bool
    precision: Literal["float32", "tf32", "bf16"]
    kernels: Literal["auto", "c", "torch"]


def choose_device(config: Mapping[str, Any]) -> Device:
    """Return the device that the config names, and prepare the process for it. Raises UserError where a value is not allowed."""
    ranks = here()
    name = config.get("name", "auto")
    if name == "auto":
        name = "cuda" if torch.cuda.is_available() else "cpu"
    if ranks.size > 1:
        name = _of_process(name, ranks)
    if not isinstance(name, str) or name.split(":")[0] not in ("cpu", "cuda"):
        raise UserError(f"device.name={name} is unknown; it must be auto, cpu or cuda.")
    if name.startswith("cuda") and not torch.cuda.is_available():
        raise UserError("device=cuda, but torch finds no CUDA device here; use device=cpu.")
    number = name.removeprefix("cuda:")
    if number.isdecimal() and int(number) >= (count := torch.cuda.device_count()):
        raise UserError(f"device.name={name}, but torch finds {count} CUDA devices here; the last one is cuda:{count - 1}.")
    compile = _auto(config, "compile")
    if compile is not None and not isinstance(compile, bool):
        raise UserError(f"device.compile={compile} must be auto, true or false.")
    kernels = _auto(config, "kernels")
    if kernels is not None and kernels not in KERNELS:
        raise UserError(f"device.kernels={kernels} must be auto, {' or '.join(KERNELS)}.")
    precision = config.get("precision", "float32")
    if precision not in PRECISIONS:
        raise UserError(f"device.precision={precision} is unknown; it must be {', '.join(PRECISIONS[:-1])} or {PRECISIONS[-1]}.")
    torch.backends.cuda.matmul.allow_tf32 = torch.backends.cudnn.allow_tf32 = precision == "tf32"
    keep_freed_memory()
    threads = (_whole("device.threads", _auto(config, "threads")) or ranks.cores or _STOCK_THREADS) * ranks.machines
    chunk = _whole("device.task_chunk", _auto(config, "task_chunk"))
    return Device(name, threads, chunk, compile, precision, kernels, processes=ranks.size, machines=ranks.machines)


def _of_process(name: Any, ranks: Ranks) -> Any:
    """Return the name of the device of this process: of several processes on a machine, each has a GPU of its own."""
    if not isinstance(name, str) or not name.startswith("cuda"):
        return name
    if name != "cuda":
        raise UserError(f"device.name={name} names one GPU, and {ranks.size} processes need one each; use device=cuda.")
    if torch.cuda.is_available() and ranks.local_rank >= (count := torch.cuda.device_count()):
        process = f"process {ranks.local_rank + 1} of this machine"
        raise UserError(f"{process} has no GPU, since torch finds {count} here; start no more processes than a machine has GPUs.")
    return f"cuda:{ranks.local_rank}"


def place(tensors: Mapping[str, Tensor], device: str) -> dict[str, Tensor]:
    """Return parameters or state on the device. Convolution weights get channels-last strides, which suit the CPU's kernels."""
    moved = {name: value.to(device) for name, value in tensors.items()}
    return {name: value.contiguous(memory_format=torch.channels_last) if value.dim() == 4 else value for name, value in moved.items()}


def keep_freed_memory() -> None:
    """Tell glibc to keep large freed blocks. Every step frees and allocates the same blocks, and page faults would cost more than the work.

    Does nothing on another C library.
    """
    if not sys.platform.startswith("linux"):
        return
    mallopt = getattr(ctypes.CDLL(None), "mallopt", None)
    if mallopt is not None:
        mallopt(-3, 1 << 30)  # M_MMAP_THRESHOLD: blocks below a GiB come from the heap
        mallopt(-1, (1 << 31) - 1)  # M_TRIM_THRESHOLD: the heap never returns to the system
        mallopt(-8, 1)  # M_ARENA_MAX: one heap for all threads, since further heaps have pieces of 64 MiB
        mallopt(-2, 1 << 27)  # M_TOP_PAD: larger than such a piece, so that no piece of an earlier heap returns to the system


def _auto(config: Mapping[str, Any], key: str) -> Any:
    value = config.get(key, "auto")
    return None if value == "auto" else value


def _whole(key: str, value: Any) -> int | None:
    if value is not None and (not isinstance(value, int) or isinstance(value, bool) or value < 1):
        raise UserError(f"{key}={value} must be auto or a whole number of at least 1.")
    return value
