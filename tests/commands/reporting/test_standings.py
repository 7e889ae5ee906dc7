"""The standings: one for each model, over its seeds."""

from __future__ import annotations

import pytest
from report_entries import entry, regression

from metarun.commands.reporting.entries import Entry
from metarun.commands.reporting.standings import baseline_of, ordered, over_seeds, standings_of


def test_the_mean_over_three_seeds_has_an_interval_by_students_t() -> None:
    """Means 0.8, 0.9, 1.0: mean 0.9, standard deviation 0.1, t(2) = 4.3027, half 4.3027 · 0.1 / √3 = 0.2484."""
    mean, half = over_seeds([0.8, 0.9, 1.0])
    assert mean == pytest.approx(0.9)
    assert half == pytest.approx(0.24841, abs=1e-5)
    assert over_seeds([0.8, None]) == (None, None)


def test_runs_that_differ_in_their_seed_are_one_standing() -> None:
    first, *_ = found = standings_of([entry(f"a seed={seed}", "a", seed=seed, mean=0.8 + seed / 10) for seed in (0, 1, 2)])
    assert len(found) == 1
    assert (first.name, first.seeds, first.validation) == ("a", 3, pytest.approx(0.8))


def test_the_model_that_validation_prefers_is_first_and_the_others_follow_by_their_scores() -> None:
    best = {"metric": "accuracy", "select": "mean accuracy over the validation tasks", "best": {"score": 0.99}}
    found = standings_of([entry("low", mean=0.1), entry("high", mean=0.95), entry("chosen", mean=0.9, training=best)])
    assert [each.name for each in found] == ["chosen", "high", "low"]
    assert [each.name for each in ordered([entry("b 1", "b", seed=1), entry("b 0", "b", seed=0)])] == ["b 0", "b 1"]


def test_a_lower_validation_error_is_preferred() -> None:
    worse = {"metric": "mse", "select": "median mse over the validation tasks", "best": {"score": 0.9}}
    assert [each.name for each in standings_of([regression("bad", training=worse), regression("good")])] == ["good", "bad"]


def test_the_baseline_is_chance_in_classification_and_the_support_mean_in_regression() -> None:
    assert baseline_of({"metric": "accuracy", "ways": 5}) == (0.2, "Guessing")
    assert baseline_of({"metric": "accuracy", "ways": 5, "min_ways": 3})[0] is None
    assert baseline_of({"metric": "mse", "baseline": 4.0})[0] == 4.0


def test_an_entry_without_a_score_has_a_standing_without_episodes() -> None:
    assert standings_of([Entry("a", "a")])[0].episodes == 0


def test_a_stream_counts_trajectories() -> None:
    assert standings_of([entry(stream={"parts": 10})])[0].unit == "trajectory"


def test_validations_after_different_inner_steps_are_of_different_kinds() -> None:
    after = {"metric": "mse", "select": "median mse over the validation tasks after 1 inner step", "best": {"score": 0.1}}
    found = standings_of([regression("a", mean=0.9, training=after), regression("b", mean=0.5)])
    assert {each.validation_metric for each in found} == {"median mse after 1 inner step", "median mse"}
    assert [each.name for each in found] == ["b", "a"]
