"""Where a run computes, and in which portions: chosen by rule from shapes, never by timing, so that a rerun chooses the same."""

from __future__ import annotations

import ctypes
import os
import sys
from collections.abc import Mapping
from dataclasses import dataclass
from typing import Any

import torch
from torch import Tensor, nn
from torch.utils.flop_counter import FlopCounterMode

from metarun.errors import UserError
from metarun.operations import VECTOR
from metarun.types import Episode

CHUNK_FLOPS = 4e9
"""Forward operations of the tasks that a processor maps at once: fewer are lost in the calling of kernels, more only take memory."""
ALONE_FLOPS = 5e8
"""Forward operations of one task whose kernels are so large that a processor gains nothing by mapping two of them at once; but where tasks
share the backbone and nothing is differentiated, several are one larger kernel."""
SEQUENTIAL_TASKS = 64
"""Tasks of a sequential algorithm that a processor maps at once: its operations are so small that their calls are what counts."""
TEAM_FLOPS = 2e8
"""Forward operations of a whole step below which a second thread costs more than it does."""
COMPILE_FLOPS, COMPILE_STEPS = 1e8, 20_000
"""A compiled step pays off where kernels are small (forward operations of a step) and the run is long (outer steps)."""
OWN_KERNELS_FLOPS, OWN_KERNELS_SCORED_FLOPS = 1e13, 5e11
"""Forward operations of a whole run, and of a whole evaluation, below which own kernels do not gain the seconds that it takes to compile
them. They are compiled once, and evaluations are done again and again."""
MEMORY_SHARE = 0.5
"""Of the device's memory, for the activations of the tasks that are mapped at once."""


PRECISIONS = ("float32", "tf32", "bf16")
KERNELS = ("own", "torch")

_STOCK_THREADS = torch.get_num_threads()
"""As torch found it, before any run of this process chose for itself."""


@dataclass(frozen=True)
class Work:
    """What one task asks of a device.

    flops: operations of one forward pass over all its examples. values: numbers kept on the way. sequential: whether its examples are read
    one after the other, in many small operations. shared: whether those of all tasks pass through the same weights. images: whether they
    pass through a convolution of images, for which `metarun.kernels` has kernels.
    """

    flops: float
    values: float
    sequential: bool = False
    shared: bool = False
    images: bool = False


@dataclass(frozen=True)
class Plan:
    """How a batch of tasks is run.

    chunk: tasks mapped at once. workers: chunks side by side. threads: of each worker's kernels. compile: whether to fuse the kernels.
    autocast: the type of device on which matrix products and convolutions compute in bfloat16; None for none. kernels: "own" where
    those of `metarun.kernels` stand in for torch's in what they do faster, else "torch".
    """

    chunk: int = 8
    workers: int = 1
    threads: int = 1
    compile: bool = False
    autocast: str | None = None
    kernels: str = "torch"


