"""The outer step of each family of algorithms: metarun's engine beside a loop over tasks of the same algorithm's `loss`.

Only the engine differs. The loops of `benchmarks.loops` are written without metarun; the loop here runs the file of an algorithm as it
reads: one task after another in eager torch, without `vmap` and without recorded programs. A family that has left the fast path shows
"eager" or a ratio below 1.
"""

from __future__ import annotations

import itertools
from collections.abc import Sequence
from contextlib import closing
from functools import partial
from typing import Any

import torch
from torch import Tensor
from torch.utils._pytree import tree_map, tree_map_only

from metarun import draws
from metarun.types import Algorithm, Aux, Episode, Params, State
from metarun.wiring.build import _build_algorithm, build_optimizer, build_source

from .agreement import Gradients, check_gradients, gradient_difference
from .ours import Run
from .outcome import PLAIN, PRISTINE, Options, Result
from .rows import Row
from .steps import BATCHES, first_call
from .timing import Contender, alternate
from .variants import composed

ROUNDS, SECONDS = 3, 0.3
"""The largest number of turns and the length of a turn in seconds, because there are many families."""

Tasks = Sequence[tuple[Episode, Tensor]]
"""Episodes without an axis T, each with its key."""


def family(row: Row, options: Options) -> list[Result]:
    """Time an outer step with its optimizer. The loop gets dealt episodes; metarun's time includes the dealing."""
    config, threads = composed(row.overrides), torch.get_num_threads()
    tasks, rounds, seconds = config["tasks_per_step"], min(options.rounds, ROUNDS), min(options.seconds, SECONDS)
    loop = TaskLoop(config)
    precisions = ((torch.float64, min(2, tasks)), (torch.float32, tasks))
    reference = {dtype: loop.gradients(dtype, count) for dtype, count in precisions}
    rounding = gradient_difference(loop.gradients(torch.float32, precisions[0][1]), reference[torch.float64])
    alternate([pristine := Contender(PRISTINE, loop.step, threads)], rounds, seconds)
    with closing(Run(row.overrides)) as run:
        recording = first_call(partial(run.gradients, torch.float32, tasks))
        # Reptile's inner Adam divides a gradient by its size. Where the gradient is rounding error, so are the step and the loss.
        check = partial(check_gradients, "metarun", rounding=rounding)
        apart = {dtype: check(run.gradients(dtype, count), reference[dtype]) for dtype, count in precisions}
        ours = Contender("metarun", run.step, threads, run.settle)
        alternate([plain := Contender(PLAIN, loop.step, threads), ours], rounds, seconds)
        facts = {"runs": run.mode, "recording": recording, "difference": apart[torch.float32]}
    return [pristine.result({}), plain.result({}), ours.result(facts)]


class TaskLoop:
    """A training run whose step is a Python loop over its tasks. The constructor changes no setting of the process."""

    def __init__(self, config: dict[str, Any]) -> None:
        self.source, self.seed, tasks = build_source(config), config["seed"], config["tasks_per_step"]
        self.algorithm = _build_algorithm(config, self.source, {split: self.source.episode(split, 0) for split in ("train", "val")})
        self.params, self.state = self.algorithm.init(draws.key(self.seed, "init"))
        self.optimizer, self.taken = build_optimizer(config, self.params, config["steps"]), 0
        self.batches = itertools.cycle([self.tasks(first, tasks) for first in range(0, BATCHES * tasks, tasks)])

    def tasks(self, first: int, count: int) -> Tasks:
        """Deal training episodes number `first` and following."""
        indices = range(first, first + count)
        return [(self.source.episode("train", index), draws.key(self.seed, "train", torch.tensor(index))) for index in indices]

    def step(self) -> None:
        """Take one outer step."""
        step = torch.tensor(self.taken)
        _, gradients, auxes = differentiate(self.algorithm, self.params, self.state, next(self.batches), step)
        self.optimizer.update(gradients, self.taken)
        self.state = self.algorithm.update_state(self.state, tree_map(lambda *leaves: torch.stack(leaves), *auxes).state)
        self.taken += 1

    def gradients(self, dtype: torch.dtype, count: int) -> Gradients:
        """Return mean loss and gradient of the first training tasks in this precision."""
        values = (self.params, self.state, self.tasks(0, count))
        params, state, tasks = tree_map_only(Tensor, lambda leaf: leaf.to(dtype) if leaf.is_floating_point() else leaf, values)
        loss, gradients, _ = differentiate(self.algorithm, params, state, tasks, torch.tensor(self.taken))
        return loss, gradients


def differentiate(algorithm: Algorithm, params: Params, state: State, tasks: Tasks, step: Tensor) -> tuple[Tensor, Params, list[Aux]]:
    """Return the mean loss over the tasks, its gradient, and the aux of each task."""
    leaves = {name: value.detach().requires_grad_() for name, value in params.items()}
    total, losses, auxes = [torch.zeros_like(value) for value in params.values()], [], []
    for episode, key in tasks:
        loss, aux = algorithm.loss(leaves, state, episode, key, step)
        gradients = torch.autograd.grad(loss, list(leaves.values()), materialize_grads=True)
        total = [sum_ + gradient for sum_, gradient in zip(total, gradients, strict=True)]
        losses.append(loss.detach())
        auxes.append(tree_map(Tensor.detach, aux))
    return torch.stack(losses).mean(), {name: sum_ / len(tasks) for name, sum_ in zip(params, total, strict=True)}, auxes
