"""The plain loops on a device: one task after the other, in stock torch. Each class takes an outer step with `step`.

MAML and ProtoNet come from `benchmarks.loops`. Reptile is here: plain Adam on a copy of the network, task by task.
"""

from __future__ import annotations

import copy
import itertools
from collections.abc import Sequence
from contextlib import AbstractContextManager, nullcontext
from typing import Any, NamedTuple

import torch
from benchmarks.loops import LOOPS, accumulate, criterion
from benchmarks.outcome import PLAIN
from benchmarks.problem import Problem, Task
from torch import Tensor, nn

from metarun import draws
from metarun.algorithms.parts.orders import mini_batches
from metarun.types import Examples

EPS = 1e-8
"""Of the inner Adam, as in `metarun.functional.adam`."""
BATCHES = 4
"""Batches of tasks that a loop cycles through."""


class Batch(NamedTuple):
    """The tasks of a step on the device, and for Reptile the rows of each mini-batch of each task."""

    tasks: Sequence[Task]
    rows: Sequence[Sequence[Tensor]]


def batches(problem: Problem, device: str, dtype: torch.dtype = torch.float32, count: int = BATCHES) -> list[Batch]:
    """Deal the first batches of training tasks. Keys and mini-batches are those of metarun."""
    algo, size = problem.config["algo"], problem.config["tasks_per_step"]

    def move(tensor: Tensor) -> Tensor:
        return tensor.to(device, dtype if tensor.is_floating_point() else None)

    dealt = []
    for first in range(0, count * size, size):
        tasks = [Task(*map(move, task)) for task in problem.tasks("train", first, size)]
        keys = draws.key(problem.config["seed"], "train", torch.arange(first, first + size)).to(device)
        rows: list[list[Tensor]] = []
        if "inner_batch" in algo:
            sets = (Examples(task.support_x, task.support_y) for task in tasks)
            rows = [mini_batches(each, key, algo["inner_steps"], algo["inner_batch"]) for each, key in zip(sets, keys, strict=True)]
        dealt.append(Batch(tasks, rows))
    return dealt


def precise(device: str, precision: str) -> AbstractContextManager[Any]:
    """Return the context of a precision; TF32 is a setting of the process, which metarun's engine makes."""
    return torch.autocast(device, torch.bfloat16) if precision == "bf16" else nullcontext()


class GradientLoop:
    """MAML or ProtoNet: the gradients of one task after the other, then Adam."""

    def __init__(self, problem: Problem, network: nn.Module, batches: Sequence[Batch], precision: str, device: str) -> None:
        self.loop = LOOPS[problem.config["algo"]["_target_"].rsplit(".", 1)[-1]][PLAIN](problem.config, network)
        self.optimizer = torch.optim.Adam(network.parameters(), lr=problem.config["optimizer"]["lr"])
        self.batches, self.precision, self.device = itertools.cycle(batches), precision, device

    def step(self) -> None:
        """Take one outer step."""
        self.optimizer.zero_grad()
        with precise(self.device, self.precision):
            accumulate(self.loop, next(self.batches).tasks)
        self.optimizer.step()


class ReptileLoop:
    """Reptile: some steps of Adam on a copy of the network for each task, then a step towards the mean of the copies."""

    def __init__(self, problem: Problem, network: nn.Module, batches: Sequence[Batch], precision: str, device: str) -> None:
        self.algo, self.lr = problem.config["algo"], problem.config["optimizer"]["lr"]
        self.network, self.fast = network, copy.deepcopy(network)
        self.batches, self.precision, self.device = itertools.cycle(batches), precision, device

    def step(self) -> None:
        """Take one outer step."""
        apart = self.displacement(next(self.batches))
        with torch.no_grad():
            for parameter, difference in zip(self.network.parameters(), apart, strict=True):
                parameter.sub_(self.lr * difference)

    def displacement(self, batch: Batch) -> list[Tensor]:
        """Return the mean over tasks of φ - φ̃ for each parameter."""
        start = [parameter.detach() for parameter in self.network.parameters()]
        total = [torch.zeros_like(value) for value in start]
        for task, rows in zip(batch.tasks, batch.rows, strict=True):
            with torch.no_grad():
                for parameter, value in zip(self.fast.parameters(), start, strict=True):
                    parameter.copy_(value)
            optimizer = torch.optim.Adam(self.fast.parameters(), lr=self.algo["inner_lr"], betas=(0.0, self.algo["beta2"]))
            for number, chosen in enumerate(rows, 1):
                # torch's Adam adds eps to the corrected root, metarun's to the uncorrected one; so both take equal steps.
                optimizer.param_groups[0]["eps"] = EPS / (1.0 - self.algo["beta2"] ** number) ** 0.5
                optimizer.zero_grad()
                with precise(self.device, self.precision):
                    loss = criterion(self.fast(task.support_x[chosen]), task.support_y[chosen])
                loss.backward()
                optimizer.step()
            for sum_, value, parameter in zip(total, start, self.fast.parameters(), strict=True):
                sum_ += value - parameter.detach()
        return [value / len(batch.tasks) for value in total]


PLAIN_LOOPS: dict[str, type[GradientLoop] | type[ReptileLoop]] = {"maml": GradientLoop, "protonet": GradientLoop, "reptile": ReptileLoop}
"""The plain loop of each row."""
