"""PLATIPUS's mathematics: both Gaussians, the divergence and its gradient on least squares, where every gradient has a closed form."""

from __future__ import annotations

import math
from typing import Any

import pytest
import torch
from small import conv_network, few_shot
from torch import Tensor, nn
from torch.distributions import Normal, kl_divergence

from metarun import draws, testing
from metarun.algorithms.maml import Maml
from metarun.algorithms.parts.gaussians import Gaussian, draw
from metarun.algorithms.pmaml import Pmaml
from metarun.errors import UserError
from metarun.network import Network
from metarun.objectives import CLASSIFICATION, REGRESSION
from metarun.types import Episode, Examples, Params

KEY = draws.key(0, "episode")
STEP = torch.tensor(0)
A, BETA = 0.07, 0.4


def least_squares(**options: Any) -> tuple[Pmaml, Params, Episode]:
    """A linear model y = w.x, meta-parameters that are all different, and an episode of 6 support and 4 query points in 3 dimensions."""
    algorithm = Pmaml(Network(nn.Linear(3, 1, bias=False)), REGRESSION, **{"inner_lr": A, "inner_steps": 2, "kl_weight": BETA, **options})
    values = {
        "weight": torch.randn(1, 3),
        "log_sigma.weight": -1.0 + 0.3 * torch.randn(1, 3),
        "log_v.weight": -2.0 + 0.3 * torch.randn(1, 3),
    }
    values |= {"gamma_p": torch.tensor(0.03), "gamma_q": torch.tensor(0.05), "log_noise": torch.tensor(-0.4)}
    params: Params = testing.double(values)
    x, y = torch.randn(10, 3, dtype=torch.float64), torch.randn(10, 1, dtype=torch.float64)
    return algorithm, params, Episode(Examples(x[:6], y[:6]), Examples(x[6:], y[6:]))


def slope(w: Tensor, examples: Examples) -> Tensor:
    """The gradient of |Xw - y|²/B at w (1, 3), that is 2 Xᵀ(Xw - y)/B."""
    x, y = examples.x, examples.y
    return (2.0 * x.T @ (x @ w.T - y) / len(x)).T


def closed_form(params: Params, episode: Episode, steps: int = 2, *, stop: bool = False) -> tuple[Tensor, Tensor]:
    """The two terms of the bound by hand: q from the query set, p from the support set, φ from q's sample and the support set.

    stop: leave the slopes out of the derivative.
    """
    held = (lambda value: value.detach()) if stop else (lambda value: value)
    support, query = episode
    mu, v, sigma = params["weight"], params["log_v.weight"].exp(), params["log_sigma.weight"].exp()
    q = mu - params["gamma_q"] * held(slope(mu, query))
    p = mu - params["gamma_p"] * held(slope(mu, support))
    phi = draw(Gaussian({"weight": q}, {"weight": params["log_v.weight"]}), KEY, 1)["weight"][0]
    for _ in range(steps):
        phi = phi - A * held(slope(phi, support))
    likelihood = -Normal(query.x @ phi.T, params["log_noise"].exp()).log_prob(query.y).mean()
    return likelihood, kl_divergence(Normal(q, v), Normal(p, sigma)).sum()


def leaves_of(params: Params) -> Params:
    return {name: value.clone().requires_grad_() for name, value in params.items()}


@pytest.mark.parametrize("first_order", [False, True])
def test_loss_and_gradient_equal_the_closed_form(first_order: bool):
    """-log p(query | φ) per example plus β KL(q ‖ p) / 4 for four query points, and its derivative by every meta-parameter."""
    algorithm, params, episode = least_squares(first_order=first_order)
    ours, theirs = leaves_of(params), leaves_of(params)
    loss, aux = algorithm.loss(ours, {}, episode, KEY, STEP)
    likelihood, divergence = closed_form(theirs, episode, stop=first_order)
    expected = likelihood + BETA * divergence / 4
    torch.testing.assert_close(loss, expected, rtol=1e-12, atol=1e-12)
    torch.testing.assert_close(aux.metrics["loss"], likelihood.detach(), rtol=1e-12, atol=1e-12)
    torch.testing.assert_close(aux.metrics["kl"], divergence.detach(), rtol=1e-12, atol=1e-12)
    found = torch.autograd.grad(loss, list(ours.values()))
    wanted = torch.autograd.grad(expected, list(theirs.values()))
    for name, gradient, reference in zip(params, found, wanted, strict=True):
        torch.testing.assert_close(gradient, reference, rtol=1e-10, atol=1e-10, msg=lambda text, name=name: f"{name}: {text}")
        assert gradient.abs().max() > 0, name


def test_the_gradient_of_the_divergence_reaches_mu_through_both_steps():
    """The KL is |q - p|² / 2σ² plus what μ is not in, and q - p = γ_p s_p - γ_q s_q with slopes of Hessians H = 2 XᵀX/B:
    its gradient by μ is (γ_p H_p - γ_q H_q) (q - p) / σ². What doubling β adds to the loss's gradient is β/4 of that.
    """
    once, params, episode = least_squares()
    twice = least_squares(kl_weight=2 * BETA)[0]
    gradients = []
    for algorithm in (once, twice):
        leaves = leaves_of(params)
        gradients.append(torch.autograd.grad(algorithm.loss(leaves, {}, episode, KEY, STEP)[0], leaves["weight"])[0])
    (gamma_p, gamma_q), mu = (params["gamma_p"], params["gamma_q"]), params["weight"]
    hessians = [2.0 * part.x.T @ part.x / len(part.x) for part in episode]
    apart = gamma_p * slope(mu, episode.support) - gamma_q * slope(mu, episode.query)
    by_mu = (apart / (2 * params["log_sigma.weight"]).exp()) @ (gamma_p * hessians[0] - gamma_q * hessians[1])
    torch.testing.assert_close(gradients[1] - gradients[0], BETA / 4 * by_mu, rtol=1e-10, atol=1e-12)


