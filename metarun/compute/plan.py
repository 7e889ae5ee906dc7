"""The plan of a run: how many tasks a device maps at once, on how many threads, with which kernels.

The plan never depends on timings, only on shapes and the device, so a second run has the same plan.
"""

from __future__ import annotations

import dataclasses
import logging
from collections.abc import Callable
from dataclasses import dataclass
from typing import Any

import torch
from torch import Tensor, nn
from torch.utils.flop_counter import FlopCounterMode

from metarun.compute.memory import physical_memory
from metarun.errors import UserError
from metarun.types import Episode

log = logging.getLogger(__name__)


CHUNK_FLOPS = 4e9
"""Forward operations of the tasks that a CPU maps at once. A smaller chunk loses time in kernel calls; a larger one only takes memory."""


ALONE_FLOPS = 5e8
"""Above this number of forward operations per task, a CPU gains nothing from mapping two tasks at once: the kernels are large enough.
The limit does not hold where tasks share the backbone and nothing is differentiated. There several tasks make one larger kernel."""


SEQUENTIAL_TASKS = 64
"""Tasks of a sequential algorithm that a CPU maps at once. The operations are so small that their number determines the time."""


TEAM_FLOPS = 2e8
"""With fewer forward operations in a whole step than this, a second thread costs more than it gains."""


COMPILE_FLOPS, COMPILE_STEPS = 1e8, 20_000
"""A compiled step pays off below this number of forward operations per step, and from this number of outer steps."""


C_KERNELS_FLOPS, C_KERNELS_SCORED_FLOPS = 1e13, 5e11
"""With fewer forward operations in a whole run, or in a whole evaluation, C kernels save less time than their compilation takes. The limit
of an evaluation is lower, since the kernels are compiled once and evaluations are repeated."""


OPERATIONS_PER_VALUE = 32
"""For the memory of an algorithm that makes its own network. Networks of 64 units and more have at least four times as many."""


MEMORY_SHARE = 0.5
"""The share of the device's memory for the activations of one chunk of tasks."""


PRECISIONS = ("float32", "tf32", "bf16")


KERNELS = ("c", "torch")


KERNEL_CHANNELS = 16
"""The C kernels compute convolutions whose channels are a multiple of this."""


@dataclass(frozen=True)
class Work:
    """The work of one task.

    flops: operations of one forward pass over all its examples. values: numbers that the backward pass needs. sequential: whether
    the algorithm reads the examples one after the other, in many small operations. shared: whether the examples of all tasks pass through
    the same weights. images: whether the examples pass through a convolution for which `metarun.compute.kernels` has kernels.
    """

    flops: float
    values: float
    sequential: bool = False
    shared: bool = False
    images: bool = False


@dataclass(frozen=True)
class Plan:
    """How to run a batch of tasks.

    chunk: tasks mapped at once. workers: chunks that run at once, in all processes of the command. threads: of torch's kernels in each
    worker. compile: whether torch's compiler fuses the operations. autocast: the device type on which matrix products and convolutions use
    bfloat16; None for no autocast.
    kernels: "c" where the C kernels of `metarun.compute.kernels` may replace torch's kernels, else "torch". loop: call a function once for
    each task and never map it, for a network that torch cannot map.
    """

    chunk: int = 8
    workers: int = 1
    threads: int = 1
    compile: bool = False
    autocast: str | None = None
    kernels: str = "torch"
    loop: bool = False


