"""The figures of a stream, from matrices made by hand."""

from __future__ import annotations

import math

import pytest
import torch

from metarun.engine.stream_figures import stream_figures
from metarun.objectives import CLASSIFICATION, REGRESSION
from metarun.types.streams import Trajectory

SIZES = Trajectory(3, 15, 5)
NAN = math.nan
RISING = torch.tensor([[[0.6, NAN, NAN], [0.9, 0.8, NAN], [0.5, 0.9, 0.7]]], dtype=torch.float64)
"""After class 2 the learner is better on class 1 than before, and after class 3 better on class 2."""


def test_forgetting_is_first_minus_last_and_backward_transfer_its_negative():
    """Class 1: 0.6 - 0.5 = 0.1. Class 2: 0.8 - 0.9 = -0.1. The last class does not count."""
    found = stream_figures(CLASSIFICATION, RISING, torch.ones(1, 2), lengths=[2, 3], sizes=SIZES, one_pass=True)
    assert found["forgetting"] == pytest.approx(0.0)
    assert found["backward_transfer"] == pytest.approx(0.0)
    down = stream_figures(CLASSIFICATION, RISING * torch.tensor([1.0, 0.5, 1.0]), torch.ones(1, 1), lengths=[3], sizes=SIZES, one_pass=True)
    assert down["forgetting"] == pytest.approx((0.1 - 0.05) / 2)
    assert down["backward_transfer"] == pytest.approx((-0.1 + 0.05) / 2)


def test_forgetting_from_the_best_compares_with_the_best_score_before_the_last_class():
    """Class 1: 0.9 - 0.5 = 0.4. Class 2: 0.8 - 0.9 = -0.1."""
    found = stream_figures(CLASSIFICATION, RISING, torch.ones(1, 2), lengths=[2, 3], sizes=SIZES, one_pass=True)
    assert found["forgetting_from_best"] == pytest.approx((0.4 - 0.1) / 2)


def test_the_averages_of_a_matrix():
    found = stream_figures(CLASSIFICATION, RISING, torch.tensor([[0.1, 0.2]]), lengths=[2, 3], sizes=SIZES, one_pass=True)
    assert found["average"] == pytest.approx(0.7)
    assert found["learned"] == pytest.approx(0.7)
    assert found["incremental_average"] == pytest.approx((0.6 + 0.85 + 0.7) / 3)
    assert found["held_out"] == pytest.approx([0.85, 0.7])
    assert found["seen"] == pytest.approx([0.1, 0.2])
    assert (found["parts"], found["per_part"], found["held_out_per_part"], found["batch"]) == (3, 15, 5, 1)


def test_a_rising_error_is_forgetting_too():
    """The error on part 1 falls to its best, 0.6 -> 0.9 is worse: the best is the lowest before the last, 0.6, and the last 0.5."""
    found = stream_figures(REGRESSION, RISING, torch.ones(1, 1), lengths=[3], sizes=SIZES, one_pass=True)
    assert found["forgetting"] == pytest.approx((-0.1 + 0.1) / 2)
    assert found["forgetting_from_best"] == pytest.approx((-0.1 + 0.1) / 2)
    worse = stream_figures(REGRESSION, RISING * torch.tensor([1.0, 2.0, 1.0]), torch.ones(1, 1), lengths=[3], sizes=SIZES, one_pass=True)
    assert worse["forgetting"] == pytest.approx((-0.1 + 0.2) / 2)
    assert worse["backward_transfer"] == pytest.approx((0.1 - 0.2) / 2)


def test_one_part_alone_has_nothing_to_forget():
    found = stream_figures(CLASSIFICATION, torch.tensor([[[0.4]]]), torch.ones(1, 1), lengths=[1], sizes=Trajectory(1, 2, 3), one_pass=True)
    assert found["learned"] == pytest.approx(0.4)
    assert found["forgetting"] is None


def test_rows_at_the_lengths_alone_give_no_figure_that_needs_the_score_after_each_part():
    found = stream_figures(CLASSIFICATION, RISING[:, 1:], torch.ones(1, 2), lengths=[2, 3], sizes=SIZES, one_pass=False)
    assert found["held_out"] == pytest.approx([0.85, 0.7])
    assert found["forgetting"] is found["learned"] is None
