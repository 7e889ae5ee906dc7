"""Where a loss or a gradient that is not finite arose."""

from __future__ import annotations

import pytest
import torch
from small import algorithm_of, few_shot

from metarun.engine.divergence import check_window, where_diverged
from metarun.errors import NotFiniteError
from metarun.testing import double, start


def test_the_inner_step_after_which_a_task_diverged_is_named() -> None:
    maml = algorithm_of("maml")
    params, state = start(maml)
    episode = double(few_shot().episode("train", 0))
    assert where_diverged(maml, params, state, episode, torch.tensor(0)) == " in the query loss"
    broken = {name: value * torch.nan for name, value in params.items()}
    assert where_diverged(maml, broken, state, episode, torch.tensor(0)) == " after inner step 0"


def test_an_algorithm_without_inner_steps_has_no_such_place() -> None:
    protonet = algorithm_of("protonet")
    assert where_diverged(protonet, *start(protonet), double(few_shot().episode("train", 0)), torch.tensor(0)) == ""


@pytest.mark.parametrize(("name", "told"), [("loss", "the loss"), ("gradient_norm", "the gradient norm")])
def test_a_window_that_is_not_finite_names_its_steps(name: str, told: str) -> None:
    with pytest.raises(NotFiniteError, match=f"{told} is not finite in steps 6 to 10"):
        check_window({"steps": 5, name: float("inf")}, 10)
    check_window({"steps": 5, "loss": 1.0, "gradient_norm": 2.0}, 10)
