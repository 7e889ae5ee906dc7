"""The outer optimizer: its steps, clipping and schedules against hand numbers."""

from __future__ import annotations

import math
from typing import Any

import pytest
import torch

from metarun.engine.optimizer import OuterOptimizer
from metarun.errors import UserError


def sgd(params: dict[str, torch.Tensor], steps: int = 10, **options: Any) -> OuterOptimizer:
    return OuterOptimizer(params, steps, name="SGD", **options)


def test_one_step_of_gradient_descent_moves_against_the_gradient_in_place() -> None:
    weight = torch.tensor([1.0, 2.0])
    sgd({"w": weight}, lr=0.1).update({"w": torch.tensor([10.0, -10.0])}, 0)
    torch.testing.assert_close(weight, torch.tensor([0.0, 3.0]))


def test_the_first_step_of_adam_has_the_size_of_the_learning_rate() -> None:
    """With zero moments the bias-corrected step is lr * g / (|g| + eps)."""
    weight = torch.zeros(3, dtype=torch.float64)
    OuterOptimizer({"w": weight}, 10, lr=0.01).update({"w": torch.tensor([5.0, -0.3, 1e3], dtype=torch.float64)}, 0)
    torch.testing.assert_close(weight, torch.tensor([-0.01, 0.01, -0.01], dtype=torch.float64), rtol=1e-6, atol=0)


def test_update_returns_the_norm_before_clipping_and_leaves_the_gradients_alone() -> None:
    params = {"a": torch.zeros(1), "b": torch.zeros(1)}
    grads = {"b": torch.tensor([4.0]), "a": torch.tensor([3.0])}
    norm = sgd(params, lr=1.0, clip_norm=1.0, clip_value=3.0).update(grads, 0)
    assert float(norm) == pytest.approx(5.0)
    assert (float(grads["a"]), float(grads["b"])) == (3.0, 4.0)


def test_clip_norm_scales_all_gradients_by_one_factor() -> None:
    params = {"a": torch.zeros(1), "b": torch.zeros(1)}
    sgd(params, lr=1.0, clip_norm=1.0).update({"a": torch.tensor([3.0]), "b": torch.tensor([4.0])}, 0)
    assert (float(params["a"]), float(params["b"])) == (pytest.approx(-0.6), pytest.approx(-0.8))


def test_clip_norm_leaves_a_small_gradient_as_it_is() -> None:
    weight = torch.zeros(2)
    sgd({"w": weight}, lr=1.0, clip_norm=1.0).update({"w": torch.tensor([0.25, 0.0])}, 0)
    assert weight.tolist() == [-0.25, 0.0]


def test_clip_value_limits_each_entry() -> None:
    weight = torch.zeros(3)
    sgd({"w": weight}, lr=1.0, clip_value=2.0).update({"w": torch.tensor([5.0, -5.0, 1.0])}, 0)
    assert weight.tolist() == [-2.0, 2.0, -1.0]


@pytest.mark.parametrize(
    ("options", "expected"),
    [
        ({}, {0: 1.0, 50: 1.0, 100: 1.0}),
        ({"schedule": "linear"}, {0: 1.0, 25: 0.75, 50: 0.5, 99: 0.01, 100: 0.0, 200: 0.0}),
        ({"schedule": "linear", "final_lr": 0.5}, {0: 1.0, 50: 0.75, 100: 0.5}),
        ({"schedule": "cosine"}, {0: 1.0, 25: 0.5 + 0.5 * math.cos(math.pi / 4), 50: 0.5, 100: 0.0}),
        ({"schedule": "cosine", "final_lr": 0.2}, {0: 1.0, 50: 0.6, 100: 0.2}),
        ({"schedule": "step", "decay_every": 40, "decay_factor": 0.1}, {0: 1.0, 39: 1.0, 40: 0.1, 79: 0.1, 80: 0.01}),
        ({"warmup_steps": 4}, {0: 0.25, 1: 0.5, 3: 1.0, 4: 1.0, 100: 1.0}),
    ],
)
def test_the_learning_rate_is_this_function_of_the_step(options: dict[str, Any], expected: dict[int, float]) -> None:
    optimizer = sgd({"w": torch.zeros(1)}, 100, lr=1.0, **options)
    assert {step: optimizer.lr_at(step) for step in expected} == pytest.approx(expected)


def test_update_uses_the_rate_of_its_step() -> None:
    weight = torch.zeros(1)
    optimizer = sgd({"w": weight}, 4, lr=1.0, schedule="linear")
    for step in range(4):
        optimizer.update({"w": torch.ones(1)}, step)
    assert float(weight) == -(1.0 + 0.75 + 0.5 + 0.25)


@pytest.mark.parametrize("name", ["Adam", "AdamW", "SGD", "RMSprop", "RAdam"])
def test_a_resumed_optimizer_takes_the_same_steps_to_the_last_bit(name: str) -> None:
    generator = torch.Generator().manual_seed(0)
    grads = [{"a": torch.randn(3, 2, generator=generator), "b": torch.randn(2, generator=generator)} for _ in range(6)]
    options = {"momentum": 0.9} if name == "SGD" else {}

    def fresh(params: dict[str, torch.Tensor]) -> OuterOptimizer:
        return OuterOptimizer(params, 6, name=name, lr=0.05, options=options, schedule="cosine")

    straight = {"a": torch.ones(3, 2), "b": torch.zeros(2)}
    optimizer = fresh(straight)
    for step in range(3):
        optimizer.update(grads[step], step)
    resumed = {key: value.clone() for key, value in straight.items()}
    other = fresh(resumed)
    other.load_state_dict(optimizer.state_dict())
    for step in range(3, 6):
        optimizer.update(grads[step], step)
        other.update(grads[step], step)
    assert all(torch.equal(straight[key], resumed[key]) for key in straight)


