"""Errors in the units of the targets against numbers worked out by hand."""

from __future__ import annotations

import math

import pytest
import torch
from small import Lines

from metarun.engine.report import summarise
from metarun.engine.units import errors_by_target, in_units, over_runs, units_of
from metarun.errors import UserError
from metarun.objectives import REGRESSION
from metarun.types import Episode, Examples

T_2 = 4.30265273
"""The 97.5 % point of Student's t with 2 degrees of freedom."""


def test_errors_of_a_task_are_means_over_the_real_queries_for_each_target():
    """Differences 1 and 3 of the first target: 5 and 2. Differences 0 and -2 of the second: 2 and 1. The third row is padding."""
    y = torch.tensor([[0.0, 1.0], [1.0, 1.0], [0.0, 0.0]])
    outputs = torch.tensor([[1.0, 1.0], [4.0, -1.0], [math.nan, 9.0]])
    found = errors_by_target(outputs, Examples(y, y, torch.tensor([True, True, False])))
    assert found["squared_error"].tolist() == [5.0, 2.0]
    assert found["absolute_error"].tolist() == [2.0, 1.0]
    assert errors_by_target(outputs[:2], Examples(y[:2], y[:2]))["squared_error"].tolist() == [5.0, 2.0]


def test_the_rmse_is_the_root_of_the_mean_over_the_episodes_in_the_unit_of_the_target():
    """Squared errors 1, 4, 7 of three episodes: mean 4, deviation 3. The RMSE is 2 units of 10, up to √(4 + h) with h = t · 3 / √3 > 4."""
    scored = {"squared_error": torch.tensor([[1.0], [4.0], [7.0]]), "absolute_error": torch.tensor([[1.0], [1.5], [2.0]])}
    errors, by_episode = in_units(scored, {"price": 10.0})
    half = T_2 * 3.0 / math.sqrt(3.0)
    assert errors["price"]["rmse"] == pytest.approx(20.0)
    assert (errors["price"]["rmse_low"], errors["price"]["rmse_high"]) == (0.0, pytest.approx(10.0 * math.sqrt(4.0 + half)))
    assert errors["price"]["mae"] == pytest.approx(15.0)
    assert errors["price"]["mae_ci95"] == pytest.approx(10.0 * T_2 * 0.5 / math.sqrt(3.0))
    assert errors["price"]["unit"] == 10.0
    assert by_episode["rmse price"] == pytest.approx([10.0, 20.0, 10.0 * math.sqrt(7.0)])
    assert by_episode["mae price"] == pytest.approx([10.0, 15.0, 20.0])


def test_each_target_has_its_own_unit_and_a_small_interval_lies_on_both_sides():
    scored = {"squared_error": torch.tensor([[4.0, 1.0], [4.1, 1.0], [3.9, 1.0]]), "absolute_error": torch.ones(3, 2)}
    errors, _ = in_units(scored, {"a": 1.0, "b": 100.0})
    half = T_2 * 0.1 / math.sqrt(3.0)
    assert errors["a"]["rmse_low"] == pytest.approx(math.sqrt(4.0 - half), rel=1e-5)
    assert errors["b"]["rmse"] == errors["b"]["rmse_low"] == errors["b"]["rmse_high"] == pytest.approx(100.0)


def test_an_episode_that_is_not_finite_makes_the_error_infinite():
    scored = {"squared_error": torch.tensor([[1.0], [math.nan]]), "absolute_error": torch.tensor([[1.0], [math.inf]])}
    errors, _ = in_units(scored, {"a": 2.0})
    assert (errors["a"]["rmse"], errors["a"]["mae"]) == (math.inf, math.inf)


def test_the_standardised_mse_and_the_errors_in_units_agree():
    """With two targets the mse is the mean of both squared errors."""
    scored = {
        "by_step": torch.tensor([[2.5], [4.5]]),
        "steps": torch.tensor([[0], [0]]),
        "finite": torch.ones(2),
        "baseline": torch.ones(2),
        "squared_error": torch.tensor([[1.0, 4.0], [3.0, 6.0]]),
        "absolute_error": torch.ones(2, 2),
    }
    report = summarise(REGRESSION, scored, units={"a": 2.0, "b": 3.0})
    assert report.by_target is not None
    assert report.mean == pytest.approx(sum((each["rmse"] / each["unit"]) ** 2 for each in report.by_target.values()) / 2)
    assert "target_errors" not in report.summary()
    assert summarise(REGRESSION, scored).by_target is None


class Source:
    """A source of regression, to which a test adds the method `units`."""

    objective = "regression"

    def episode(self, split: str, index: int) -> Episode:
        return Lines().episode(split, index)


def test_only_a_source_of_regression_with_units_has_errors_in_units():
    known, none = Source(), Source()
    known.units = lambda: {"a": 2.0}  # type: ignore[attr-defined]
    none.units = dict  # type: ignore[attr-defined]
    assert units_of(known) == {"a": 2.0}
    assert units_of(none) is None
    assert units_of(Source()) is None


def test_a_source_that_names_other_targets_than_it_has_is_refused():
    scored = {"squared_error": torch.ones(2, 3), "absolute_error": torch.ones(2, 3)}
    with pytest.raises(UserError, match="`units` names 1 targets, but its episodes have 3 columns of y"):
        in_units(scored, {"a": 1.0})


def test_over_runs_the_interval_is_over_the_runs():
    each = [{"a": {"rmse": rmse, "mae": 1.0, "unit": 2.0}} for rmse in (1.0, 2.0, 3.0)]
    found = over_runs(each)
    assert found is not None
    assert found["a"] == {"rmse": 2.0, "rmse_ci95": pytest.approx(T_2 / math.sqrt(3.0)), "mae": 1.0, "mae_ci95": 0.0, "unit": 2.0}
    assert over_runs([*each, None]) is None
    assert over_runs([None, None]) is None
