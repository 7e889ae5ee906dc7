"""Rejection by a threshold: the numbers are worked out by hand."""

from __future__ import annotations

import math

import pytest
import torch

from metarun.engine.rejection import SCORES, Calibration, choose, scores_of, separation, threshold_at, wilson


def calibration(true: list[list[float]], foreign: list[list[float]], **others: tuple[list[list[float]], list[list[float]]]) -> Calibration:
    """Return a calibration whose three scores are these, unless `others` has other ones."""
    pairs = {name: others.get(name, (true, foreign)) for name in SCORES}
    return Calibration(
        {name: torch.tensor(pair[0], dtype=torch.float64) for name, pair in pairs.items()},
        {name: torch.tensor(pair[1], dtype=torch.float64) for name, pair in pairs.items()},
        *(3, 1.0, 9),
    )


def test_the_scores_of_two_equal_logits() -> None:
    """z = (2, 2): the probability is 1/2, the logit 2, the energy 2 + log 2."""
    scores = scores_of(torch.tensor([[2.0, 2.0]]))
    assert {name: score.item() for name, score in scores.items()} == pytest.approx(
        {"probability": 0.5, "logit": 2.0, "energy": 2.0 + math.log(2)}
    )


def test_a_logit_that_is_not_finite_has_the_lowest_score() -> None:
    scores = scores_of(torch.tensor([[math.nan, 1.0], [math.inf, 0.0], [-math.inf, 3.0]]))
    for score in scores.values():
        assert score[:2].tolist() == [-math.inf, -math.inf]
        assert score[2].isfinite()


def test_separation_counts_pairs_and_half_of_the_ties() -> None:
    """Of the six pairs, 3 > 1, 3 > 2, 2 > 1 and 2 = 2 count 3.5; 1 = 1 counts 0.5 and 1 < 2 nothing: 4 of 6."""
    assert separation(torch.tensor([3.0, 2.0, 1.0]), torch.tensor([1.0, 2.0])) == pytest.approx(4 / 6)


@pytest.mark.parametrize(("rate", "threshold"), [(0.05, 1.0), (0.1, 2.0), (0.3, 4.0), (0.95, 10.0)])
def test_at_most_the_rate_of_the_true_queries_lies_below_the_threshold(rate: float, threshold: float) -> None:
    scores = torch.arange(1.0, 11.0)
    assert threshold_at(scores.flip(0), rate) == threshold
    assert int((scores < threshold).sum()) == math.floor(10 * rate + 1e-9)


def test_even_episodes_choose_and_odd_episodes_measure() -> None:
    """The even episodes hold the true scores 1 … 4, so a quarter lies below 2. Below 2 lie one half of the true scores of the two odd
    episodes, then none: mean 1/4. Of their foreign scores, all and one half: mean 3/4. The deviation of both pairs is √(1/8)."""
    chosen = choose(calibration([[1, 2], [1, 9], [3, 4], [8, 9]], [[0, 0], [0, 1], [0, 0], [1, 5]]), 0.25)
    assert (chosen.threshold, chosen.episodes) == (2.0, 2)
    assert (chosen.true.mean, chosen.foreign.mean) == (0.25, 0.75)
    assert chosen.true.ci95 == pytest.approx(12.7062047 * math.sqrt(1 / 8) / math.sqrt(2))  # Student's t, one degree of freedom
    assert chosen.separation["logit"] == 1.0


def test_the_score_that_separates_best_is_chosen() -> None:
    mixed = ([[1.0, 2.0], [1.0, 2.0]], [[1.0, 2.0], [1.0, 2.0]])
    apart = ([[5.0, 6.0], [5.0, 6.0]], [[1.0, 2.0], [1.0, 2.0]])
    chosen = choose(calibration(*mixed, energy=apart), 0.0)
    assert (chosen.score, chosen.threshold) == ("energy", 5.0)
    assert chosen.separation == {"probability": 0.5, "logit": 0.5, "energy": 1.0}
    assert chosen.rejects(torch.tensor([[4.9, -9.0], [5.1, -9.0]])).tolist() == [True, False]


def test_one_measured_episode_has_no_interval() -> None:
    assert choose(calibration([[1.0], [2.0]], [[0.0], [3.0]]), 0.0).true.ci95 == math.inf


def test_the_interval_of_a_share() -> None:
    """1 of 10: z² = 3.8415, so (0.1 + 0.1921 ∓ 1.96 √(0.009 + 0.0096)) / 1.38415 = (0.2921 ∓ 0.2673) / 1.38415."""
    assert wilson(1, 10) == pytest.approx((0.0179, 0.4042), abs=1e-4)
    assert wilson(0, 0) == (0.0, 1.0)
    assert wilson(0, 5)[0] == 0.0
    assert wilson(5, 5)[1] == 1.0
