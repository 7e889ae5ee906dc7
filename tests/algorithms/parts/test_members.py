"""Members that several algorithms share, on a stand-in."""

from __future__ import annotations

import re
from dataclasses import dataclass
from typing import Any

import pytest
import torch

from metarun.algorithms.parts.members import (
    check_least,
    check_not_negative,
    check_positive,
    check_steps,
    last_of_trajectory,
    sample_average,
    steps_of,
)
from metarun.errors import UserError
from metarun.objectives import REGRESSION


@dataclass(frozen=True)
class Walk:
    """Shows its steps as numbers; -1 for the last one in training."""

    inner_steps: int = 2
    test_inner_steps: int | None = None
    objective: Any = REGRESSION

    def trajectory(self, params: Any, state: Any, support: Any, key: Any, *, training: bool = False) -> list[int]:
        return [*range(steps_of(self, training=training)), -1 if training else 99]

    def sampled(self, adapted: Any, x: Any, mask: Any = None) -> torch.Tensor:
        return torch.tensor([[[1.0]], [[3.0]]])

    adapt = last_of_trajectory
    predict = sample_average


def test_adaptation_ends_with_the_trajectory_of_training_or_of_a_test():
    assert Walk().adapt({}, {}, None, None) == 99  # type: ignore[arg-type]
    assert Walk().adapt({}, {}, None, None, training=True) == -1  # type: ignore[arg-type]


def test_the_prediction_is_the_average_of_the_samples():
    assert Walk().predict(None, torch.zeros(1, 1)).tolist() == [[2.0]]


@pytest.mark.parametrize(("test_steps", "expected"), [(None, (2, 2)), (5, (2, 5)), (0, (2, 0))])
def test_a_test_takes_its_own_number_of_steps_where_it_has_one(test_steps: int | None, expected: tuple[int, int]):
    walk = Walk(test_inner_steps=test_steps)
    assert (steps_of(walk, training=True), steps_of(walk, training=False)) == expected


@pytest.mark.parametrize(
    ("check", "words"),
    [
        (lambda: check_steps(Walk(-1)), "algo.inner_steps=-1 and algo.test_inner_steps=None must not be negative"),
        (lambda: check_steps(Walk(1, -2)), "algo.test_inner_steps=-2 must not be negative"),
        (lambda: check_least(Walk(0), 1, "inner_steps"), "algo.inner_steps=0 must be at least 1"),
        (lambda: check_positive(Walk(0), "inner_steps"), "algo.inner_steps=0 must be above 0"),
        (lambda: check_not_negative(Walk(-1), "inner_steps"), "algo.inner_steps=-1 must not be negative"),
    ],
)
def test_an_option_out_of_range_is_a_sentence(check: Any, words: str):
    with pytest.raises(UserError, match=re.escape(words)):
        check()


def test_options_in_range_pass():
    walk = Walk(1)
    check_steps(walk)
    check_least(walk, 1, "inner_steps")
    check_positive(walk, "inner_steps")
    check_not_negative(walk, "inner_steps")