def test_the_gradient_equals_finite_differences_through_a_network_with_batch_norm():
    algorithm = Pmaml(conv_network(), CLASSIFICATION, inner_lr=0.3, inner_steps=2, init_gamma=0.1, init_std=0.1)
    params, state = testing.start(algorithm)
    episode = testing.double(few_shot().episode("train", 0))
    leaves = leaves_of(params)
    loss = algorithm.loss(leaves, state, episode, KEY, STEP)[0]
    for name in (
        "body.second.weight",
        "head.weight",
        "body.first_norm.weight",
        "log_v.head.weight",
        "log_sigma.head.weight",
        "gamma_p",
        "gamma_q",
    ):
        gradient = torch.autograd.grad(loss, leaves[name], retain_graph=True)[0].flatten()
        place, size = int(gradient.abs().argmax()), 1e-5

        def at(shift: float, name: str = name, place: int = place) -> Tensor:
            moved = params[name].flatten().clone()
            moved[place] += shift
            return algorithm.loss({**params, name: moved.view_as(params[name])}, state, episode, KEY, STEP)[0]

        numeric = (at(size) - at(-size)) / (2 * size)
        torch.testing.assert_close(gradient[place], numeric.detach(), rtol=1e-6, atol=1e-9, msg=lambda text, name=name: f"{name}: {text}")


def test_at_test_samples_come_from_the_support_set_alone():
    """θ_s = μ - γ_p ∇L(μ, support) + σ ε_s, and the mean of their outputs is the prediction."""
    algorithm, params, (support, query) = least_squares(samples=5)
    before = algorithm.trajectory(params, {}, support, KEY)[0]
    mean = params["weight"] - params["gamma_p"] * slope(params["weight"], support)
    expected = draw(Gaussian({"weight": mean}, {"weight": params["log_sigma.weight"]}), KEY, 5)["weight"]
    torch.testing.assert_close(before.weights["weight"], expected, rtol=1e-12, atol=1e-12)
    outputs = algorithm.sampled(before, query.x)
    torch.testing.assert_close(outputs, torch.stack([query.x @ theta.T for theta in expected]), rtol=1e-12, atol=1e-12)
    torch.testing.assert_close(algorithm.predict(before, query.x), outputs.mean(dim=0), rtol=1e-12, atol=1e-12)


def test_each_sample_is_adapted_by_itself():
    algorithm, params, (support, _) = least_squares(samples=3)
    path = algorithm.trajectory(params, {}, support, KEY)
    assert len(path) == 3
    for number in range(3):
        theta = path[0].weights["weight"][number]
        for adapted in path[1:]:
            theta = theta - A * slope(theta, support)
            torch.testing.assert_close(adapted.weights["weight"][number], theta, rtol=1e-12, atol=1e-12)


def test_without_noise_and_without_its_step_it_is_maml():
    """σ = e⁻⁸⁰ and γ_p = 0: every sample starts at μ."""
    algorithm = Pmaml(conv_network(), CLASSIFICATION, inner_lr=0.3, inner_steps=2, init_gamma=0.0, init_std=math.exp(-80), samples=4)
    params, state = testing.start(algorithm)
    support, query = testing.double(few_shot().episode("test", 0))
    maml = Maml(algorithm.network, CLASSIFICATION, inner_lr=0.3, inner_steps=2)
    expected = maml.predict(maml.adapt(params, state, support, KEY), query.x)
    found = algorithm.predict(algorithm.adapt(params, state, support, KEY), query.x)
    torch.testing.assert_close(found.softmax(dim=-1), expected.softmax(dim=-1), rtol=1e-10, atol=1e-10)


def test_samples_hang_on_the_key_alone():
    algorithm, params, (support, query) = least_squares(samples=4)
    once, again, other = (algorithm.sampled(algorithm.adapt(params, {}, support, key), query.x) for key in (KEY, KEY, KEY + 1))
    assert torch.equal(once, again)
    assert not torch.equal(once, other)
    fewer = least_squares(samples=2)[0]
    torch.testing.assert_close(fewer.sampled(fewer.adapt(params, {}, support, KEY), query.x), once[:2], rtol=1e-12, atol=1e-12)


def test_mu_has_the_names_of_mamls_parameters_so_that_a_maml_run_can_be_its_start():
    network = conv_network()
    params, _ = Pmaml(network, CLASSIFICATION).init(KEY)
    assert set(network.init()[0]) <= set(params)
    assert not any(name.startswith(("log_sigma.", "log_v.")) and "norm" in name for name in params)
    assert "log_noise" not in params


@pytest.mark.parametrize(
    ("options", "sentence"),
    [
        ({"inner_steps": -1}, "algo.inner_steps=-1"),
        ({"samples": 0}, "algo.samples=0 must be at least 1"),
        ({"kl_weight": -1.0}, "algo.kl_weight=-1.0"),
        ({"init_std": 0.0}, "algo.init_std=0.0 and algo.init_noise=1.0 must be above 0"),
    ],
)
def test_bad_options_are_told_in_a_sentence(options: dict[str, Any], sentence: str):
    with pytest.raises(UserError, match=sentence):
        least_squares(**options)
