"""The support loss and its gradient, against autograd, and the parameters that adapt."""

from __future__ import annotations

from typing import Any

import pytest
import torch
from small import conv_network, few_shot

from metarun import testing
from metarun.algorithms.parts.inner_loop import InnerLoop, constant
from metarun.errors import UserError
from metarun.objectives import CLASSIFICATION
from metarun.types import Examples, Params, State


def inner(**options: Any) -> InnerLoop:
    return InnerLoop(conv_network(), CLASSIFICATION, **options)


def start() -> tuple[Params, State, Examples]:
    params, state = (testing.double(part) for part in conv_network().init())
    return params, state, testing.double(few_shot().episode("train", 0)).support


def test_patterns_choose_the_parameters_and_normalisation_is_held_unless_it_may_adapt():
    params, _, _ = start()
    normalisation = conv_network().norm_params
    assert set(inner().chosen(params)) == set(params) - set(normalisation)
    assert set(inner(adapt_norm=True).chosen(params)) == set(params)
    assert set(inner(adapts=("head.*",)).chosen(params)) == {name for name in params if name.startswith("head.")}


def test_the_slope_is_the_gradient_of_the_support_loss_by_what_adapts():
    params, state, support = start()
    slope = inner().slope(params, state, support, training=True)
    leaves = {name: value.clone().requires_grad_() for name, value in params.items()}
    loss, _ = inner().loss(leaves, state, support, training=True)
    expected = torch.autograd.grad(loss, [leaves[name] for name in slope.gradients])
    testing.assert_same(list(slope.gradients.values()), list(expected), "the gradient")
    testing.assert_same(slope.loss, loss.detach(), "the loss")


def test_in_first_order_no_outer_gradient_flows_through_the_slope():
    params, state, support = start()
    for first_order in (False, True):
        leaves = {name: value.clone().requires_grad_() for name, value in params.items()}
        slope = inner().slope(leaves, state, support, training=True, first_order=first_order)
        assert all(gradient.requires_grad != first_order for gradient in slope.gradients.values())


def test_the_sum_over_shot_is_the_mean_times_the_ways():
    """The sum over N K examples divided by K shots is N times their mean."""
    params, state, support = start()
    mean, _ = inner().loss(params, state, support, training=True)
    scaled, _ = inner(inner_loss="sum_over_shot").loss(params, state, support, training=True)
    torch.testing.assert_close(scaled, support.y.shape[1] * mean)


def test_statistics_are_collected_in_training_only_and_only_if_asked_for():
    params, state, support = start()
    for training, collect in ((True, True), (True, False), (False, True)):
        statistics = inner().slope(params, state, support, training=training, collect=collect).statistics
        assert bool(statistics) == (training and collect)


def test_a_constant_has_no_gradient():
    held = constant({"a": torch.ones(2, requires_grad=True)})["a"]
    assert not held.requires_grad


@pytest.mark.parametrize(
    ("options", "words"),
    [
        ({"inner_loss": "meen"}, r"algo\.inner_loss=meen is unknown; it must be one of mean, sum_over_shot"),
        ({"adapts": ("haed.*",)}, r"algo\.adapts=\['haed\.\*'\] matches none of the parameters"),
    ],
)
def test_a_bad_option_is_a_sentence(options: dict[str, Any], words: str):
    with pytest.raises(UserError, match=words):
        inner(**options).check()
