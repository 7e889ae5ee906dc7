"""Every rule of configs/algo/update, found by listing: the contract and exact meta-gradients. `updates/` tests each rule's formula."""

from __future__ import annotations

from dataclasses import replace
from pathlib import Path
from typing import Any

import pytest
import torch
from small import Lines, composed, conv_network, dense_network, few_shot
from torch import Tensor, nn

from metarun import testing
from metarun.algorithms.gbml import UPDATE, Gbml
from metarun.algorithms.maml import Maml
from metarun.algorithms.updates.metasgd import LR, MetaSgd
from metarun.algorithms.updates.rule import UpdateRule
from metarun.algorithms.updates.sgd import Sgd
from metarun.engine.training import gradients_of
from metarun.episodes import deal
from metarun.errors import UserError
from metarun.layers.norm import MODES
from metarun.network import Network
from metarun.objectives import CLASSIFICATION, REGRESSION
from metarun.types import Episode, Examples, Params
from metarun.wiring.build import build
from metarun.wiring.instantiate import instantiate

KEY = torch.tensor(1)
START = torch.tensor(0)
RULES = sorted(file.stem for file in (Path(__file__).parents[2] / "configs/algo/update").glob("*.yaml"))
LEARNED_RATES = ("sgd", "momentum", "adam")


def rule_of(name: str) -> UpdateRule:
    """Return the rule of a config file, with everything that it can learn.

    The bias before a normalisation has a gradient of rounding noise, which Adam enlarges to 1/eps times its size; so eps is larger here.
    """
    node = composed("algo=gbml", f"algo/update={name}", "task=sinusoid", "backbone=mlp")["algo"]["update"]
    options = ({"learn_lr": True} if name in LEARNED_RATES else {}) | ({"eps": 1e-5} if name == "adam" else {})
    rule: UpdateRule = instantiate(node | options, name="algo.update")
    return rule


def images(rule: UpdateRule, norm: str = "batch", **options: Any) -> Gbml:
    return Gbml(conv_network(norm), CLASSIFICATION, rule, **{"inner_steps": 2, **options})


def image_episode() -> Episode:
    episode: Episode = testing.double(few_shot().episode("train", 0))
    return episode


def elsewhere(params: Params, size: float = 0.1) -> Params:
    """Return parameters away from the start, where matrices are the identity and rates equal."""
    return {name: value + size * torch.randn_like(value) for name, value in params.items()}


def test_the_folder_was_found():
    assert {"sgd", "momentum", "adam", "metasgd", "meta_curvature", "lstm"} <= set(RULES)


@pytest.mark.parametrize("name", RULES)
def test_a_config_with_the_rule_builds(name: str):
    config = composed("algo=gbml", f"algo/update={name}", "task=sinusoid", "backbone=mlp", "backbone.widths=[4]", "device.threads=1")
    algorithm = build(config).algorithm
    assert isinstance(algorithm, Gbml)
    assert type(algorithm.update) is type(rule_of(name))


@pytest.mark.parametrize("name", RULES)
@pytest.mark.parametrize("first_order", [False, True])
def test_the_contract_holds_with_every_rule(name: str, first_order: bool):
    testing.check_algorithm(images(rule_of(name), first_order=first_order), few_shot())
    testing.check_algorithm(Gbml(dense_network(), REGRESSION, rule_of(name), inner_steps=2, first_order=first_order), Lines())


def check_by_finite_differences(algorithm: Gbml, params: Params, state: Params, episode: Episode, held: Params | None = None) -> None:
    """Compare the gradient of the loss by all of `params`, as one vector, with finite differences."""
    sizes = [value.numel() for value in params.values()]

    def loss(vector: Tensor) -> Tensor:
        parts = zip(params.items(), vector.split(sizes), strict=True)
        given = {name: part.reshape(value.shape) for (name, value), part in parts}
        return algorithm.loss({**(held or {}), **given}, state, episode, KEY, START)[0]

    vector = torch.cat([value.flatten() for value in params.values()]).requires_grad_()
    assert torch.autograd.gradcheck(loss, vector, fast_mode=True)


@pytest.mark.parametrize("name", RULES)
@pytest.mark.parametrize("options", [{}, {"inner_steps": 3}, {"adapts": ["head.*"]}, {"adapt_norm": True}], ids=str)
def test_the_second_order_meta_gradient_equals_finite_differences(name: str, options: dict[str, Any]):
    algorithm = images(rule_of(name), **options)
    params, state = testing.start(algorithm)
    check_by_finite_differences(algorithm, elsewhere(params), state, image_episode())


@pytest.mark.parametrize("norm", MODES)
@pytest.mark.parametrize("name", ["adam", "lstm"])
def test_it_does_under_every_normalisation(name: str, norm: str):
    algorithm = images(rule_of(name), norm)
    params, state = testing.start(algorithm)
    check_by_finite_differences(algorithm, elsewhere(params), state, image_episode())


@pytest.mark.parametrize("name", RULES)
def test_in_first_order_the_gradient_of_what_the_rule_learns_is_still_exact_for_one_step(name: str):
    """∇L(θ_0) does not depend on what the rule learns, so that taking it for a constant leaves nothing out."""
    algorithm = images(rule_of(name), inner_steps=1, first_order=True)
    params, state = testing.start(algorithm)
    params = elsewhere(params)
    learned = {key: value for key, value in params.items() if key.startswith(UPDATE)}
    assert learned
    check_by_finite_differences(algorithm, learned, state, image_episode(), held=params)


