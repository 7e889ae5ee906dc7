"""The meta-learned prior's mathematics: a plain loop beside it, the exact posterior of a conjugate model, and numerical derivatives."""

from __future__ import annotations

import math
from typing import Any

import pytest
import torch
from small import conv_network, few_shot
from torch import Tensor, nn
from torch.distributions import Normal, kl_divergence

from metarun import draws, testing
from metarun.algorithms.metaprior import MetaPrior
from metarun.algorithms.parts.gaussians import Gaussian, draw
from metarun.errors import UserError
from metarun.network import Network
from metarun.objectives import CLASSIFICATION, REGRESSION
from metarun.types import Episode, Examples, Params

KEY = draws.key(0, "episode")
STEP = torch.tensor(0)
BETA = 0.4


def linear(inputs: int = 3, **options: Any) -> tuple[MetaPrior, Params, Episode]:
    """A linear model y = w.x, meta-parameters that are all different, and an episode of 6 support and 4 query points."""
    chosen = {"inner_steps": 2, "inner_samples": 3, "train_samples": 2, "kl_weight": BETA, **options}
    algorithm = MetaPrior(Network(nn.Linear(inputs, 1, bias=False)), REGRESSION, **chosen)
    values = {"weight": torch.randn(1, inputs), "log_sigma.weight": -1.0 + 0.3 * torch.randn(1, inputs)}
    values |= {"log_alpha": torch.tensor(-0.7), "log_eta": torch.tensor(-1.2), "log_noise": torch.tensor(-0.4)}
    params: Params = testing.double(values)
    x, y = torch.randn(10, inputs, dtype=torch.float64), torch.randn(10, 1, dtype=torch.float64)
    return algorithm, params, Episode(Examples(x[:6], y[:6]), Examples(x[6:], y[6:]))


def samples(mean: Tensor, log_std: Tensor, key: Tensor, count: int) -> Tensor:
    return draw(Gaussian({"weight": mean}, {"weight": log_std}), key, count)["weight"]


def log_likelihood(w: Tensor, examples: Examples, params: Params) -> Tensor:
    return Normal(examples.x @ w.T, params["log_noise"].exp()).log_prob(examples.y).mean()


def by_hand(params: Params, episode: Episode, *, steps: int = 2, stop: bool = False, predictive: bool = False) -> tuple[Tensor, Tensor]:
    """The two terms of the outer loss by a plain loop with `torch.autograd.grad`. stop: leave the slopes out of the outer derivative."""
    mean, log_std = params["weight"], params["log_sigma.weight"]
    prior = Normal(mean, log_std.exp())
    for number in range(steps):
        here = {name: value.detach().requires_grad_() for name, value in params.items()} if stop else params
        m, r = (value.detach().requires_grad_() for value in (mean, log_std)) if stop else (mean + 0.0, log_std + 0.0)
        drawn = samples(m, r, draws.fold(draws.fold(KEY, "inner"), number), 3)
        expected = -torch.stack([log_likelihood(w, episode.support, here) for w in drawn]).mean()
        divergence = kl_divergence(Normal(m, r.exp()), Normal(here["weight"], here["log_sigma.weight"].exp())).sum()
        slopes = torch.autograd.grad(expected + BETA * divergence / 6, (m, r), create_graph=not stop)
        mean = mean - params["log_alpha"].exp() * (2 * params["log_sigma.weight"]).exp() * slopes[0]
        log_std = log_std - (params["log_eta"].exp() * slopes[1]).tanh()
    drawn = samples(mean, log_std, draws.fold(KEY, "samples"), 2)
    if predictive:
        each = torch.stack([Normal(episode.query.x @ w.T, params["log_noise"].exp()).log_prob(episode.query.y) for w in drawn])
        likelihood = each.logsumexp(dim=0).mean() - math.log(2.0)
    else:
        likelihood = torch.stack([log_likelihood(w, episode.query, params) for w in drawn]).mean()
    return -likelihood, kl_divergence(Normal(mean, log_std.exp()), prior).sum()


def leaves_of(params: Params) -> Params:
    return {name: value.clone().requires_grad_() for name, value in params.items()}


@pytest.mark.parametrize(
    ("options", "by"),
    [
        ({}, {}),
        ({"first_order": True}, {"stop": True}),
        ({"outer_loss": "predictive"}, {"predictive": True}),
        ({"inner_steps": 0}, {"steps": 0}),
    ],
    ids=str,
)
def test_loss_and_gradient_equal_a_plain_loop(options: dict[str, Any], by: dict[str, Any]):
    algorithm, params, episode = linear(**options)
    ours, theirs = leaves_of(params), leaves_of(params)
    loss, aux = algorithm.loss(ours, {}, episode, KEY, STEP)
    likelihood, divergence = by_hand(theirs, episode, **by)
    torch.testing.assert_close(loss, likelihood + BETA * divergence / 4, rtol=1e-12, atol=1e-12)
    torch.testing.assert_close(aux.metrics["loss"], likelihood.detach(), rtol=1e-12, atol=1e-12)
    torch.testing.assert_close(aux.metrics["kl"], divergence.detach(), rtol=1e-12, atol=1e-12)
    found = torch.autograd.grad(loss, list(ours.values()), allow_unused=True)
    wanted = torch.autograd.grad(likelihood + BETA * divergence / 4, list(theirs.values()), allow_unused=True)
    for name, gradient, reference in zip(params, found, wanted, strict=True):
        if reference is None:
            assert gradient is None or (gradient == 0).all()
            continue
        torch.testing.assert_close(gradient, reference, rtol=1e-10, atol=1e-10, msg=lambda text, name=name: f"{name}: {text}")


