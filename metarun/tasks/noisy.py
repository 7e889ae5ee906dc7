"""Another source's regression episodes with Gaussian noise on every target."""

from __future__ import annotations

import math
from collections.abc import Mapping, Sequence
from dataclasses import dataclass

import torch
from torch import Tensor

from metarun import draws
from metarun.episodes import deal, first_of
from metarun.errors import UserError
from metarun.tasks.fingerprint import Fingerprint, fingerprint_of
from metarun.tasks.preparing.preparation import Preparation, preparation_by
from metarun.types import Episode, TaskSource, WithOrigins


@dataclass(frozen=True)
class Noisy:
    """The episodes of `source`, y + ε with ε ~ N(0, noise²) for each target of support and query.

    Support and query both have the noise, so no predictor has a squared error below the variance of the noise.

    noise: standard deviation, in the unit of the targets. seed: of the noise in the training stream. eval_seed: of the noise in the "val"
        and "test" streams. stream: the name of the draws. Two layers of noise with different names are independent.

    Raises UserError for noise that is negative or not finite, and for a source of classification.
    """

    source: TaskSource
    noise: float
    seed: int = 0
    eval_seed: int = 0
    stream: str = "noise"
    objective: str = "regression"

    def __post_init__(self) -> None:
        if not 0 <= self.noise < math.inf:
            raise UserError(f"task.noise={self.noise} must not be negative, and must be finite.")
        if self.source.objective != "regression":
            raise UserError(f"task.noise={self.noise} needs targets of a regression, and this task is {self.source.objective}.")

    def episode(self, split: str, index: int) -> Episode:
        """Deal episode `index`: x (K, D) and y (K, D') of the support, (Q, D) and (Q, D') of the query."""
        return first_of(self.batch(split, torch.tensor([index])))

    def batch(self, split: str, indices: Tensor) -> Episode:
        """Deal the episodes `indices` (T,) at once, with a leading axis T."""
        key = draws.fold(draws.key(self.seed if split == "train" else self.eval_seed, split, indices), self.stream)
        noisy = [
            part._replace(y=part.y + self.noise * draws.normal(draws.fold(key, role), *part.y.shape[1:]))
            for role, part in deal(self.source, split, indices)._asdict().items()
        ]
        return Episode(*noisy)

    def origins(self, split: str) -> Sequence[str]:
        """Return the names of the tasks behind the source; none where they come from no data set."""
        return self.source.origins(split) if isinstance(self.source, WithOrigins) else ()

    def population(self, split: str) -> int | None:
        """Return the number of tasks behind the source; None where it is unknown."""
        return self.source.population(split) if isinstance(self.source, WithOrigins) else None

    def families(self) -> Mapping[str, TaskSource]:
        """Return the families of a mixture without noise; none where the source is no mixture."""
        families: Mapping[str, TaskSource] = self.source.families() if hasattr(self.source, "families") else {}
        return families

    def family(self, split: str, indices: Tensor) -> Tensor:
        """Return the family of the episodes `indices` (T,), as positions (T,) in `families`; AttributeError where there are none."""
        positions: Tensor = self.source.family(split, indices)  # type: ignore[attr-defined]
        return positions

    def fingerprint(self) -> Fingerprint:
        """Return the fingerprint of the source."""
        return fingerprint_of(self.source)

    def preparation(self) -> Preparation | None:
        """Return the preparation of the source."""
        return preparation_by(self.source)

    def curve(self, split: str, index: int, x: Tensor) -> Tensor:
        """Return the function of episode `index` without noise, (B, D'), at x (B, D); raises AttributeError where the source has none."""
        values: Tensor = self.source.curve(split, index, x)  # type: ignore[attr-defined]
        return values
