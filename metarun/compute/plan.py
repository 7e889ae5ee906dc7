"""In which portions a device runs tasks: chosen by rule from shapes, never by timing, so that a rerun chooses the same."""

from __future__ import annotations

import dataclasses
import logging
import os
from dataclasses import dataclass
from typing import Any

import torch
from torch import Tensor, nn
from torch.utils.flop_counter import FlopCounterMode

from metarun.errors import UserError
from metarun.types import Episode

log = logging.getLogger(__name__)


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


C_KERNELS_FLOPS, C_KERNELS_SCORED_FLOPS = 1e13, 5e11
"""Forward operations of a whole run, and of a whole evaluation, below which C kernels do not gain the seconds that it takes to compile
them. They are compiled once, and evaluations are done again and again."""


MEMORY_SHARE = 0.5
"""Of the device's memory, for the activations of the tasks that are mapped at once."""


PRECISIONS = ("float32", "tf32", "bf16")


KERNELS = ("c", "torch")


KERNEL_CHANNELS = 16
"""The C kernels compute convolutions whose channels are a multiple of this."""


@dataclass(frozen=True)
class Work:
    """What one task asks of a device.

    flops: operations of one forward pass over all its examples. values: numbers kept on the way. sequential: whether its examples are read
    one after the other, in many small operations. shared: whether those of all tasks pass through the same weights. images: whether they
    pass through a convolution of images, for which `metarun.compute.kernels` has kernels.
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
    autocast: the type of device on which matrix products and convolutions compute in bfloat16; None for none. kernels: "c" where
    those of `metarun.compute.kernels.rewrite` stand in for torch's in what they do faster, else "torch".
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
        small = work.flops * tasks < COMPILE_FLOPS and steps >= COMPILE_STEPS and self.kernels != "c"
        compile = small if self.compile is None else self.compile
        autocast = self.name.split(":")[0] if self.precision == "bf16" else None
        if self.name != "cpu":
            return Plan(chunk, compile=compile, autocast=autocast)
        team = self.threads if work.flops * tasks >= TEAM_FLOPS else 1
        kernels = "torch" if compile else self._kernels(work, tasks, steps)
        if kernels == "c" and self.chunk is None and (tasks % team == 0 or self.kernels == "c"):
            chunk = min(chunk, -(-tasks // team))  # they compute on one thread each, so that there must be a chunk for each thread
        workers = min(team, -(-tasks // chunk))
        if team // workers > 1 and self.kernels != "c":
            kernels = "torch"
        return Plan(chunk, workers, 1 if kernels == "c" else team // workers, compile, autocast, kernels)

    def _kernels(self, work: Work, tasks: int, steps: int) -> str:
        """Return whose kernels are to compute, by what `plan` is told."""
        if not work.images or self.precision == "bf16":
            return "torch"
        least = C_KERNELS_FLOPS if steps else C_KERNELS_SCORED_FLOPS
        return self.kernels or ("c" if work.flops * tasks * max(steps, 1) >= least else "torch")

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


def work_of(module: nn.Module | None, episode: Episode, inner_steps: int, *, sequential: bool = False, shared: bool = False) -> Work:
    """Return what one task asks for, from one pass of the support set through the module. sequential, shared: as `Work` has them."""
    support, query = len(episode.support.x), len(episode.query.x)
    if module is None:
        values = float(episode.support.x.numel() + episode.query.x.numel())
        return Work(2 * values, 2 * values, sequential, shared)
    kept, images = 0, False

    def count(layer: nn.Module, args: Any, out: Any) -> None:
        nonlocal kept, images
        images |= isinstance(layer, nn.Conv2d) and layer.out_channels % KERNEL_CHANNELS == 0
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


def kernels_missing() -> str | None:
    """Return why the C kernels cannot be used here, or None where they can. The first call compiles and tests them."""
    try:
        from metarun.compute.kernels import missing
    except ImportError:
        return "this installation has none"
    return missing()


def plan_for(device: Device, work: Work, tasks: int, steps: int) -> Plan:
    """Return how to run, by torch's kernels where own ones are wanted and there are none; UserError where the config asks for them."""
    plan = device.plan(work, tasks, steps=steps)
    if plan.kernels == "torch":
        if device.kernels == "c":
            log.warning("device.kernels=c: not used; they are for networks with convolutions, in float32 on a processor, not compiled.")
        return plan
    reason = kernels_missing()
    if reason is None:
        return plan
    if device.kernels == "c":
        raise UserError(
            f"device.kernels=c, as typed or as the run has it, but there are no C kernels here: {reason}; use device.kernels=torch."
        )
    log.info("C kernels, which are faster, are not used: %s", reason)
    return dataclasses.replace(device, kernels="torch").plan(work, tasks, steps=steps)
