"""The moments of an optimizer out of a checkpoint: they fit, or a sentence says why not, before a kernel reads them."""

from __future__ import annotations

import copy
from collections.abc import Callable
from typing import Any

import pytest
import torch
from torch import Tensor

from metarun.engine.optimizer import OuterOptimizer
from metarun.errors import UserError

SHAPES = {"w": (3, 4), "b": (4,), "k": (2, 3, 2, 2), "s": ()}
OPTIMIZERS = ["Adam", "AdamW", "SGD", "RMSprop", "Adagrad", "Adadelta", "Adamax", "NAdam", "RAdam", "ASGD", "Rprop", "Adafactor"]


def stepped(name: str = "Adam", steps: int = 2, **options: Any) -> OuterOptimizer:
    params = {key: torch.ones(shape).requires_grad_() for key, shape in SHAPES.items()}
    optimizer = OuterOptimizer(params, 10, name=name, options=options)
    for step in range(steps):
        optimizer.update({key: torch.full(shape, 0.5) for key, shape in SHAPES.items()}, step)
    return optimizer


@pytest.mark.parametrize("name", OPTIMIZERS)
@pytest.mark.parametrize("steps", [0, 2])
def test_the_state_of_every_optimizer_comes_back(name: str, steps: int) -> None:
    before = stepped(name, steps)
    after = stepped(name, 0)
    after.load_state_dict(copy.deepcopy(before.state_dict()))
    was, now = before.state_dict()["state"], after.state_dict()["state"]
    assert was.keys() == now.keys()
    for number, entries in was.items():
        assert entries.keys() == now[number].keys()
        for key, value in entries.items():
            assert torch.equal(torch.as_tensor(value), torch.as_tensor(now[number][key]))


def test_options_change_which_moments_are_needed() -> None:
    plain, momentum, amsgrad = stepped("SGD").state_dict(), stepped("SGD", momentum=0.9).state_dict(), stepped(amsgrad=True).state_dict()
    stepped("SGD", 0, momentum=0.9).load_state_dict(momentum)
    for state, other in ((momentum, stepped()), (amsgrad, stepped()), (plain, stepped())):
        if state is not plain:
            with pytest.raises(UserError, match="does not fit its config"):
                other.load_state_dict(state)


def first(change: Callable[[Tensor], Any], key: str = "exp_avg") -> Callable[[dict[str, Any]], None]:
    def apply(state: dict[str, Any]) -> None:
        state["state"][0][key] = change(state["state"][0][key])

    return apply


HOSTILE: dict[str, Callable[[dict[str, Any]], Any]] = {
    "one number": first(lambda value: torch.zeros(1)),
    "no numbers": first(lambda value: torch.zeros(0)),
    "a scalar": first(lambda value: torch.zeros(())),
    "one row too few": first(lambda value: value[:-1]),
    "transposed": first(lambda value: value.mT.contiguous()),
    "float64": first(lambda value: value.double()),
    "whole numbers": first(lambda value: value.long()),
    "half": first(lambda value: value.half()),
    "a list": first(lambda value: value.tolist()),
    "text": first(lambda value: "x"),
    "nothing": first(lambda value: None),
    "a small second moment": first(lambda value: torch.zeros(1), "exp_avg_sq"),
    "a negative step": first(lambda value: torch.tensor(-3.0), "step"),
    "an infinite step": first(lambda value: torch.tensor(float("inf")), "step"),
    "no step": first(lambda value: torch.tensor(float("nan")), "step"),
    "a step for each number": first(lambda value: torch.ones(3, 4), "step"),
    "a step of plain type": first(lambda value: 2, "step"),
    "a missing moment": lambda state: state["state"][0].pop("exp_avg"),
    "a further moment": lambda state: state["state"][0].update(max_exp_avg_sq=torch.zeros(3, 4)),
    "moments of another parameter": lambda state: state["state"].update({4: state["state"][0]}),
    "a name in place of a number": lambda state: state["state"].update(w=state["state"][0]),
    "entries that are a list": lambda state: state["state"].update({0: [1]}),
    "no state": lambda state: state.pop("state"),
    "no groups": lambda state: state.pop("param_groups"),
    "no group": lambda state: state.update(param_groups=[]),
    "two groups": lambda state: state["param_groups"].append(copy.deepcopy(state["param_groups"][0])),
    "a group without parameters": lambda state: state["param_groups"][0].pop("params"),
    "a group of fewer parameters": lambda state: state["param_groups"][0].update(params=[0, 1]),
    "a group of one parameter many times": lambda state: state["param_groups"][0].update(params=[0, 0, 0, 0]),
    "a group that is text": lambda state: state.update(param_groups=["x"]),
}


@pytest.mark.parametrize("kind", HOSTILE)
def test_moments_that_do_not_fit_are_a_sentence_and_change_nothing(kind: str) -> None:
    optimizer = stepped()
    state = copy.deepcopy(optimizer.state_dict())
    before = copy.deepcopy(state)
    HOSTILE[kind](state)
    with pytest.raises(UserError, match="the state of the optimizer in the checkpoint does not fit its config") as caught:
        optimizer.load_state_dict(state)
    assert "\n" not in str(caught.value)
    for number, entries in before["state"].items():
        for key, value in entries.items():
            assert torch.equal(optimizer.state_dict()["state"][number][key], value)


def test_the_options_in_a_checkpoint_have_no_effect() -> None:
    state = copy.deepcopy(stepped().state_dict())
    state["param_groups"][0].update(betas=("a", 3), eps=None, fused="yes", foreach=True, lr=torch.ones(7), maximize=True)
    optimizer = stepped(steps=0)
    optimizer.load_state_dict(state)
    (group,) = optimizer.state_dict()["param_groups"]
    assert (group["betas"], group["maximize"], group["lr"]) == ((0.9, 0.999), False, 1e-3)


def test_moments_with_other_strides_are_laid_out_as_their_parameter() -> None:
    """Fused kernels ignore strides: with the strides below, they would mix the moments of different numbers."""
    optimizer = stepped()
    state = copy.deepcopy(optimizer.state_dict())
    moment = torch.arange(24.0).reshape(2, 3, 2, 2)
    state["state"][2]["exp_avg"] = moment.to(memory_format=torch.channels_last)
    optimizer.load_state_dict(state)
    kept = optimizer.state_dict()["state"][2]["exp_avg"]
    assert torch.equal(kept, moment)
    assert kept.stride() == moment.stride()


def test_moments_that_are_not_finite_are_the_run_s_own_matter() -> None:
    state = copy.deepcopy(stepped().state_dict())
    state["state"][0]["exp_avg"].fill_(float("nan"))
    optimizer = stepped(steps=0)
    optimizer.load_state_dict(state)
    assert optimizer.state_dict()["state"][0]["exp_avg"].isnan().all()


def test_the_optimizer_shares_no_memory_with_the_state_that_it_continues_from() -> None:
    state = stepped().state_dict()
    kept = copy.deepcopy(state)
    optimizer = stepped(steps=0)
    optimizer.load_state_dict(state)
    optimizer.update({key: torch.ones(shape) for key, shape in SHAPES.items()}, 2)
    for number, entries in kept["state"].items():
        assert all(torch.equal(state["state"][number][key], value) for key, value in entries.items())
