"""Ranks with ties, by numbers derived by hand."""

from __future__ import annotations

import math

import pytest

from metarun.engine.ranks import average_ranks, by_differences, by_intervals, ranks


def test_models_that_a_test_does_not_separate_from_the_best_share_the_average_of_their_ranks():
    """0.90 and 0.89 tie (0.01 < √2 · 0.01): ranks 1 and 2, average 1.5. 0.80 is third."""
    scores, widths = [0.80, 0.90, 0.89], [0.01, 0.01, 0.01]
    assert ranks(scores, by_intervals(scores, widths), higher_is_better=True) == [3.0, 1.5, 1.5]


def test_an_error_ranks_from_the_lowest():
    scores = [0.3, 0.1, 0.2]
    assert ranks(scores, by_intervals(scores, [0.01] * 3), higher_is_better=False) == [3.0, 1.0, 2.0]


def test_a_tie_is_with_the_best_model_that_is_left_and_not_along_a_chain():
    """1.0 and 0.9 tie, 0.9 and 0.8 would tie, but 0.8 is separated from 1.0: 0.2 > √2 · 0.1."""
    scores = [1.0, 0.9, 0.8]
    assert ranks(scores, by_intervals(scores, [0.1] * 3), higher_is_better=True) == [1.5, 1.5, 3.0]


def test_the_ranks_of_the_leaderboard_of_meta_dataset_on_ilsvrc_come_out():
    """Mean and interval of eleven models, and the ranks that the notebook shows."""
    scores = [52.8, 51.92, 62.76, 45.78, 45.0, 50.5, 53.69, 34.69, 45.51, 49.53, 41.03]
    widths = [1.11, 1.05, 0.99, 1.1, 1.1, 1.08, 1.07, 1.01, 1.11, 1.05, 1.01]
    expected = [2.5, 4.5, 1.0, 8.0, 8.0, 4.5, 2.5, 11.0, 8.0, 6.0, 10.0]
    assert ranks(scores, by_intervals(scores, widths), higher_is_better=True) == expected


def test_a_score_that_is_not_finite_is_the_worst_and_ties_with_another_one():
    scores = [math.inf, 0.2, math.nan]
    assert ranks(scores, by_intervals(scores, [0.1] * 3), higher_is_better=False) == [2.5, 1.0, 2.5]


def test_an_unknown_interval_separates_nothing():
    assert ranks([0.1, 0.9], by_intervals([0.1, 0.9], [math.nan, 0.1]), higher_is_better=True) == [1.5, 1.5]


def test_the_average_rank_is_over_the_families():
    assert average_ranks({"a": [1.5, 1.5, 3.0], "b": [2.0, 1.0, 3.0]}) == [1.75, 1.25, 3.0]


def test_a_paired_test_separates_models_whose_intervals_overlap():
    """The scores vary by 1, their differences by 0.01: -0.09, -0.10, -0.11, -0.10, with an interval of ± 0.013."""
    first = [[0.0, 1.0, 0.5, 0.7]]
    other = [[0.09, 1.10, 0.61, 0.80]]
    assert by_differences([first, other])(0, 1)
    assert not by_differences([first, [[0.5, 0.6, 0.5, 0.6]]])(0, 1)
    assert not by_differences([first, first])(0, 1)


def test_an_episode_counts_with_the_mean_of_its_differences_over_the_runs():
    """Differences 0.2 and 0 in the two runs are 0.1 for each episode; +0.1 and -0.1 are 0."""
    base = [0.0, 1.0, 0.5, 0.7]
    higher, lower = ([value + shift for value in base] for shift in (0.1, -0.1))
    twice = [value + 0.2 for value in base]
    assert by_differences([[base, base], [twice, base]])(0, 1)
    assert not by_differences([[base, base], [higher, lower]])(0, 1)


def test_episodes_that_are_not_finite_do_not_count():
    assert by_differences([[[math.inf, 0.0, 1.0, 2.0]], [[0.0, 1.0, 2.0, 3.0]]])(0, 1)
    assert not by_differences([[[math.inf, 0.0]], [[0.0, 1.0]]])(0, 1)


@pytest.mark.parametrize("count", [1, 2])
def test_one_model_has_rank_one_and_two_equal_models_share(count: int):
    assert ranks([0.5] * count, by_intervals([0.5] * count, [0.1] * count), higher_is_better=True) == [(count + 1) / 2] * count
