"""The summary of scored episodes against numbers worked out by hand."""

from __future__ import annotations

import math

import pytest
import torch
from torch import Tensor

from metarun.engine.report import calibration_error, summarise
from metarun.objectives import CLASSIFICATION, REGRESSION


def classified(last: list[float], finite: list[float] | None = None) -> dict[str, Tensor]:
    """What `score_episode` gives for episodes of one certain, right query each, with these scores."""
    count = len(last)
    one = torch.ones(count, 1)
    return {
        "by_step": torch.tensor([[0.2, score] for score in last]),
        "steps": torch.tensor([[0, 5]] * count),
        "finite": torch.tensor(finite or [1.0] * count),
        "nll": torch.full((count,), 0.7),
        "confidence": one,
        "right": one,
        "real": one,
    }


def regressed(last: list[float], baseline: list[float] | None = None) -> dict[str, Tensor]:
    """What `score_episode` gives for episodes of a regression with these errors."""
    count = len(last)
    return {
        "by_step": torch.tensor([[3.0, error] for error in last]),
        "steps": torch.tensor([[0, 1]] * count),
        "finite": torch.ones(count),
        "baseline": torch.tensor(baseline or [1.0] * count),
    }


def test_mean_interval_median_and_spread_are_those_of_all_episodes():
    """0.2, 0.4, 0.9: mean 0.5, variance (0.09 + 0.01 + 0.16) / 2 = 0.13, interval 4.3027 √(0.13 / 3) by Student's t."""
    report = summarise(CLASSIFICATION, classified([0.2, 0.4, 0.9]))
    assert report.mean == pytest.approx(0.5)
    assert report.std == pytest.approx(math.sqrt(0.13))
    assert report.ci95 == pytest.approx(4.3026527 * math.sqrt(0.13 / 3))
    assert report.median == pytest.approx(0.4)
    assert (report.episodes, report.diverged, report.not_finite) == (3, 0, 0)
    assert report.by_step == pytest.approx([0.2, 0.5])
    assert report.median_by_step == pytest.approx([0.2, 0.4])
    assert report.steps == [0, 5]
    assert report.nll == pytest.approx(0.7)
    assert report.metric == "accuracy"
    assert (report.baseline, report.finite_mean, report.finite_ci95) == (None, None, None)


def test_an_episode_with_outputs_that_are_not_finite_stays_in_the_accuracy_and_is_counted():
    """Eight episodes at 0.8 and two whose outputs are not finite, which are wrong answers: 0.64, and not 0.8."""
    report = summarise(CLASSIFICATION, classified([0.8] * 8 + [0.0] * 2, [1.0] * 8 + [0.0] * 2))
    assert report.mean == pytest.approx(0.64)
    assert (report.diverged, report.not_finite) == (2, 2)
    assert report.ci95 == pytest.approx(2.2621572 * math.sqrt((8 * 0.16**2 + 2 * 0.64**2) / 9) / math.sqrt(10), rel=1e-6)


def test_a_likelihood_that_is_not_finite_stays_in_its_mean():
    scored = classified([0.8, 0.2]) | {"nll": torch.tensor([0.5, math.nan])}
    report = summarise(CLASSIFICATION, scored)
    assert (report.nll, report.nll_ci95) == (math.inf, math.inf)
    assert report.nlls == [0.5, math.inf]


def test_the_median_of_an_even_number_is_the_middle_of_the_two_middle_ones():
    assert summarise(CLASSIFICATION, classified([0.1, 0.9, 0.4, 0.6])).median == pytest.approx(0.5)


def test_one_episode_has_no_interval():
    assert math.isnan(summarise(CLASSIFICATION, classified([0.3])).ci95)


def test_one_task_that_is_not_finite_makes_the_mean_of_a_regression_infinite():
    """Beside the infinite mean stand the mean over the finite tasks, the median over all and the count."""
    report = summarise(REGRESSION, regressed([0.5, 0.1, math.nan, 0.3, math.inf]))
    assert (report.mean, report.ci95) == (math.inf, math.inf)
    assert report.by_step == [3.0, math.inf]
    assert report.finite_mean == pytest.approx(0.3)
    assert report.finite_ci95 == pytest.approx(4.3026527 * 0.2 / math.sqrt(3))
    assert report.median == pytest.approx(0.5), "0.1, 0.3, 0.5, ∞, ∞"
    assert report.median_by_step == pytest.approx([3.0, 0.5])
    assert (report.not_finite, report.diverged) == (2, 2)
    assert report.scores == pytest.approx([0.5, 0.1, math.inf, 0.3, math.inf])


def test_where_no_task_is_finite_there_is_no_mean_over_finite_tasks():
    report = summarise(REGRESSION, regressed([math.nan, math.inf]))
    assert report.mean == report.median == math.inf
    assert report.finite_mean is not None
    assert math.isnan(report.finite_mean)


def test_in_regression_ten_times_worse_than_the_support_mean_is_diverged():
    """The mean of the baselines is 1.4: an episode with a baseline of 1 diverges above 14, one with a baseline of 2 above 20."""
    report = summarise(REGRESSION, regressed([0.5, 19.9, 20.1, math.inf, math.nan], [1.0, 2.0, 2.0, 1.0, 1.0]))
    assert (report.diverged, report.not_finite) == (3, 2)
    assert summarise(REGRESSION, regressed([13.9, 14.1, 0.0, 0.0, 0.0], [1.0, 1.0, 1.0, 2.0, 2.0])).diverged == 1
    assert report.finite_mean == pytest.approx((0.5 + 19.9 + 20.1) / 3)
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


def test_calibration_leaves_padding_out_and_takes_the_ends():
    confidence, right = torch.tensor([1.0, 0.0, 0.4]), torch.tensor([1.0, 0.0, 1.0])
    assert calibration_error(confidence, right, torch.tensor([1.0, 1.0, 0.0])) == pytest.approx(0.0)
    assert calibration_error(confidence, right, torch.tensor([1.0, 1.0, 1.0])) == pytest.approx(0.6 / 3)


def test_accuracies_by_presentation_are_pooled_over_episodes_that_have_them():
    scored = {
        "by_step": torch.tensor([[0.5], [0.5]]),
        "steps": torch.tensor([[0], [0]]),
        "finite": torch.ones(2),
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
    assert report.by_presentation_ci95[0] == pytest.approx(12.7062047 * 0.125**0.5 / 2**0.5)
    assert report.by_presentation_ci95[1] == 0.0
    assert math.isnan(report.by_presentation_ci95[2]), "one episode alone has a third presentation"


def test_the_summary_leaves_out_the_figures_of_single_episodes():
    report = summarise(CLASSIFICATION, classified([0.2, 0.4]))
    assert report.scores == pytest.approx([0.2, 0.4])
    hidden = {"scores", "nlls", "joint_nlls", "target_errors", "families", "rating_scores", "stream_matrix"}
    assert set(vars(report)) - set(report.summary()) == hidden