@pytest.mark.parametrize("name", RULES)
def test_in_first_order_the_network_gets_the_gradient_of_a_rule_that_sees_constants(name: str):
    """One step: dL/dθ is that of L(U(θ, g, l)) by θ, with the slope's g and l held fixed."""
    algorithm = images(rule_of(name), inner_steps=1, first_order=True)
    params, state = testing.start(algorithm)
    params, (support, query) = elsewhere(params), image_episode()
    learned = {key.removeprefix(UPDATE): value for key, value in params.items() if key.startswith(UPDATE)}
    theta = {key: value.clone().requires_grad_() for key, value in params.items() if not key.startswith(UPDATE)}
    slope = algorithm.inner.slope(theta, state, support, training=True, first_order=True)
    chosen = algorithm.inner.chosen(theta)
    changed, _ = algorithm.update.step(learned, chosen, slope, algorithm.update.start(chosen), 0)
    outputs = algorithm.predict(algorithm.network.fit({**theta, **changed}, state, support, training=True), query.x)
    expected = torch.autograd.grad(CLASSIFICATION.loss(outputs, query.y), list(theta.values()))
    leaves = {key: value.clone().requires_grad_() for key, value in params.items()}
    loss, _ = algorithm.loss(leaves, state, Episode(support, query), KEY, START)
    found = torch.autograd.grad(loss, [leaves[key] for key in theta])
    torch.testing.assert_close(found, expected, rtol=1e-10, atol=1e-12)


@pytest.mark.parametrize("name", RULES)
def test_recomputed_inner_steps_give_the_same_gradient(name: str):
    algorithm = images(rule_of(name))
    params, state = testing.start(algorithm)
    batch = testing.double(deal(few_shot(), "train", torch.arange(2)))
    plain, recomputed = (
        gradients_of(replace(algorithm, recompute=flag), params, state, batch, torch.arange(2), START) for flag in (False, True)
    )
    testing.assert_same(plain, recomputed, "recompute", tolerance=1e-12)


@pytest.mark.parametrize("name", RULES)
def test_a_gradient_of_exactly_zero_leaves_the_meta_gradient_finite(name: str):
    """An input that is always 0 gives its weights the gradient 0 at every step, and so second moments of 0."""
    algorithm = Gbml(Network(nn.Linear(3, 1)), REGRESSION, rule_of(name), inner_steps=3)
    params, state = testing.start(algorithm)
    x, y = torch.randn(8, 3, dtype=torch.float64), torch.randn(8, 1, dtype=torch.float64)
    x[:, 1] = 0.0
    leaves = {key: value.clone().requires_grad_() for key, value in params.items()}
    loss, _ = algorithm.loss(leaves, state, Episode(Examples(x[:5], y[:5]), Examples(x[5:], y[5:])), KEY, START)
    gradients = torch.autograd.grad(loss, list(leaves.values()), materialize_grads=True)
    assert all(gradient.isfinite().all() for gradient in gradients)


@pytest.mark.parametrize(
    "options", [{"inner_steps": 2}, {"first_order": True}, {"inner_loss": "sum_over_shot", "adapt_norm": True}], ids=str
)
def test_with_gradient_descent_it_is_maml(options: dict[str, Any]):
    gbml, maml = images(Sgd(0.3), **options), Maml(conv_network(), CLASSIFICATION, inner_lr=0.3, **{"inner_steps": 2, **options})
    params, state = testing.start(maml)
    batch, keys = testing.first_episodes(few_shot(), 2)
    found, expected = (gradients_of(each, params, state, batch, keys, START) for each in (gbml, maml))
    testing.assert_same(found, expected, "the meta-gradient", tolerance=0.0)


def test_the_meta_gradient_of_metasgds_rates_is_minus_support_times_query_gradient():
    """One step: dL(θ - α ∘ g)/dα = -g ∘ ∇L(θ', query)."""
    algorithm = images(MetaSgd(), inner_steps=1)
    params, state = testing.start(algorithm)
    support, query = image_episode()
    leaves = {key: value.clone().requires_grad_() for key, value in params.items()}
    loss, _ = algorithm.loss(leaves, state, Episode(support, query), KEY, START)
    theta = {key: value for key, value in params.items() if not key.startswith(UPDATE)}
    at_start = algorithm.inner.slope(theta, state, support, training=True).gradients
    adapted = algorithm.adapt(params, state, support, KEY, training=True).params
    at_end = algorithm.inner.slope(adapted, state, query, training=True).gradients
    found = torch.autograd.grad(loss, [leaves[UPDATE + LR + name] for name in at_start])
    for name, gradient in zip(at_start, found, strict=True):
        torch.testing.assert_close(gradient, -at_start[name] * at_end[name], rtol=1e-9, atol=1e-12)


@pytest.mark.parametrize(
    ("make", "words"),
    [
        (lambda: images(Sgd(), inner_steps=-1), "algo.inner_steps=-1"),
        (lambda: images(Sgd(), adapts=["haed.*"]), "matches none of the parameters"),
    ],
)
def test_a_bad_option_is_a_sentence(make: Any, words: str):
    with pytest.raises(UserError, match=words):
        make()
