"""A stream of sine functions, one after the other, with each point once: the regression stream of OML's paper.

Khurram Javed, Martha White. "Meta-Learning Representations for Continual Learning", NeurIPS 2019, "incremental sine waves".
https://arxiv.org/abs/1905.12588

    y = A sin(x + φ),    A = 5 (u + 0.02) with u ~ U[0, 1],    φ ~ U[0, π],    x ~ U[-5, 5]

An input is the number of the function, one-hot, followed by x. All sizes and ranges are those of the released code
(https://github.com/khurramjaved96/mrcl, `oml_regression.py`, `datasets/task_sampler.py`): ten functions, 40 steps on 32 new points each,
and 400 training functions.

Differences from the released code: validation and test trajectories have functions of their own. The query set has `held_out` new points of
each function of the trajectory.
"""

from __future__ import annotations

import math
from collections.abc import Sequence
from dataclasses import dataclass, field
from typing import Annotated

import torch
from torch import Tensor

from metarun import draws
from metarun.compute.memory import check_fits
from metarun.episodes import first_of
from metarun.errors import UserError
from metarun.tasks.points import DRAWN
from metarun.tasks.pool import check_split
from metarun.types import Episode, Examples
from metarun.types.streams import Trajectory
from metarun.values import Count, Episodes, Length, Seed

AMPLITUDE, PHASE, INPUTS = (0.1, 5.1), (0.0, math.pi), (-5.0, 5.0)


@dataclass(frozen=True)
class SineStreams:
    """Trajectories of sine functions: x (B, functions + 1), y (B, 1).

    functions: of a trajectory. steps: on each function, each with `batch` new points. held_out: further points of each function, for the
    scores. train_functions: the number of functions from which training trajectories draw theirs. lengths, trajectories: see
    `WithTrajectories`.
    """

    functions: Count = 10
    steps: Count = 40
    step_points: Count = 32
    held_out: Count = 100
    train_functions: Count = 400
    lengths: Annotated[Sequence[Count], Length(1)] = (1, 2, 5, 10)
    trajectories: Episodes = 50
    seed: Seed = 0
    eval_seed: Seed = 0
    objective: str = field(default="regression", init=False)

    def __post_init__(self) -> None:
        if self.train_functions < self.functions:
            raise UserError(
                f"a trajectory of task.functions={self.functions} needs as many training functions; "
                f"raise task.train_functions={self.train_functions} to {self.functions}."
            )
        points = self.functions * (self.steps * self.step_points + self.held_out)
        what = f"a trajectory of {self.functions} functions, {points:,} points,"
        check_fits((DRAWN + 4.0 * self.functions) * points, what, "lower task.functions, task.steps or task.step_points")

    def episode(self, split: str, index: int) -> Episode:
        """Deal trajectory `index`: support (F * steps * step_points, F + 1) function after function, query (F * held_out, F + 1)."""
        return first_of(self.batch(split, torch.tensor([index])))

    def batch(self, split: str, indices: Tensor) -> Episode:
        """Deal the trajectories `indices` (T,) at once, with a leading axis T."""
        check_split(split)
        key = draws.key(self.seed if split == "train" else self.eval_seed, split, indices)
        functions = self._functions(split, key)
        shape = self._shape()

        def examples(name: str, count: int) -> Examples:
            x = draws.uniform(draws.fold(key, name), shape.parts, count, low=INPUTS[0], high=INPUTS[1])
            y = functions[0][..., None] * torch.sin(x + functions[1][..., None])
            number = torch.eye(shape.parts)[:, None].expand(len(x), -1, count, -1)
            return Examples(torch.cat([number, x[..., None]], dim=-1).flatten(1, 2), y.flatten(1)[..., None])

        return Episode(examples("support", shape.per_part), examples("query", shape.held_out))

    def trajectory(self, split: str) -> Trajectory:
        """Return the sizes of the trajectories, which are the same in all splits."""
        check_split(split)
        return self._shape()

    def _shape(self) -> Trajectory:
        return Trajectory(self.functions, self.steps * self.step_points, self.held_out, self.step_points)

    def _functions(self, split: str, key: Tensor) -> tuple[Tensor, Tensor]:
        """Return amplitudes and phases (T, F) of the functions of trajectories with these keys (T,)."""
        slots = draws.fold(key, "function")[:, None] + torch.arange(self.functions)
        if split == "train":
            numbers = draws.distinct(draws.fold(key, "functions"), self.functions, torch.full_like(key, self.train_functions))
            slots = draws.key(self.seed, "training functions", numbers)
        amplitude = draws.uniform(draws.fold(slots, "amplitude"), low=AMPLITUDE[0], high=AMPLITUDE[1])
        return amplitude, draws.uniform(draws.fold(slots, "phase"), low=PHASE[0], high=PHASE[1])
