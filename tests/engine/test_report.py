"""The summary of scored episodes against numbers worked out by hand."""

from __future__ import annotations

import math

import pytest
import torch
from torch import Tensor

from metarun.engine.report import calibration_error, summarise
from metarun.objectives import CLASSIFICATION, REGRESSION


def classified(last: list[float]) -> dict[str, Tensor]:
    """What `score_episode` gives for episodes of one certain, right query each, with these scores."""
    count = len(last)
    one = torch.ones(count, 1)
    return {
        "by_step": torch.tensor([[0.2, score] for score in last]),
        "steps": torch.tensor([[0, 5]] * count),
        "nll": torch.full((count,), 0.7),
        "confidence": one,
        "right": one,
        "real": one,
    }


def test_mean_interval_median_and_spread_are_those_of_the_finite_episodes():
    """0.2, 0.4, 0.9: mean 0.5, variance (0.09 + 0.01 + 0.16) / 2 = 0.13, interval 1.96 √(0.13 / 3)."""
    report = summarise(CLASSIFICATION, classified([0.2, math.nan, 0.4, 0.9]))
    assert report.mean == pytest.approx(0.5)
    assert report.std == pytest.approx(math.sqrt(0.13))
    assert report.ci95 == pytest.approx(1.96 * math.sqrt(0.13 / 3))
    assert report.median == pytest.approx(0.4)
    assert (report.episodes, report.diverged) == (4, 1)
    assert report.by_step == pytest.approx([0.2, 0.5])
    assert report.steps == [0, 5]
    assert report.nll == pytest.approx(0.7)
    assert report.metric == "accuracy"
    assert report.baseline is None


def test_the_median_of_an_even_number_is_the_middle_of_the_two_middle_ones():
    assert summarise(CLASSIFICATION, classified([0.1, 0.9, 0.4, 0.6])).median == pytest.approx(0.5)


def test_one_episode_has_no_spread_and_none_finite_gives_no_number():
    assert summarise(CLASSIFICATION, classified([0.3])).ci95 == 0.0
    report = summarise(CLASSIFICATION, classified([math.nan, math.inf]))
    assert math.isnan(report.mean)
    assert math.isnan(report.median)
    assert report.diverged == 2


def test_in_regression_ten_times_worse_than_the_support_mean_is_diverged():
    last, baseline = [0.5, 19.9, 20.1, math.inf, math.nan], [1.0, 2.0, 2.0, 1.0, 1.0]
    scored = {"by_step": torch.tensor(last)[:, None], "steps": torch.zeros(5, 1, dtype=torch.int64), "baseline": torch.tensor(baseline)}
    report = summarise(REGRESSION, scored)
    assert report.diverged == 3
    assert report.mean == pytest.approx((0.5 + 19.9 + 20.1) / 3)
    assert report.baseline == pytest.approx(1.4)
    assert report.nll is None
    assert report.ece is None


def test_calibration_error_by_hand():
    """0.95, 0.93, 0.55 and 0.5 lie in four different bins of 1/15: (|1 - .95| + |0 - .93| + |1 - .55| + |0 - .5|) / 4."""
    confidence, right = torch.tensor([0.95, 0.93, 0.55, 0.5]), torch.tensor([1.0, 0.0, 1.0, 0.0])
    assert calibration_error(confidence, right, torch.ones(4)) == pytest.approx((0.05 + 0.93 + 0.45 + 0.5) / 4)


def test_calibration_errors_in_one_bin_cancel_before_the_size_is_taken():
    """0.95 and 0.97 share a bin: |(1 - .95) + (0 - .97)| / 2."""
    assert calibration_error(torch.tensor([0.95, 0.97]), torch.tensor([1.0, 0.0]), torch.ones(2)) == pytest.approx(0.92 / 2)


def test_calibration_leaves_padding_and_what_is_not_finite_out_and_takes_the_ends():
    confidence, right = torch.tensor([1.0, 0.0, 0.4, math.nan]), torch.tensor([1.0, 0.0, 1.0, 1.0])
    assert calibration_error(confidence, right, torch.tensor([1.0, 1.0, 0.0, 1.0])) == pytest.approx(0.0)
    assert calibration_error(confidence, right, torch.tensor([1.0, 1.0, 1.0, 1.0])) == pytest.approx(0.6 / 3)


def test_accuracies_by_presentation_are_pooled_over_episodes_that_have_them():
    scored = {
        "by_step": torch.tensor([[0.5], [0.5]]),
        "steps": torch.tensor([[0], [0]]),
        "nll": torch.zeros(2),
        "spread": torch.zeros(2),
        "confidence": torch.full((2, 1), 0.5),
        "right": torch.ones(2, 1),
        "real": torch.ones(2, 1),
        "right_by_presentation": torch.tensor([[0.0, 2.0, 0.0, 0.0], [1.0, 2.0, 1.0, 0.0]]),
        "presented": torch.tensor([[2.0, 2.0, 0.0, 0.0], [2.0, 2.0, 2.0, 0.0]]),
    }
    report = summarise(CLASSIFICATION, scored)
    assert report.by_presentation == [0.25, 1.0, 0.5]
    assert report.by_presentation_ci95 is not None
    assert report.by_presentation_ci95[0] == pytest.approx(1.96 * 0.125**0.5 / 2**0.5)
    assert report.by_presentation_ci95[1:] == [0.0, 0.0]


def test_the_summary_leaves_out_the_figures_of_single_episodes():
    report = summarise(CLASSIFICATION, classified([0.2, 0.4]))
    assert report.scores == pytest.approx([0.2, 0.4])
    assert set(vars(report)) - set(report.summary()) == {"scores", "nlls"}
