"""From a family of random functions to numbered episodes: the one sampler of every synthetic regression source."""

from __future__ import annotations

from dataclasses import dataclass
from typing import Protocol

import torch
from torch import Tensor

from metarun import draws
from metarun.errors import UserError, nearest
from metarun.tasks.sampling import SPLITS
from metarun.types import Episode, Examples

Function = dict[str, Tensor]
"""What sets one function of a family apart from the others, by name; leading axis T for several."""


class Family(Protocol):
    """A distribution over functions and over the inputs at which they are seen."""

    def draw(self, key: Tensor) -> Function:
        """Draw a function for each key (T,)."""

    def inputs(self, key: Tensor, count: int) -> Tensor:
        """Draw inputs (T, count, D) for keys (T,)."""

    def values(self, function: Function, x: Tensor) -> Tensor:
        """Return the functions' values (T, B, 1) at x (T, B, D)."""


@dataclass(frozen=True)
class FunctionTasks:
    """Regression episodes: each task is one function of the family, seen without noise at random inputs.

    shots, queries: support and query points of an episode; `train_*` for the training split where it differs. The three splits
        draw from the same family: a new function is all that is new.
    seed: of the training stream. eval_seed: of the "val" and "test" streams, so that runs with different seeds are scored
        on the same episodes.
    """

    family: Family
    shots: int = 10
    queries: int = 100
    train_shots: int | None = None
    train_queries: int | None = None
    seed: int = 0
    eval_seed: int = 0
    objective: str = "regression"

    def __post_init__(self) -> None:
        check_sizes(self.shots, self.queries, self.train_shots, self.train_queries)

    def episode(self, split: str, index: int) -> Episode:
        """Deal episode `index`: x (K, D) and y (K, 1) of the support, (Q, D) and (Q, 1) of the query."""
        return first_of(self.batch(split, torch.tensor([index])))

    def batch(self, split: str, indices: Tensor) -> Episode:
        """Deal the episodes `indices` (T,) at once, with a leading axis T."""
        key = self._key(split, indices)
        shots, queries = sizes(self, split)
        x = self.family.inputs(draws.fold(key, "inputs"), shots + queries)
        y = self.family.values(self.family.draw(draws.fold(key, "function")), x)
        return Episode(Examples(x[:, :shots], y[:, :shots]), Examples(x[:, shots:], y[:, shots:]))

    def curve(self, split: str, index: int, x: Tensor) -> Tensor:
        """Return the true function of episode `index`, (B, 1), at x (B, D)."""
        function = self.family.draw(draws.fold(self._key(split, torch.tensor([index])), "function"))
        return self.family.values(function, x[None])[0]

    def _key(self, split: str, indices: Tensor) -> Tensor:
        check_split(split)
        return draws.key(self.seed if split == "train" else self.eval_seed, split, indices)


class Sized(Protocol):
    """A source with the four keys that say how many points an episode has."""

    @property
    def shots(self) -> int: ...

    @property
    def queries(self) -> int: ...

    @property
    def train_shots(self) -> int | None: ...

    @property
    def train_queries(self) -> int | None: ...


def sizes(source: Sized, split: str) -> tuple[int, int]:
    """Return shots and queries of a split."""
    train = split == "train"
    shots = source.train_shots if train and source.train_shots is not None else source.shots
    return shots, source.train_queries if train and source.train_queries is not None else source.queries


def check_sizes(shots: int, queries: int, train_shots: int | None, train_queries: int | None) -> None:
    """Raise `UserError` unless all that are given are whole numbers of at least 1."""
    given = {"shots": shots, "queries": queries, "train_shots": train_shots, "train_queries": train_queries}
    check_whole(**{name: value for name, value in given.items() if value is not None})


def check_whole(**values: int) -> None:
    """Raise `UserError` unless every value of these task keys is a whole number of at least 1."""
    for name, value in values.items():
        if not isinstance(value, int) or isinstance(value, bool) or value < 1:
            raise UserError(f"task.{name}={value} must be a whole number of at least 1.")


def check_split(split: str) -> None:
    """Raise `UserError` for a split that does not exist."""
    if split not in SPLITS:
        raise UserError(f"there is no split '{split}'; this task has {', '.join(SPLITS)}.{nearest(split, SPLITS)}")


def first_of(batch: Episode) -> Episode:
    """Return the first episode of a batch."""
    support, query = (Examples(part.x[0], part.y[0], None if part.mask is None else part.mask[0]) for part in batch)
    return Episode(support, query)
