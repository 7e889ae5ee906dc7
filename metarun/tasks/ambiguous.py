"""Sinusoids and lines from a few noisy points, too few to tell the two apart: the regression problem of PLATIPUS.

Finn, Xu and Levine, "Probabilistic model-agnostic meta-learning", NeurIPS 2018, section 6.1:

    y = A sin(x - φ) + ε  or  y = a x + b + ε,  each for half of the tasks,  x ~ U[-5, 5],  ε ~ N(0, 0.3²),
    A ~ U[0.1, 5],   φ ~ U[0, π],   a ~ U[-3, 3],   b ~ U[-3, 3].

Support and query points both have the noise, so no predictor has a squared error below the variance of the noise.
"""

from __future__ import annotations

from dataclasses import dataclass
from typing import Any

import torch
from torch import Tensor

from metarun import draws
from metarun.episodes import first_of
from metarun.errors import UserError
from metarun.tasks.curves import Polynomials
from metarun.tasks.functions import FunctionTasks
from metarun.tasks.mixture import Mixture
from metarun.tasks.points import PointSampling
from metarun.tasks.sinusoid import Sinusoids
from metarun.types import Episode

LINES = Polynomials(slope=(-3.0, 3.0), offset=(-3.0, 3.0))


@dataclass(frozen=True)
class Noisy:
    """Another source's regression episodes with Gaussian noise on every target.

    noise: standard deviation, in the unit of the targets. sampling: its seeds determine the noise.
    """

    source: Mixture
    noise: float
    sampling: PointSampling
    objective: str = "regression"

    def __post_init__(self) -> None:
        if self.noise < 0:
            raise UserError(f"task.noise={self.noise} must not be negative.")

    def episode(self, split: str, index: int) -> Episode:
        """Deal episode `index`: x (K, 1) and y (K, 1) of the support, (Q, 1) and (Q, 1) of the query."""
        return first_of(self.batch(split, torch.tensor([index])))

    def batch(self, split: str, indices: Tensor) -> Episode:
        """Deal the episodes `indices` (T,) at once, with a leading axis T."""
        key = draws.fold(self.sampling.key(split, indices), "noise")
        noisy = [
            part._replace(y=part.y + self.noise * draws.normal(draws.fold(key, role), *part.y.shape[1:]))
            for role, part in self.source.batch(split, indices)._asdict().items()
        ]
        return Episode(*noisy)

    def curve(self, split: str, index: int, x: Tensor) -> Tensor:
        """Return the function of episode `index` without noise, (B, 1), at x (B, 1)."""
        return self.source.curve(split, index, x)


def ambiguous(*, noise: float = 0.3, **sampling: Any) -> Noisy:
    """Return the source of noisy sinusoids and lines: x (B, 1) in [-5, 5], y (B, 1).

    noise: standard deviation. sampling: the keys of `PointSampling`; 5 shots by default.
    """
    points = PointSampling.of(sampling, shots=5)
    families = {"sinusoid": FunctionTasks(Sinusoids(), points), "line": FunctionTasks(LINES, points)}
    return Noisy(Mixture(families, seed=points.seed, eval_seed=points.eval_seed), noise, points)