def test_the_divergence_pulls_from_the_second_step_on():
    """At the prior KL and its gradient are 0, so after one step q does not know its weight, and after two it does."""
    _, params, (support, _) = linear()
    for steps, same in ((1, True), (2, False)):
        ends = [
            linear(kl_weight=weight, samples=1)[0]._infer(params, {}, support, KEY, steps, training=False)[-1].mean["weight"]
            for weight in (0.0, 1.0)
        ]
        assert torch.equal(*ends) == same


def test_a_step_changes_a_deviation_by_a_factor_of_e_at_most_however_steep_the_slope():
    algorithm, params, (support, _) = linear()
    params |= {"log_eta": torch.tensor(9.0, dtype=torch.float64)}
    before, after = algorithm._infer(params, {}, support._replace(y=100 * support.y), KEY, 1, training=False)
    change = (after.log_std["weight"] - before.log_std["weight"]).abs()
    assert float(change.max().detach()) <= 1.0
    assert float(change.max().detach()) > 0.99


def test_many_steps_arrive_at_the_exact_posterior_of_a_conjugate_model():
    """y = w x + noise of variance v, w ~ N(μ, σ²): precision 1/σ² + Σx²/v, mean (μ/σ² + Σxy/v) / precision.

    F is 1/6 of the free energy, whose minimum is that; 4000 samples a step leave it within 2 % of the deviation.
    """
    algorithm, params, (support, _) = linear(inputs=1, kl_weight=1.0, inner_samples=4000)
    params |= {"log_alpha": torch.tensor(0.5, dtype=torch.float64), "log_eta": torch.tensor(-1.0, dtype=torch.float64)}
    q = algorithm._infer(params, {}, support, KEY, 60, training=False)[-1]
    variance, prior = (2 * params["log_noise"]).exp(), (-2 * params["log_sigma.weight"]).exp()
    precision = prior + support.x.square().sum() / variance
    mean = (prior * params["weight"] + (support.x * support.y).sum() / variance) / precision
    std = precision.rsqrt()
    assert abs(float((q.mean["weight"] - mean) / std)) < 0.02
    assert abs(float(q.log_std["weight"].exp() / std) - 1.0) < 0.02


def test_the_gradient_equals_finite_differences_through_a_network_with_batch_norm():
    algorithm = MetaPrior(conv_network(), CLASSIFICATION, inner_steps=2, inner_lr=3.0, train_samples=2)
    params, state = testing.start(algorithm)
    episode = testing.double(few_shot().episode("train", 0))
    leaves = leaves_of(params)
    loss = algorithm.loss(leaves, state, episode, KEY, STEP)[0]
    for name in ("body.second.weight", "head.weight", "body.first_norm.weight", "log_sigma.head.weight", "log_alpha", "log_eta"):
        gradient = torch.autograd.grad(loss, leaves[name], retain_graph=True)[0].flatten()
        place, size = int(gradient.abs().argmax()), 1e-5

        def at(shift: float, name: str = name, place: int = place) -> Tensor:
            moved = params[name].flatten().clone()
            moved[place] += shift
            return algorithm.loss({**params, name: moved.view_as(params[name])}, state, episode, KEY, STEP)[0]

        numeric = (at(size) - at(-size)) / (2 * size)
        torch.testing.assert_close(gradient[place], numeric.detach(), rtol=1e-6, atol=1e-9, msg=lambda text, name=name: f"{name}: {text}")


def test_the_trajectory_begins_at_the_prior_and_its_samples_share_their_noise():
    algorithm, params, (support, query) = linear(samples=4)
    path = algorithm.trajectory(params, {}, support, KEY)
    assert len(path) == 3
    expected = samples(params["weight"], params["log_sigma.weight"], draws.fold(KEY, "samples"), 4)
    assert torch.equal(path[0].weights["weight"], expected)
    outputs = algorithm.sampled(path[-1], query.x)
    torch.testing.assert_close(outputs, torch.stack([query.x @ w.T for w in path[-1].weights["weight"]]), rtol=1e-12, atol=1e-12)
    torch.testing.assert_close(algorithm.predict(path[-1], query.x), outputs.mean(dim=0), rtol=1e-12, atol=1e-12)


def test_samples_hang_on_the_key_alone():
    algorithm, params, (support, query) = linear(samples=4)
    once, again, other = (algorithm.sampled(algorithm.adapt(params, {}, support, key), query.x) for key in (KEY, KEY, KEY + 1))
    assert torch.equal(once, again)
    assert not torch.equal(once, other)


def test_mu_has_the_names_of_mamls_parameters_so_that_a_maml_run_can_be_its_start():
    network = conv_network()
    params, _ = MetaPrior(network, CLASSIFICATION).init(KEY)
    assert set(network.init()[0]) <= set(params)
    assert "log_noise" not in params


@pytest.mark.parametrize(
    ("options", "sentence"),
    [
        ({"inner_steps": -1}, "algo.inner_steps=-1"),
        ({"train_samples": 0}, "algo.train_samples=0 must be at least 1"),
        ({"kl_weight": -1.0}, "algo.kl_weight=-1.0 must not be negative"),
        ({"std_lr": 0.0}, "algo.std_lr=0.0 must be above 0"),
    ],
)
def test_bad_options_are_told_in_a_sentence(options: dict[str, Any], sentence: str):
    with pytest.raises(UserError, match=sentence):
        linear(**options)
