"""Numbered episodes from a family of random functions; every synthetic regression source uses this sampler."""

from __future__ import annotations

from dataclasses import dataclass
from typing import Protocol

import torch
from torch import Tensor

from metarun import draws
from metarun.episodes import first_of
from metarun.tasks.points import PointSampling, divide
from metarun.types import Episode

Function = dict[str, Tensor]
"""The parameters of one function of a family, by name; leading axis T for several functions."""


class Family(Protocol):
    """A distribution over functions, and a distribution over their inputs."""

    def draw(self, key: Tensor) -> Function:
        """Draw a function for each key (T,)."""

    def inputs(self, key: Tensor, count: int) -> Tensor:
        """Draw inputs (T, count, D) for keys (T,)."""

    def values(self, function: Function, x: Tensor) -> Tensor:
        """Return the functions' values (T, B, 1) at x (T, B, D)."""


@dataclass(frozen=True)
class FunctionTasks:
    """Regression episodes: each task is one function of the family, without noise, at random inputs.

    The three splits draw from the same family. Only the functions are new.
    support_range: the support points of a family of one input are uniform in this range (low, high); None for the family's inputs.
    """

    family: Family
    sampling: PointSampling
    objective: str = "regression"
    support_range: tuple[float, float] | None = None

    def episode(self, split: str, index: int) -> Episode:
        """Deal episode `index`: x (K, D) and y (K, 1) of the support, (Q, D) and (Q, 1) of the query."""
        return first_of(self.batch(split, torch.tensor([index])))

    def batch(self, split: str, indices: Tensor) -> Episode:
        """Deal the episodes `indices` (T,) at once, with a leading axis T."""
        key = self.sampling.key(split, indices)
        shots, queries = self.sampling.sizes(split)
        x = self.family.inputs(draws.fold(key, "inputs"), shots + queries)
        if self.support_range is not None:
            low, high = self.support_range
            x = torch.cat([draws.uniform(draws.fold(key, "support"), shots, 1, low=low, high=high), x[:, shots:]], dim=1)
        y = self.family.values(self.family.draw(draws.fold(key, "function")), x)
        return divide(x, y, shots, self.sampling.used(split, key))

    def curve(self, split: str, index: int, x: Tensor) -> Tensor:
        """Return the true function of episode `index`, (B, 1), at x (B, D)."""
        function = self.family.draw(draws.fold(self.sampling.key(split, torch.tensor([index])), "function"))
        return self.family.values(function, x[None])[0]
