"""The task keys that all regression sources share: the numbers of points of an episode, and the seeds."""

from __future__ import annotations

from collections.abc import Mapping
from dataclasses import dataclass, fields
from typing import Annotated, Any

import torch
from torch import Tensor

from metarun import draws
from metarun.compute.memory import check_fits
from metarun.errors import UserError, nearest, printable
from metarun.tasks.pool import check_split, is_whole
from metarun.types import Episode, Examples
from metarun.values import Count, Keys, Seed

DRAWN = 64.0
"""Bytes of a point while it is drawn: its values, and the 64-bit numbers of the draw with their temporary copies."""


@dataclass(frozen=True)
class PointSampling:
    """How a regression source samples the points of its episodes. `metarun.tasks.sampling.FewShot` samples classes of images.

    shots, queries: support and query points of an episode; `train_*` for the training split where it differs.
    min_shots: where set, each episode draws its number of support points from [min_shots, shots], uniformly; the mask is False on the
        unused points.
    seed: of the training stream. eval_seed: of the "val" and "test" streams, so that runs with different seeds are scored
        on the same episodes.
    """

    shots: Count = 10
    queries: Count = 100
    train_shots: Count | None = None
    train_queries: Count | None = None
    min_shots: Count | None = None
    seed: Seed = 0
    eval_seed: Seed = 0

    def __post_init__(self) -> None:
        sizes = {name: value for name, value in vars(self).items() if value is not None}
        check_whole(least=None, **{name: sizes.pop(name) for name in ("seed", "eval_seed")})
        check_whole(**sizes)
        if self.min_shots is not None and self.min_shots > self.shots:
            raise UserError(f"task.min_shots={self.min_shots} must lie between 1 and task.shots={self.shots}.")
        for split in ("train", "val"):
            shots, queries = self.sizes(split)
            check_fits(DRAWN * (shots + queries), f"an episode of {shots} shots and {queries} queries", "lower task.shots or task.queries")

    @staticmethod
    def of(keys: Mapping[str, Any], **defaults: int) -> PointSampling:
        """Return the sampling of a config's keys; UserError for an unknown key. defaults: instead of the defaults above."""
        names = [each.name for each in fields(PointSampling)]
        for name in keys:
            if name not in names:
                raise UserError(f"task.{name} is not a key of this task.{nearest(name, names)}")
        return PointSampling(**{**defaults, **keys})

    def sizes(self, split: str) -> tuple[int, int]:
        """Return shots and queries of a split, the most shots where they vary."""
        train = split == "train"
        shots = self.train_shots if train and self.train_shots is not None else self.shots
        return shots, self.train_queries if train and self.train_queries is not None else self.queries

    def too_few(self, split: str, rows: Mapping[str, int]) -> str:
        """Return the sentence on tasks with too few rows for an episode of a split; "" where there is none. rows: of each task."""
        shots, queries = self.sizes(split)
        small = {name: count for name, count in rows.items() if count < shots + queries}
        if not small:
            return ""
        name = min(small, key=lambda task: small[task])
        own = [split == "train" and getattr(self, f"train_{key}") is not None for key in ("shots", "queries")]
        first, second = (f"task.{'train_' * each}{key}" for each, key in zip(own, ("shots", "queries"), strict=True))
        skip = ", or leave such tasks out with task.skip_small=true" if len(small) < len(rows) else ""
        return (
            f"{len(small)} of the {len(rows)} {split} tasks have too few rows, '{printable(name)}' only {small[name]}; {shots} shots + "
            f"{queries} queries need {shots + queries}. Lower {first} or {second}{skip}."
        )

    def used(self, split: str, key: Tensor) -> Tensor | None:
        """Return which support points each episode uses, (T, K) bool, from the episodes' keys (T,); None where each one uses all K."""
        shots, _ = self.sizes(split)
        least = shots if self.min_shots is None else min(self.min_shots, shots)
        if least == shots:
            return None
        count = least + draws.integers(draws.fold(key, "shots"), size=shots - least + 1)
        return torch.arange(shots) < count[:, None]

    def key(self, split: str, indices: Tensor) -> Tensor:
        """Return the keys (T,) of the episodes `indices` (T,); UserError for a split that does not exist."""
        check_split(split)
        return draws.key(self.seed if split == "train" else self.eval_seed, split, indices)


Points = Annotated[Any, Keys(PointSampling)]
"""The sampling keys of a regression source, for its `**sampling`: shots, queries, … as the fields of `PointSampling`."""


def check_whole(*, least: int | None = 1, **values: int) -> None:
    """Raise `UserError` unless every value of these task keys is a whole number of at least `least` (None: of any size)."""
    for name, value in values.items():
        if not is_whole(value) or (least is not None and value < least):
            raise UserError(f"task.{name}={value} must be a whole number{'' if least is None else f' of at least {least}'}.")


def divide(x: Tensor, y: Tensor, shots: int, used: Tensor | None = None) -> Episode:
    """Return the episodes of the points x (T, B, D), y (T, B, D'): the first `shots` points are the support, the others the query.

    used: (T, shots) bool, the support points that count; None for all.
    """

    def examples(points: slice, mask: Tensor | None = None) -> Examples:
        # A contiguous copy, as in all other sources: the rounding of a matrix product may depend on the layout of its operands.
        inputs, targets = (values[:, points].clone(memory_format=torch.contiguous_format) for values in (x, y))
        return Examples(inputs, targets, mask)

    return Episode(examples(slice(shots), used), examples(slice(shots, None)))
