"""Lines and parabolas. With the sinusoids, they make runs over several families of curves.

    line:       y = a x + b,              a ~ U[-1, 1],       b ~ U[-2, 2]
    quadratic:  y = a (x - c)^2 + b,      a ~ U[-0.2, 0.2],   b ~ U[-2, 2],   c ~ U[-2, 2]

with x ~ U[-5, 5], as for the sinusoids. The ranges are our own: they give all three families values of the same size.
The idea of one learner for sinusoids and lines is from Finn, Xu and Levine, "Probabilistic model-agnostic meta-learning",
NeurIPS 2018.
"""

from __future__ import annotations

from dataclasses import dataclass

from torch import Tensor

from metarun import draws
from metarun.tasks.functions import Function, FunctionTasks
from metarun.tasks.points import Points, PointSampling
from metarun.tasks.sinusoid import INPUTS


@dataclass(frozen=True)
class Polynomials:
    """The family y = `slope` (x - c) + `curvature` (x - c)^2 + b; each range is (low, high) of a uniform draw."""

    slope: tuple[float, float] = (0.0, 0.0)
    curvature: tuple[float, float] = (0.0, 0.0)
    centre: tuple[float, float] = (0.0, 0.0)
    offset: tuple[float, float] = (-2.0, 2.0)

    def draw(self, key: Tensor) -> Function:
        """Draw the four coefficients (T,)."""
        ranges = {"slope": self.slope, "curvature": self.curvature, "centre": self.centre, "offset": self.offset}
        return {name: draws.uniform(draws.fold(key, name), low=low, high=high) for name, (low, high) in ranges.items()}

    def inputs(self, key: Tensor, count: int) -> Tensor:
        """Draw x (T, count, 1)."""
        return draws.uniform(key, count, 1, low=INPUTS[0], high=INPUTS[1])

    def values(self, function: Function, x: Tensor) -> Tensor:
        """Return the polynomials at x, (T, B, 1)."""
        slope, curvature, centre, offset = (function[name][:, None, None] for name in ("slope", "curvature", "centre", "offset"))
        shifted = x - centre
        return offset + slope * shifted + curvature * shifted.square()


LINES = Polynomials(slope=(-1.0, 1.0))
PARABOLAS = Polynomials(curvature=(-0.2, 0.2), centre=(-2.0, 2.0))


def line(**sampling: Points) -> FunctionTasks:
    """Return the source of straight lines: x (B, 1) in [-5, 5], y (B, 1). sampling: the keys of `PointSampling`."""
    return FunctionTasks(LINES, PointSampling.of(sampling))


def quadratic(**sampling: Points) -> FunctionTasks:
    """Return the source of parabolas: x (B, 1) in [-5, 5], y (B, 1). sampling: the keys of `PointSampling`."""
    return FunctionTasks(PARABOLAS, PointSampling.of(sampling))
