"""Scores of the same episodes, one setting against another, against numbers worked out by hand."""

from __future__ import annotations

import math
import statistics

import pytest

from metarun.commands.comparing.differences import average_ranks, better, family_interval, family_ranks, interval, over_seeds, paired
from metarun.errors import UserError

INF = math.inf


def by_episode(*values: float) -> dict[int, float]:
    return dict(enumerate(values))


def test_the_difference_is_of_the_same_episodes():
    """Differences +0.5, +0.5, -0.25, 0: mean 0.1875; two of four are lower or equal, the equal one for half: 1.5 of 4."""
    found = paired([by_episode(1.5, 2.5, 2.75, 4.0)], [by_episode(1.0, 2.0, 3.0, 4.0)], "mse")
    assert found.over_episodes.mean == pytest.approx(0.1875)
    assert found.over_episodes.ci95 == pytest.approx(3.1824463 * statistics.stdev([0.5, 0.5, -0.25, 0.0]) / math.sqrt(4))
    assert (found.wins, found.episodes, found.not_finite, found.over_seeds) == (0.375, 4, 0, None)
    assert not found.separates


def test_a_higher_accuracy_is_the_better_one():
    assert paired([by_episode(0.6, 0.9)], [by_episode(0.5, 0.5)], "accuracy").wins == 1.0
    assert paired([by_episode(0.6, 0.9)], [by_episode(0.5, 0.5)], "mse").wins == 0.0


def test_runs_of_several_seeds_are_compared_seed_by_seed():
    """Differences of seed 0: +1, +3, +2, of seed 1: 0, +2, +4. By episode they are 0.5, 2.5, 3 with mean 2; by seed they are 2 and 2.

    Five of six differences are positive and one is 0: half a win of six.
    """
    on = [by_episode(1.0, 1.0, 1.0), by_episode(2.0, 2.0, 2.0)]
    off = [by_episode(2.0, 4.0, 3.0), by_episode(2.0, 4.0, 6.0)]
    found = paired(off, on, "mse")
    assert found.over_episodes == pytest.approx((2.0, 4.3026527 * statistics.stdev([0.5, 2.5, 3.0]) / math.sqrt(3)))
    assert found.over_seeds == pytest.approx((2.0, 0.0))
    assert found.by_seed == pytest.approx((2.0, 2.0))
    assert found.wins == pytest.approx(0.5 / 6)
    assert not found.separates, "2 ± 3.3"


def test_the_interval_over_seeds_is_students():
    """Differences of 1 and 2: mean 1.5, deviation 0.7071, and t = 12.7062 with one degree of freedom: 12.7062 * 0.7071 / √2 = 6.3531."""
    found = paired([by_episode(1.0, 1.0), by_episode(2.0, 2.0)], [by_episode(0.0, 0.0)] * 2, "mse")
    assert found.over_seeds == pytest.approx((1.5, 6.3531), abs=1e-4)
    assert found.over_episodes == pytest.approx((1.5, 0.0))
    assert found.separates


def test_an_episode_that_diverged_for_one_seed_has_no_difference_and_counts_as_worse():
    found = paired([by_episode(1.0, INF, 1.0)], [by_episode(0.0, 0.0, 2.0)], "mse")
    assert found.over_episodes.mean == 0.0
    assert (found.not_finite, found.episodes) == (1, 3)
    assert found.wins == pytest.approx(1 / 3)
    assert (better("mse", INF, 1.0), better("mse", 1.0, INF), better("mse", INF, INF), better("accuracy", INF, 0.1)) == (0.0, 1.0, 0.5, 0.0)


@pytest.mark.parametrize(
    ("new", "sentence"),
    [
        ([by_episode(1.0, 2.0), by_episode(1.0, 2.0)], "has 2 runs and the other one 1"),
        ([by_episode(1.0, 2.0, 3.0)], "has 3 and the other one 2"),
        ([{0: 1.0, 2: 1.0}], "episode by episode"),
        ([by_episode(1.0, INF)], "fewer than two episodes"),
    ],
)
def test_scores_of_other_episodes_or_seeds_are_refused(new: list[dict[int, float]], sentence: str):
    with pytest.raises(UserError, match=sentence):
        paired(new, [by_episode(1.0, 2.0)], "mse")


def test_the_figures_over_seeds_are_mean_interval_deviation_and_interquartile_mean():
    """0.2, 0.4, 0.9: variance 0.13; the middle half of three values is the middle one and a quarter of each of the others."""
    found = over_seeds([0.2, 0.4, 0.9])
    assert found.mean == pytest.approx(0.5)
    assert found.ci95 == pytest.approx(4.3026527 * math.sqrt(0.13 / 3))
    assert found.std == pytest.approx(math.sqrt(0.13))
    assert found.iqm == pytest.approx((0.25 * 0.2 + 0.4 + 0.25 * 0.9) / 1.5)
    assert over_seeds([0.5]) == (0.5, None, None, 0.5, (0.5,))
    assert interval([0.5, INF]).ci95 == INF


def test_models_that_a_test_does_not_separate_share_their_rank():
    """Family a: 0.9 and 0.8 differ by 0.1 in every episode. Family b: the differences -0.1 and 0.1 average to 0."""
    scores = {"a": [[[0.9, 0.9]], [[0.8, 0.8]]], "b": [[[0.5, 0.6]], [[0.6, 0.5]]]}
    assert family_ranks(scores, "accuracy") == {"a": [1.0, 2.0], "b": [1.5, 1.5]}
    assert family_ranks(scores, "mse")["a"] == [2.0, 1.0]
    assert average_ranks(family_ranks(scores, "accuracy")) == [1.25, 1.75]


def test_settings_of_different_numbers_of_runs_are_ranked_by_their_intervals():
    """One run has 0.9 ± 0 over its episodes, two runs have 0.8 ± 0 over the runs."""
    assert family_ranks({"a": [[[0.9, 0.9]], [[0.8, 0.8], [0.8, 0.8]]]}, "accuracy") == {"a": [1.0, 2.0]}
    assert family_interval([[1.0, 3.0], [2.0, 4.0]]) == pytest.approx((2.5, 12.7062047 * 0.5))
