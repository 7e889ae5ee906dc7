"""Means, medians and intervals against numbers worked out by hand and against printed tables."""

from __future__ import annotations

import math

import pytest
import torch

from metarun.engine.averages import interquartile_mean, interval, mean, median, std, t_quantile, worst

INF, NAN = math.inf, math.nan


@pytest.mark.parametrize(
    ("freedom", "t"),
    [(1, 12.7062047), (2, 4.3026527), (3, 3.1824463), (4, 2.7764451), (9, 2.2621572), (10, 2.2281389), (29, 2.0452296), (30, 2.0422725)],
)
def test_the_t_quantile_is_that_of_the_printed_table(freedom: int, t: float) -> None:
    """The two-sided 95 % values of every table of Student's distribution, here with seven decimals."""
    assert t_quantile(freedom) == pytest.approx(t, abs=1e-6)


def test_the_t_quantile_falls_to_that_of_the_normal_distribution() -> None:
    values = [t_quantile(freedom) for freedom in range(1, 200)]
    assert values == sorted(values, reverse=True), "the series and the expansion join without a step"
    assert t_quantile(10**9) == pytest.approx(1.959963985, abs=1e-8)
    assert t_quantile(2, 0.5) == pytest.approx(math.sqrt(2.0 / 3.0)), "two degrees of freedom: t = p √(2 / (1 - p²))"


def test_the_series_and_the_expansion_agree_where_they_meet() -> None:
    from metarun.engine import averages

    exact = [averages._inside(math.atan(t_quantile(freedom) / math.sqrt(freedom)), freedom) for freedom in (30, 31, 60, 101)]
    assert exact == pytest.approx([0.95] * 4, abs=1e-8)


def test_an_interval_of_three_values_is_that_of_student() -> None:
    """0.2, 0.4, 0.9: variance 0.13; half the width is 4.3027 √(0.13 / 3), more than twice 1.96 √(0.13 / 3)."""
    assert interval(torch.tensor([0.2, 0.4, 0.9], dtype=torch.float64)) == pytest.approx(4.3026527 * math.sqrt(0.13 / 3))


def test_one_value_has_no_interval_and_an_infinite_value_makes_it_infinite() -> None:
    assert math.isnan(interval(torch.tensor([0.3])))
    assert math.isnan(std(torch.tensor([0.3])))
    assert interval(torch.tensor([0.3, INF])) == INF
    assert interval(torch.tensor([0.3, NAN])) == INF
    assert interval(torch.tensor([0.5, 0.5])) == 0.0


def test_no_value_vanishes_from_a_mean_or_a_median() -> None:
    values = worst(torch.tensor([1.0, NAN, 3.0, -INF, 2.0]))
    assert values.tolist() == [1.0, INF, 3.0, INF, 2.0]
    assert mean(values) == INF
    assert median(values) == 3.0, "1, 2, 3, ∞, ∞"
    assert median(torch.tensor([1.0, INF, INF])) == INF
    assert median(torch.tensor([4.0, 1.0, INF, 2.0])) == 3.0
    assert median(torch.tensor([1.0, 2.0, INF, INF])) == INF
    assert math.isnan(mean(torch.tensor([])))
    assert math.isnan(median(torch.tensor([])))


@pytest.mark.parametrize(
    ("values", "expected"),
    [
        ([5.0], 5.0),
        ([9.0, 1.0, 2.0], (0.25 * 1.0 + 2.0 + 0.25 * 9.0) / 1.5),  # the middle half of three values is 1.5 values
        ([0.0, 1.0, 2.0, 100.0], 1.5),
        ([0.0, 1.0, 2.0, 3.0, 100.0], (0.75 * 1.0 + 2.0 + 0.75 * 3.0) / 2.5),
        ([-50.0, 1.0, 2.0, 3.0, 4.0, 5.0, 6.0, 70.0], 3.5),
        ([0.0, 1.0, 2.0, INF], 1.5),  # a value outside the middle half does not count
    ],
)
def test_the_interquartile_mean_is_the_mean_of_the_middle_half(values: list[float], expected: float) -> None:
    assert interquartile_mean(values) == pytest.approx(expected)