@dataclass(frozen=True)
class Device:
    """A device and the choices of the config.

    name: torch's name. threads: CPU threads in all, of all processes of a command. chunk, compile, kernels: as in the config; None leaves
    the choice to this module.
    precision: one of `PRECISIONS`. loop: as in `Plan`; a chunk then has one task. processes, machines: of the command. On a CPU, the chunk
    and the threads of an operation do not depend on the number of processes, so that results do not. On GPUs each process gets a chunk.
    """

    name: str
    threads: int
    chunk: int | None = None
    compile: bool | None = None
    precision: str = "float32"
    kernels: str | None = None
    loop: bool = False
    processes: int = 1
    machines: int = 1

    def plan(self, work: Work, tasks: int, *, steps: int = 0, largest: int | None = None) -> Plan:
        """Return the plan for batches of `tasks` tasks. steps: outer steps; 0 for an evaluation. largest: upper limit of the chunk."""
        chunk = self._chunk(work, tasks, largest, training=steps > 0)
        compile = self._compiles(work, tasks, steps)
        autocast = self.name.split(":")[0] if self.precision == "bf16" else None
        if self.name != "cpu":
            return Plan(chunk, compile=compile, autocast=autocast, loop=self.loop)
        team = self.threads if work.flops * tasks >= TEAM_FLOPS else 1
        kernels = "torch" if compile else self._kernels(work, tasks, steps)
        if kernels == "c":
            chunk = self._chunk_for_c(chunk, tasks, team)
        workers = min(team, _parts(tasks, chunk))
        if team // workers > 1 and self.kernels != "c":
            kernels = "torch"  # a C kernel runs on one thread, and the others would idle
        threads = 1 if kernels == "c" else min(team // workers, max(1, self.threads // self.machines))
        return Plan(chunk, workers, threads, compile, autocast, kernels, self.loop)

    def _chunk(self, work: Work, tasks: int, largest: int | None, *, training: bool) -> int:
        """Return the number of tasks mapped at once: the config's, or the size of equal chunks within `_fitting`; at most `largest`."""
        if self.loop:
            return 1
        limit = tasks if largest is None else largest
        if self.chunk is not None:
            return self.chunk if largest is None else min(self.chunk, largest)
        fitting = max(1, min(tasks, limit, self._fitting(work, tasks, training)))
        chunks = _parts(tasks, fitting)
        if chunks > 1 and self.name == "cpu":
            chunks = _parts(chunks, self.threads) * self.threads  # each thread gets the same number of chunks
        return min(_parts(tasks, chunks), limit)

    def _chunk_for_c(self, chunk: int, tasks: int, team: int) -> int:
        """Return a chunk size that gives each thread of the team one chunk, since a C kernel runs on one thread.

        A chunk size in the config stays. Where the threads do not divide the tasks evenly, the chunk size changes only if the config
        names the C kernels.
        """
        if self.chunk is not None or (tasks % team and self.kernels != "c"):
            return chunk
        return min(chunk, _parts(tasks, team))

    def _compiles(self, work: Work, tasks: int, steps: int) -> bool:
        """Say whether torch's compiler fuses a step: as the config says, else where kernels are small and the run is long."""
        if self.compile is not None:
            return self.compile
        return work.flops * tasks < COMPILE_FLOPS and steps >= COMPILE_STEPS and self.kernels != "c"

    def _kernels(self, work: Work, tasks: int, steps: int) -> str:
        """Return "c" or "torch": as the config says, else "c" where the work is worth compiling the C kernels.

        The C kernels compute convolutions of images in float32 only.
        """
        if not work.images or self.precision == "bf16":
            return "torch"
        if self.kernels is not None:
            return self.kernels
        worth = C_KERNELS_FLOPS if steps else C_KERNELS_SCORED_FLOPS
        return "c" if work.flops * tasks * max(steps, 1) >= worth else "torch"

    def _fitting(self, work: Work, tasks: int, training: bool) -> int:
        """Return how many of the tasks fit into memory and, on a CPU, are worth mapping at once."""
        fitting = int(MEMORY_SHARE * self._memory() / max(4 * work.values, 1))
        if self.name != "cpu":
            return min(fitting, _parts(tasks, self.processes))
        if work.sequential:
            return min(fitting, SEQUENTIAL_TASKS, _parts(tasks, self.threads))
        alone = work.flops >= ALONE_FLOPS and (training or not work.shared)
        return 1 if alone else min(fitting, int(CHUNK_FLOPS / max(work.flops, 1)))

    def _memory(self) -> float:
        """Return the device's memory in bytes; on a CPU, the share of one thread."""
        if self.name != "cpu":
            return float(torch.cuda.get_device_properties(self.name).total_memory)
        there = physical_memory()
        return 4e9 if there is None else there / self.threads


def _parts(whole: int, size: int) -> int:
    """Return how many parts of at most `size` make up the whole."""
    return -(-whole // size)


def work_of(module: nn.Module | None, episode: Episode, inner_steps: int, *, sequential: bool = False, shared: bool = False) -> Work:
    """Return the work of one task, from one pass of the support set through the module. sequential, shared: as in `Work`."""
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
    # An inner step keeps about three forward passes for its second derivative. The query pass keeps one for its first derivative.
    passes = support * (1 + 3 * inner_steps) + 2 * query
    return Work(counter.get_total_flops() / support * (support + query), kept / support * passes, sequential, shared, images)


def work_of_pass(run: Callable[[], object]) -> Work:
    """Return the work of one task of an algorithm that makes its own network. run: passes over the support and the query set of one task.

    All tasks share the weights. A value that the backward pass needs comes from a product of at least `OPERATIONS_PER_VALUE` operations.
    """
    with torch.no_grad(), FlopCounterMode(display=False) as counter:
        run()
    flops = float(counter.get_total_flops())
    return Work(flops, flops / OPERATIONS_PER_VALUE, shared=True)


def kernels_missing() -> str | None:
    """Return why the C kernels cannot be used here, or None where they can. The first call compiles and tests them."""
    try:
        from metarun.compute.kernels import missing
    except ImportError:
        return "this installation has none"
    return missing()


def plan_for(device: Device, work: Work, tasks: int, steps: int) -> Plan:
    """Return the device's plan, with torch's kernels where the C kernels are missing.

    Raises UserError where the config names the C kernels and they are missing.
    """
    plan = device.plan(work, tasks, steps=steps)
    if plan.kernels == "torch":
        if device.kernels == "c":
            log.warning("device.kernels=c: not used; the C kernels need a network with convolutions, float32, a CPU and compile=false.")
        return plan
    reason = kernels_missing()
    if reason is None:
        return plan
    if device.kernels == "c":
        raise UserError(
            f"device.kernels=c (typed or stored in the run), but the C kernels cannot be used here: {reason}; use device.kernels=torch."
        )
    log.info("the faster C kernels are not used: %s", reason)
    return dataclasses.replace(device, kernels="torch").plan(work, tasks, steps=steps)
