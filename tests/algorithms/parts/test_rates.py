"""The rate of a learner at test and its optimizer: their choice by a validation score."""

from __future__ import annotations

import pytest
import torch

from metarun.algorithms.parts.rates import best_choice, check_rates, first_choice
from metarun.errors import UserError
from metarun.types import Params


def test_the_rate_with_the_best_finite_score_is_chosen_and_one_rate_needs_no_score():
    scores = {0.1: -float("inf"), 0.2: 0.5, 0.3: 0.4}
    state = {"test_inner_lr": torch.tensor(0.1)}
    chosen = best_choice("adam", (0.1, 0.2, 0.3), state, lambda tried: {0: 9.0, 1: scores[round(float(tried["test_inner_lr"]), 3)]})
    assert float(chosen["test_inner_lr"]) == pytest.approx(0.2)
    assert set(chosen) == {"test_inner_lr"}
    with pytest.raises(UserError, match="must be one or more rates above 0"):
        check_rates(())


def test_one_rate_needs_no_score_and_holds_in_spite_of_the_rate_of_another_run():
    chosen = best_choice("sgd", (0.2,), {"test_inner_lr": torch.tensor(0.1)}, lambda tried: pytest.fail("no choice"))
    assert float(chosen["test_inner_lr"]) == pytest.approx(0.2)


def test_best_chooses_rate_and_optimizer_together():
    state = first_choice("best", (0.1, 0.2))
    assert {name: round(float(value), 3) for name, value in state.items()} == {"test_inner_lr": 0.1, "test_sgd": 0.0}
    scores = {(0.1, 0.0): 0.3, (0.2, 0.0): 0.5, (0.1, 1.0): 0.7, (0.2, 1.0): 0.4}
    tried: list[tuple[float, float]] = []

    def score(state: Params) -> dict[int, float]:
        tried.append((round(float(state["test_inner_lr"]), 3), float(state["test_sgd"])))
        return {0: scores[tried[-1]]}

    chosen = best_choice("best", (0.1, 0.2), state, score)
    assert sorted(tried) == sorted(scores)
    assert (round(float(chosen["test_inner_lr"]), 3), float(chosen["test_sgd"])) == (0.1, 1.0)
