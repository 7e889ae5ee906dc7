"""The baseline from random weights: its fit is Adam's, its choice is validation's."""

from __future__ import annotations

import math
from pathlib import Path
from typing import Any

import pytest
import torch
from small import Lines, dense_network, run_engine
from torch.func import functional_call
from torch.nn import functional as F

from metarun import draws, testing
from metarun.algorithms.scratch import Scratch
from metarun.errors import UserError
from metarun.objectives import REGRESSION
from metarun.types import State


def scratch(**options: Any) -> Scratch:
    return Scratch(dense_network(), REGRESSION, **{"inner_lrs": (0.01, 0.1), "max_inner_steps": 4, **options})


def test_the_fit_is_torchs_adam_on_the_whole_support_set():
    algorithm = scratch()
    params, state = testing.start(algorithm)
    support = testing.double(Lines().episode("val", 0)).support
    weights = {name: value.clone().requires_grad_() for name, value in params.items()}
    adam = torch.optim.Adam(weights.values(), lr=0.01)
    path = algorithm.trajectory(params, state, support, draws.key(0))
    assert len(path) == 5
    for number, fitted in enumerate(path):
        # Our Adam counts in float32, whose 0.999 differs in the eighth digit.
        testing.assert_same(fitted.params, weights, f"after {number} steps", tolerance=1e-5)
        adam.zero_grad()
        adam.param_groups[0]["eps"] = 1e-8 / math.sqrt(1 - 0.999 ** (number + 1))
        F.mse_loss(functional_call(dense_network().module, weights, (support.x,)), support.y).backward()
        adam.step()


def test_the_choice_is_the_rate_and_number_of_steps_with_the_best_validation_score():
    algorithm = scratch(inner_lrs=(0.01, 0.1, 1.0), max_inner_steps=10)
    params, state = algorithm.init(draws.key(0))
    scores = {0.01: {0: 0.2, 5: 0.5, 10: 0.4}, 0.1: {0: 0.2, 5: 0.6, 10: 0.7}, 1.0: {0: 0.2, 5: 0.69, 10: 0.1}}
    tried: list[tuple[float, int]] = []

    def score(state: State) -> dict[int, float]:
        tried.append((round(float(state["inner_lr"]), 4), int(state["inner_steps"])))
        return scores[tried[-1][0]]

    chosen = algorithm.choose(params, state, score)
    assert tried == [(0.01, 10), (0.1, 10), (1.0, 10)], "each rate is tried with all steps"
    assert float(chosen["inner_lr"]) == pytest.approx(0.1)
    assert int(chosen["inner_steps"]) == 10


def test_scores_that_are_not_finite_are_never_chosen():
    algorithm = scratch(max_inner_steps=2)
    params, state = algorithm.init(draws.key(0))

    def score(state: State) -> dict[int, float]:
        low = float(state["inner_lr"]) < 0.05
        return {0: 0.1, 1: 0.2, 2: 0.3} if low else {0: math.nan, 1: math.nan, 2: math.nan}

    chosen = algorithm.choose(params, state, score)
    assert (round(float(chosen["inner_lr"]), 4), int(chosen["inner_steps"])) == (0.01, 2)


def test_a_run_chooses_on_validation_and_leaves_the_weights_as_they_were_drawn(tmp_path: Path):
    algorithm = scratch(inner_lrs=(1e-5, 0.1))
    run = run_engine(tmp_path, algorithm, Lines(), steps=0, eval_episodes=4)
    assert float(run.position.state["inner_lr"]) == pytest.approx(0.1)
    testing.assert_same(run.position.params, testing.start(algorithm)[0], "the weights", tolerance=0.0)
    assert run.saved == [("last.pt", 0), ("best.pt", 0), ("last.pt", 0)]
    assert any("val/mse" in line for line in run.lines)


def test_the_outer_loop_has_nothing_to_learn():
    algorithm = scratch()
    params, state = testing.start(algorithm)
    leaves = {name: value.requires_grad_() for name, value in params.items()}
    episode = testing.double(Lines().episode("train", 0))
    loss, aux = algorithm.loss(leaves, state, episode, draws.key(0), torch.tensor(0))
    assert loss.item() == 0.0
    assert all(not gradient.any() for gradient in torch.autograd.grad(loss, list(leaves.values())))
    assert algorithm.update_state(state, aux.state) is state


@pytest.mark.parametrize("options", [{"inner_lrs": ()}, {"max_inner_steps": 0}])
def test_nothing_to_choose_from_is_a_sentence(options: dict[str, Any]):
    with pytest.raises(UserError, match="leave nothing to choose from"):
        scratch(**options)