@dataclass(frozen=True)
class Device:
    """Where to compute.

    name: for torch. threads: of the processor, in all. chunk, compile, kernels: as the config says, None where it leaves them to the rule.
    precision: one of `PRECISIONS`.
    """

    name: str
    threads: int
    chunk: int | None = None
    compile: bool | None = None
    precision: str = "float32"
    kernels: str | None = None

    def plan(self, work: Work, tasks: int, *, steps: int = 0, most: int | None = None) -> Plan:
        """Return how to run batches of so many tasks. steps: how often, in training; 0 for an evaluation. most: no larger chunk than this."""
        chunk = self.chunk or self._even(tasks, max(1, min(tasks, self._fitting(work, tasks, steps > 0), most or tasks)))
        chunk = min(chunk, most or chunk)
        small = work.flops * tasks < COMPILE_FLOPS and steps >= COMPILE_STEPS and self.kernels != "own"
        compile = small if self.compile is None else self.compile
        autocast = self.name.split(":")[0] if self.precision == "bf16" else None
        if self.name != "cpu":
            return Plan(chunk, compile=compile, autocast=autocast)
        team = self.threads if work.flops * tasks >= TEAM_FLOPS else 1
        kernels = "torch" if compile else self._kernels(work, tasks, steps)
        if kernels == "own" and self.chunk is None and (tasks % team == 0 or self.kernels == "own"):
            chunk = min(chunk, -(-tasks // team))  # they compute on one thread each, so that there must be a chunk for each thread
        workers = min(team, -(-tasks // chunk))
        if team // workers > 1 and self.kernels != "own":
            kernels = "torch"
        return Plan(chunk, workers, 1 if kernels == "own" else team // workers, compile, autocast, kernels)

    def _kernels(self, work: Work, tasks: int, steps: int) -> str:
        """Return whose kernels are to compute, by what `plan` is told."""
        if not work.images or self.precision == "bf16":
            return "torch"
        least = OWN_KERNELS_FLOPS if steps else OWN_KERNELS_SCORED_FLOPS
        return self.kernels or ("own" if work.flops * tasks * max(steps, 1) >= least else "torch")

    def _even(self, tasks: int, fitting: int) -> int:
        """Return the size of equal chunks of at most `fitting` tasks: one chunk, or as many for each thread as for the next."""
        chunks = -(-tasks // fitting)
        if chunks > 1 and self.name == "cpu":
            chunks = -(-chunks // self.threads) * self.threads
        return -(-tasks // chunks)

    def _fitting(self, work: Work, tasks: int, training: bool) -> int:
        """Return how many of so many tasks fit into the memory, and on a processor are worth mapping at once."""
        fitting = int(MEMORY_SHARE * self._memory() / max(4 * work.values, 1))
        if self.name != "cpu":
            return fitting
        if work.sequential:
            return min(fitting, SEQUENTIAL_TASKS, -(-tasks // self.threads))
        alone = work.flops >= ALONE_FLOPS and (training or not work.shared)
        return 1 if alone else min(fitting, int(CHUNK_FLOPS / max(work.flops, 1)))

    def _memory(self) -> float:
        if self.name != "cpu":
            return float(torch.cuda.get_device_properties(self.name).total_memory)
        if "SC_PHYS_PAGES" not in getattr(os, "sysconf_names", {}):
            return 4e9
        return float(os.sysconf("SC_PHYS_PAGES") * os.sysconf("SC_PAGE_SIZE")) / self.threads


def choose_device(config: Mapping[str, Any]) -> Device:
    """Return the device that the config names, and prepare the process for it."""
    name = config.get("name", "auto")
    if name == "auto":
        name = "cuda" if torch.cuda.is_available() else "cpu"
    if not isinstance(name, str) or name.split(":")[0] not in ("cpu", "cuda"):
        raise UserError(f"device.name={name} is unknown; it must be auto, cpu or cuda.")
    if name.startswith("cuda") and not torch.cuda.is_available():
        raise UserError("device=cuda, but torch finds no CUDA device here; use device=cpu.")
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
    threads = _whole("device.threads", _auto(config, "threads"))
    return Device(name, threads or _STOCK_THREADS, _whole("device.task_chunk", _auto(config, "task_chunk")), compile, precision, kernels)


def work_of(module: nn.Module | None, episode: Episode, inner_steps: int, *, sequential: bool = False, shared: bool = False) -> Work:
    """Return what one task asks for, from one pass of the support set through the module. sequential, shared: as `Work` has them."""
    support, query = len(episode.support.x), len(episode.query.x)
    if module is None:
        values = float(episode.support.x.numel() + episode.query.x.numel())
        return Work(2 * values, 2 * values, sequential, shared)
    kept, images = 0, False

    def count(layer: nn.Module, args: Any, out: Any) -> None:
        nonlocal kept, images
        images |= isinstance(layer, nn.Conv2d) and layer.out_channels % VECTOR == 0
        kept += out.numel() if isinstance(out, Tensor) else 0

    hooks = [layer.register_forward_hook(count) for layer in module.modules() if not list(layer.children())]
    try:
        with torch.no_grad(), FlopCounterMode(display=False) as counter:
            module(episode.support.x)
    finally:
        for hook in hooks:
            hook.remove()
    # An inner step keeps about three forward passes for its second derivative, the query pass one for its first.
    passes = support * (1 + 3 * inner_steps) + 2 * query
    return Work(counter.get_total_flops() / support * (support + query), kept / support * passes, sequential, shared, images)


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
        mallopt(-8, 1)  # M_ARENA_MAX: one heap for all threads, since others are cut into pieces of 64 MiB
        mallopt(-2, 1 << 27)  # M_TOP_PAD: larger than such a piece, so that none is given back where threads had other heaps before


def _auto(config: Mapping[str, Any], key: str) -> Any:
    value = config.get(key, "auto")
    return None if value == "auto" else value


def _whole(key: str, value: Any) -> int | None:
    if value is not None and (not isinstance(value, int) or isinstance(value, bool) or value < 1):
        raise UserError(f"{key}={value} must be auto or a whole number of at least 1.")
    return value
