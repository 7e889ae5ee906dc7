"""Sinusoids and lines from a few noisy points, too few to tell the two apart: the regression problem of PLATIPUS.

Finn, Xu and Levine, "Probabilistic model-agnostic meta-learning", NeurIPS 2018, section 6.1:

    y = A sin(x - φ) + ε  or  y = a x + b + ε,  each for half of the tasks,  x ~ U[-5, 5],  ε ~ N(0, 0.3²),
    A ~ U[0.1, 5],   φ ~ U[0, π],   a ~ U[-3, 3],   b ~ U[-3, 3].

Support and query points both have the noise, so no predictor has a squared error below the variance of the noise.
"""

from __future__ import annotations

from typing import Any

from metarun.tasks.curves import Polynomials
from metarun.tasks.functions import FunctionTasks
from metarun.tasks.mixture import Mixture
from metarun.tasks.noisy import Noisy
from metarun.tasks.points import PointSampling
from metarun.tasks.sinusoid import Sinusoids

LINES = Polynomials(slope=(-3.0, 3.0), offset=(-3.0, 3.0))


def ambiguous(*, noise: float = 0.3, **sampling: Any) -> Noisy:
    """Return the source of noisy sinusoids and lines: x (B, 1) in [-5, 5], y (B, 1).

    noise: standard deviation. sampling: the keys of `PointSampling`; 5 shots by default.
    """
    points = PointSampling.of(sampling, shots=5)
    families = {"sinusoid": FunctionTasks(Sinusoids(), points), "line": FunctionTasks(LINES, points)}
    return Noisy(Mixture(families, seed=points.seed, eval_seed=points.eval_seed), noise, points.seed, points.eval_seed)
