"""Means, medians and intervals of scores. No score vanishes: a score that is not finite makes its mean infinite."""

from __future__ import annotations

import functools
import math
import statistics
from collections.abc import Sequence

import torch
from torch import Tensor

LEVEL = 0.95
"""Every interval of the project covers this share."""
_SERIES = 30
"""`t_quantile` sums the exact series below this number of degrees of freedom, and uses the expansion from there on."""


def worst(values: Tensor) -> Tensor:
    """Return errors (T,) as float64, with infinity in place of NaN: an error that is not a number is the largest error."""
    values = values.double()
    return torch.where(values.isfinite(), values, torch.inf)


def mean(values: Tensor) -> float:
    """Return the mean of the values (T,): infinite where one is infinite, NaN where there is none."""
    return float(values.double().mean()) if len(values) else math.nan


def median(values: Tensor) -> float:
    """Return the median of the values (T,), infinite values included: of two middle values their mean. NaN where there is no value."""
    if not len(values):
        return math.nan
    ordered = values.double().sort().values
    return float((ordered[(len(ordered) - 1) // 2] + ordered[len(ordered) // 2]) / 2.0)


def std(values: Tensor) -> float:
    """Return the standard deviation of the finite values (T,), with T - 1 in the denominator; NaN where fewer than two are finite."""
    finite = values[values.isfinite()].double()
    return float(finite.std()) if len(finite) > 1 else math.nan


def interval(values: Tensor) -> float:
    """Return half the width of the 95 % interval of the mean of the values (T,): t · std / √T, with T - 1 degrees of freedom.

    It is NaN for fewer than two values, and infinite where a value is not finite.
    Source: Student, "The probable error of a mean", Biometrika 6, 1908. The interval with 1.96 in place of t is too narrow for few values.
    """
    if not values.isfinite().all():
        return math.inf
    return t_quantile(len(values) - 1) * std(values) / math.sqrt(len(values)) if len(values) > 1 else math.nan


def interquartile_mean(values: Sequence[float]) -> float:
    """Return the mean of the middle half of the values. A value that lies partly in the middle half counts with that part.

    Source: Agarwal, Schwarzer, Castro, Courville and Bellemare, "Deep reinforcement learning at the edge of the statistical precipice",
    NeurIPS 2021, section 4.3. Their code cuts whole values, so it takes the mean of all values where there are three.
    """
    ordered = sorted(values)
    count = len(ordered)
    weights = [max(0.0, min(index + 1, 0.75 * count) - max(index, 0.25 * count)) for index in range(count)]
    inside = [(weight, value) for weight, value in zip(weights, ordered, strict=True) if weight > 0.0]
    return sum(weight * value for weight, value in inside) / (0.5 * count)


@functools.cache
def t_quantile(freedom: int, level: float = LEVEL) -> float:
    """Return the t with P(|T| ≤ t) = level for Student's distribution with `freedom` degrees of freedom; the error is below 1e-8.

    Source: Abramowitz and Stegun, "Handbook of mathematical functions", 1964: equations 26.7.3 and 26.7.4 (series), 26.7.5 (expansion).
    """
    if freedom < 1:
        raise ValueError(f"Student's distribution needs at least 1 degree of freedom, not {freedom}")
    if freedom >= _SERIES:
        return _expansion(statistics.NormalDist().inv_cdf(0.5 + 0.5 * level), freedom)
    low, high = 0.0, 0.5 * math.pi
    for _ in range(60):
        middle = 0.5 * (low + high)
        low, high = (low, middle) if _inside(middle, freedom) > level else (middle, high)
    return math.sqrt(freedom) * math.tan(0.5 * (low + high))


def _inside(angle: float, freedom: int) -> float:
    """Return P(|T| ≤ t) for t = √freedom · tan(angle)."""
    sine, cosine = math.sin(angle), math.cos(angle)
    odd = freedom % 2 == 1
    term, total = (cosine, 0.0) if odd else (1.0, 0.0)
    for power in range(1 if odd else 0, freedom - 1, 2):
        total += term
        term *= cosine**2 * (power + 1) / (power + 2)
    return 2.0 / math.pi * (angle + sine * total) if odd else sine * total


def _expansion(x: float, freedom: int) -> float:
    """Return the quantile of Student's distribution from the quantile x of the normal distribution."""
    terms = (
        (x**3 + x) / 4.0,
        (5.0 * x**5 + 16.0 * x**3 + 3.0 * x) / 96.0,
        (3.0 * x**7 + 19.0 * x**5 + 17.0 * x**3 - 15.0 * x) / 384.0,
        (79.0 * x**9 + 776.0 * x**7 + 1482.0 * x**5 - 1920.0 * x**3 - 945.0 * x) / 92160.0,
    )
    return x + sum(term / freedom ** (power + 1) for power, term in enumerate(terms))
