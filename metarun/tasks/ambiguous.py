"""Sinusoids and lines from a few noisy points, too few to tell the two apart: the regression problem of PLATIPUS.

Finn, Xu and Levine, "Probabilistic model-agnostic meta-learning", NeurIPS 2018, section 6.1:

    y = A sin(x - φ) + ε  or  y = a x + b + ε,  each for half of the tasks,  x ~ U[-5, 5],  ε ~ N(0, 0.3²),
    A ~ U[0.1, 5],   φ ~ U[0, π],   a ~ U[-3, 3],   b ~ U[-3, 3].

Support and query points both have the noise, so no predictor has a squared error below the variance of the noise. The paper has five
points. Five points over the whole range nearly determine the function, so this source has two by default, or five in a part of the range.
The source knows its prior, so every report has the scores of the exact Bayes predictor (`metarun.tasks.posterior`).
"""

from __future__ import annotations

from collections.abc import Sequence
from dataclasses import dataclass

import torch
from torch import Tensor

from metarun.errors import UserError
from metarun.predictive import Predictive
from metarun.tasks.curves import Polynomials
from metarun.tasks.functions import FunctionTasks
from metarun.tasks.mixture import Mixture
from metarun.tasks.noisy import Noisy
from metarun.tasks.points import Points, PointSampling
from metarun.tasks.posterior import LEAST_NOISE, Family, Posterior
from metarun.tasks.sinusoid import AMPLITUDE, INPUTS, PHASE, Sinusoids
from metarun.types import Examples
from metarun.values import Finite, NotNegative

LINES = Polynomials(slope=(-3.0, 3.0), offset=(-3.0, 3.0))


def _sinusoid(x: Tensor, phase: Tensor) -> tuple[Tensor, Tensor]:
    wave = torch.sin(x - phase)
    return wave, torch.zeros_like(wave)


def _line(x: Tensor, slope: Tensor) -> tuple[Tensor, Tensor]:
    rise = slope * x
    return torch.ones_like(rise), rise


FAMILIES = (Family(_sinusoid, PHASE, AMPLITUDE), Family(_line, LINES.slope, LINES.offset))


@dataclass(frozen=True)
class Ambiguous(Noisy):
    """Noisy sinusoids and lines, with their exact Bayes predictor."""

    def posterior(self, support: Examples, x: Tensor) -> Predictive:
        """Return the distribution of the noisy targets at x (B, 1), given the support set of one task."""
        return Posterior(FAMILIES, self.noise).predictive(support, x)

    def log_evidence(self, examples: Examples) -> Tensor:
        """Return log p(y | x) of all real examples of one task together, in nats."""
        return Posterior(FAMILIES, self.noise).log_evidence(examples)


def ambiguous(*, noise: NotNegative = 0.3, support_range: tuple[Finite, Finite] | None = None, **sampling: Points) -> Noisy:
    """Return the source of noisy sinusoids and lines: x (B, 1) in [-5, 5], y (B, 1).

    noise: standard deviation. Below 0.01 there is no Bayes predictor. support_range: (low, high) of the support points' x; None for the
    whole range, which the query points always have. sampling: the keys of `PointSampling`; 2 shots by default.
    """
    points = PointSampling.of(sampling, shots=2)
    limits = None if support_range is None else _checked(support_range)
    families = {
        "sinusoid": FunctionTasks(Sinusoids(), points, support_range=limits),
        "line": FunctionTasks(LINES, points, support_range=limits),
    }
    mixture = Mixture(families, seed=points.seed, eval_seed=points.eval_seed, even=False)  # the prior draws the family of each task
    return (Ambiguous if noise >= LEAST_NOISE else Noisy)(mixture, noise, points.seed, points.eval_seed)


def _checked(support_range: Sequence[float]) -> tuple[float, float]:
    low, high = support_range if len(support_range) == 2 else (0.0, 0.0)
    if not INPUTS[0] <= low < high <= INPUTS[1]:
        raise UserError(
            f"task.support_range={list(support_range)} must be two numbers in [{INPUTS[0]:g}, {INPUTS[1]:g}], the smaller first, "
            "for example [-5, 0]."
        )
    return float(low), float(high)
