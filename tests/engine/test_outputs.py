"""Which inner steps are scored, and the score of outputs that are not finite."""

from __future__ import annotations

import math

import pytest
import torch

from metarun.engine.outputs import baseline_of, figures_of_steps, scored_steps
from metarun.errors import UserError
from metarun.objectives import CLASSIFICATION, REGRESSION
from metarun.types import Examples


@pytest.mark.parametrize(
    ("last", "by_step", "steps"),
    [
        (0, "thin", [0]),
        (3, "all", [0, 1, 2, 3]),
        (3, "thin", [0, 1, 2, 3]),
        (0, "last", [0]),
        (30, "last", [30]),
        (30, "thin", [0, 1, 2, 5, 10, 20, 30]),
        (50, "thin", [0, 1, 2, 5, 10, 20, 50]),
        (1200, "thin", [0, 1, 2, 5, 10, 20, 50, 100, 200, 500, 1000, 1200]),
    ],
)
def test_a_long_adaptation_is_scored_at_the_steps_that_were_asked_for(last: int, by_step: str, steps: list[int]):
    assert scored_steps(last, by_step) == steps


def test_another_inner_step_is_scored_beside_the_thin_ones():
    assert scored_steps(20, "thin", 7) == [0, 1, 2, 5, 7, 10, 20]
    assert scored_steps(20, "last", 7) == [7, 20]
    assert scored_steps(20, "last", 20) == [20]
    with pytest.raises(UserError, match="after 21 inner steps is asked for, but the algorithm takes 20"):
        scored_steps(20, "thin", 21)


def test_a_logit_that_is_not_finite_is_a_wrong_answer_of_confidence_one_and_padding_does_not_count():
    logits = torch.tensor([[9.0, 0.0], [math.nan, 0.0], [math.nan, 0.0]])
    query = Examples(torch.zeros(3, 1), torch.eye(2)[[0, 0, 0]], torch.tensor([True, True, False]))
    found = figures_of_steps(CLASSIFICATION, [logits[[1, 1, 1]], logits], [0, 4], query)
    assert found["by_step"].tolist() == [0.0, 0.5]
    assert found["steps"].tolist() == [0, 4]
    assert (found["right"].tolist(), found["confidence"].tolist()[1], float(found["finite"])) == ([1.0, 0.0, 0.0], 1.0, 0.0)


def test_the_baseline_of_a_regression_is_the_error_of_the_mean_support_target():
    support = Examples(torch.zeros(3, 1), torch.tensor([[1.0], [3.0], [99.0]]), torch.tensor([True, True, False]))
    query = Examples(torch.zeros(2, 1), torch.tensor([[2.0], [5.0]]))
    assert float(baseline_of(REGRESSION, support, query)) == pytest.approx(4.5)