def test_an_algorithm_without_parameters_needs_no_optimizer() -> None:
    optimizer = OuterOptimizer({}, 0)
    assert float(optimizer.update({}, 0)) == 0.0
    assert optimizer.state_dict() == {}
    optimizer.load_state_dict({})


@pytest.mark.parametrize(
    ("options", "words"),
    [
        ({"name": "Addam"}, "Did you mean 'Adam'?"),
        ({"name": "LBFGS"}, "no optimizer 'LBFGS' that metarun can use"),
        ({"schedule": "cosin"}, "Did you mean 'cosine'?"),
        ({"options": {"beta": [0.9, 0.9]}}, "optimizer.options.beta is not an option of Adam. Did you mean 'betas'?"),
        ({"options": {1: 2}}, "optimizer.options.1 is not an option of Adam"),
        ({"options": {"betas": [0.9, 2.0]}}, "optimizer.options do not suit Adam"),
        ({"options": {"weight_decay": "x"}}, "optimizer.options do not suit Adam"),
        ({"lr": -1.0}, "optimizer.lr=-1.0 is too small; it must be at least 0"),
        ({"decay_every": 0}, "optimizer.decay_every=0"),
        ({"clip_norm": 0.0}, "optimizer.clip_norm=0.0 must be above 0"),
        ({"lr": math.nan}, "optimizer.lr=nan"),
    ],
)
def test_a_bad_option_is_a_sentence(options: dict[str, Any], words: str) -> None:
    with pytest.raises(UserError) as caught:
        OuterOptimizer({"w": torch.zeros(1)}, 10, **options)
    assert words in str(caught.value)
    assert "\n" not in str(caught.value)


def test_the_name_of_an_optimizer_may_be_written_in_lower_case() -> None:
    weight = torch.zeros(1)
    OuterOptimizer({"w": weight}, 1, name="sgd", lr=1.0).update({"w": torch.ones(1)}, 0)
    assert float(weight) == -1.0


@pytest.mark.parametrize("name", ["Adam", "SGD", "AdamW"])
def test_a_gradient_in_another_memory_format_steps_the_right_entries(name: str) -> None:
    """Convolution weights lie with their channels last, and their gradients may not: entry by entry both must step alike."""
    weight, gradient = torch.randn(4, 3, 2, 2), torch.randn(4, 3, 2, 2)
    plain, last = weight.clone(), weight.clone(memory_format=torch.channels_last)
    for parameter in (plain, last):
        OuterOptimizer({"w": parameter}, 1, name=name, lr=0.1).update({"w": gradient}, 0)
    assert torch.equal(plain, last.contiguous())


def test_adamw_shrinks_a_weight_by_the_rate_times_the_decay_and_adam_steps_against_the_penalty() -> None:
    """With a gradient of zero, AdamW takes w to w (1 - lr wd). Adam sees the gradient wd w, and its first step has the size lr."""
    weights = {name: torch.tensor([2.0], dtype=torch.float64) for name in ("AdamW", "Adam")}
    for name, weight in weights.items():
        OuterOptimizer({"w": weight}, 10, name=name, lr=0.1, options={"weight_decay": 0.5}).update({"w": torch.zeros_like(weight)}, 0)
    torch.testing.assert_close(weights["AdamW"], torch.tensor([1.9], dtype=torch.float64))
    torch.testing.assert_close(weights["Adam"], torch.tensor([1.9], dtype=torch.float64), rtol=1e-6, atol=0)
    assert weights["AdamW"] != weights["Adam"]


@pytest.mark.parametrize("options", [{"weight_decay": 0.5}, {}], ids=["typed", "the decay of torch"])
def test_weight_decay_spares_learned_rates(options: dict[str, float]) -> None:
    params = {"inner_lr.w": torch.ones(1), "w": torch.ones(1)}
    optimizer = OuterOptimizer(params, 10, name="AdamW", lr=0.1, options=options, undecayed=["inner_lr.*"])
    optimizer.update({name: torch.zeros(1) for name in params}, 0)
    assert params["inner_lr.w"] == 1.0
    assert params["w"] < 1.0


def test_a_resumed_optimizer_with_spared_parameters_takes_the_same_steps() -> None:
    """The spared parameter comes first, so torch numbers the parameters in another order than the run does."""

    def made(params: dict[str, torch.Tensor]) -> OuterOptimizer:
        return OuterOptimizer(params, 10, name="AdamW", undecayed=["rate"])

    def grads(step: int) -> dict[str, torch.Tensor]:
        return {"rate": torch.full((), 0.3 + step), "w": torch.full((2,), -1.0 - step)}

    params = {"rate": torch.ones(()), "w": torch.ones(2)}
    first = made(params)
    first.update(grads(0), 0)
    copies = {name: param.clone() for name, param in params.items()}
    second = made(copies)
    second.load_state_dict(first.state_dict())
    for optimizer in (first, second):
        optimizer.update(grads(1), 1)
    assert all(torch.equal(params[name], copies[name]) for name in params)


def test_without_a_decay_all_parameters_are_one_group_in_their_own_order() -> None:
    params = {"rate": torch.ones(()), "w": torch.ones(2)}
    (group,) = OuterOptimizer(params, 10, undecayed=["rate"]).state_dict()["param_groups"]
    assert group["params"] == [0, 1]
