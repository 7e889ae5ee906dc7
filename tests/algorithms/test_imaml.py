"""iMAML against the exact implicit gradient: in closed form on least squares, by finite differences on a network."""

from __future__ import annotations

from typing import Any

import pytest
import torch
from small import Lines, conv_network, dense_network, few_shot
from torch import Tensor, nn

from metarun import testing
from metarun.algorithms.imaml import Imaml, conjugate_gradients
from metarun.errors import UserError
from metarun.network import Network
from metarun.objectives import CLASSIFICATION, REGRESSION
from metarun.types import Episode, Examples, Params

KEY = torch.tensor(1)
STEP = torch.tensor(0)
LAMBDA = 1.7


def least_squares(**options: Any) -> tuple[Imaml, Tensor, Episode]:
    """A linear model y = w.x, its weight w (3,), and one episode of 6 support and 4 query points."""
    algorithm = Imaml(
        Network(nn.Linear(3, 1, bias=False)),
        REGRESSION,
        **{"inner_lr": 0.1, "inner_steps": 300, "strength": LAMBDA, "cg_steps": 3, **options},
    )
    x, y = torch.randn(10, 3, dtype=torch.float64), torch.randn(10, 1, dtype=torch.float64)
    return algorithm, torch.randn(3, dtype=torch.float64), Episode(Examples(x[:6], y[:6]), Examples(x[6:], y[6:]))


def optimum(theta: Tensor, episode: Episode) -> Tensor:
    """The minimum over φ of |Xφ - y|²/B + λ/2 |φ - θ|², where (H + λ) φ = 2 Xᵀy/B + λ θ with H = 2 XᵀX/B."""
    (x, y), count = episode.support[:2], len(episode.support.x)
    return torch.linalg.solve(hessian(episode) + LAMBDA * torch.eye(3).double(), 2.0 * x.T @ y[:, 0] / count + LAMBDA * theta)


def hessian(episode: Episode) -> Tensor:
    x = episode.support.x
    return 2.0 * x.T @ x / len(x)


def value_and_gradient(algorithm: Imaml, theta: Tensor, episode: Episode) -> tuple[Tensor, Tensor]:
    leaf = theta.clone().requires_grad_()
    loss, _ = algorithm.loss({"weight": leaf[None]}, {}, episode, KEY, STEP)
    return loss.detach(), torch.autograd.grad(loss, leaf)[0]


def test_the_inner_loop_ends_at_the_optimum_of_the_regularised_loss():
    algorithm, theta, episode = least_squares()
    adapted = algorithm.adapt({"weight": theta[None]}, {}, episode.support, KEY).params["weight"][0]
    torch.testing.assert_close(adapted, optimum(theta, episode), rtol=1e-10, atol=1e-10)


def test_the_gradient_is_the_exact_implicit_one_on_a_quadratic():
    """dφ*/dθ = λ (H + λ)⁻¹ by the formula above, which is symmetric, so that dL/dθ = (I + H/λ)⁻¹ ∇L(φ*, query). In 3 dimensions
    three steps of conjugate gradients solve it.
    """
    algorithm, theta, episode = least_squares()
    phi, (x, y) = optimum(theta, episode), episode.query[:2]
    residual = x @ phi - y[:, 0]
    slope = 2.0 * x.T @ residual / len(x)
    expected = torch.linalg.solve(torch.eye(3).double() + hessian(episode) / LAMBDA, slope)
    loss, gradient = value_and_gradient(algorithm, theta, episode)
    torch.testing.assert_close(loss, residual.square().mean(), rtol=1e-10, atol=1e-10)
    torch.testing.assert_close(gradient, expected, rtol=1e-9, atol=1e-9)


def test_damping_adds_to_lambda_in_the_linear_system_and_nowhere_else():
    algorithm, theta, episode = least_squares(damping=2.5)
    phi, (x, y) = optimum(theta, episode), episode.query[:2]
    slope = 2.0 * x.T @ (x @ phi - y[:, 0]) / len(x)
    expected = torch.linalg.solve(torch.eye(3).double() + hessian(episode) / (LAMBDA + 2.5), slope)
    torch.testing.assert_close(value_and_gradient(algorithm, theta, episode)[1], expected, rtol=1e-9, atol=1e-9)


def test_without_conjugate_gradients_it_is_the_query_gradient_at_the_optimum():
    algorithm, theta, episode = least_squares(cg_steps=0)
    phi, (x, y) = optimum(theta, episode), episode.query[:2]
    expected = 2.0 * x.T @ (x @ phi - y[:, 0]) / len(x)
    torch.testing.assert_close(value_and_gradient(algorithm, theta, episode)[1], expected, rtol=1e-9, atol=1e-9)


def as_vector(algorithm: Imaml, params: Params, episode: Episode) -> Any:
    """Return the loss as a function of all parameters as one vector."""
    sizes = [value.numel() for value in params.values()]

    def loss(vector: Tensor) -> Tensor:
        parts = zip(params.items(), vector.split(sizes), strict=True)
        return algorithm.loss({name: part.reshape(value.shape) for (name, value), part in parts}, {}, episode, KEY, STEP)[0]

    return loss


def test_the_gradient_equals_finite_differences_of_the_query_loss_at_the_optimum():
    """On a network with tanh, with enough steps of both kinds; the loss's value is the query loss itself."""
    algorithm = Imaml(dense_network(), REGRESSION, inner_lr=0.05, inner_steps=400, strength=6.0, cg_steps=40)
    params, _ = testing.start(algorithm)
    episode: Episode = testing.double(Lines().episode("train", 0))
    vector = torch.cat([value.flatten() for value in params.values()]).requires_grad_()
    assert torch.autograd.gradcheck(as_vector(algorithm, params, episode), vector, fast_mode=True, rtol=1e-4)


def test_no_gradient_runs_through_the_inner_steps():
    algorithm = Imaml(conv_network(), CLASSIFICATION, inner_steps=3)
    params, state = testing.start(algorithm)
    leaves = {name: value.requires_grad_() for name, value in params.items()}
    support = testing.double(few_shot().episode("train", 0)).support
    adapted = algorithm.adapt(leaves, state, support, KEY, training=True)
    assert not any(value.requires_grad for value in adapted.params.values())


def test_scales_and_shifts_of_norms_adapt_too():
    algorithm = Imaml(conv_network(), CLASSIFICATION, inner_steps=1)
    params, state = testing.start(algorithm)
    adapted = algorithm.adapt(params, state, testing.double(few_shot().episode("train", 0)).support, KEY).params
    assert all(not torch.equal(params[name], adapted[name]) for name in algorithm.network.norm_params)


def positive_definite(size: int) -> Tensor:
    root = torch.randn(size, size, dtype=torch.float64)
    return root @ root.T + torch.eye(size).double()


def test_conjugate_gradients_solve_a_system_in_as_many_steps_as_it_has_dimensions():
    matrix, b = positive_definite(6), torch.randn(6, dtype=torch.float64)
    torch.testing.assert_close(conjugate_gradients(lambda v: matrix @ v, b, 6), torch.linalg.solve(matrix, b), rtol=1e-8, atol=1e-8)


def test_conjugate_gradients_come_nearer_in_the_norm_of_the_matrix_with_each_step():
    matrix, b = positive_definite(6), torch.randn(6, dtype=torch.float64)
    exact = torch.linalg.solve(matrix, b)
    gaps = [conjugate_gradients(lambda v: matrix @ v, b, steps) - exact for steps in range(6)]
    errors = [float(gap @ matrix @ gap) for gap in gaps]
    assert errors == sorted(errors, reverse=True)


def test_conjugate_gradients_stay_where_they_are_once_the_residual_is_zero():
    b = torch.tensor([1.0, 2.0])
    assert torch.equal(conjugate_gradients(lambda v: v, b, 5), b)
    assert torch.equal(conjugate_gradients(lambda v: v, torch.zeros(2), 5), torch.zeros(2))


def test_test_inner_steps_hold_at_test_only():
    algorithm, theta, episode = least_squares(inner_steps=2, test_inner_steps=5)
    params = {"weight": theta[None]}
    path = algorithm.trajectory(params, {}, episode.support, KEY)
    assert len(path) == 6
    in_training = algorithm.adapt(params, {}, episode.support, KEY, training=True).params["weight"]
    assert torch.equal(in_training, path[2].params["weight"])


@pytest.mark.parametrize(
    ("options", "words"),
    [
        ({"strength": 0.0}, "algo.strength=0.0 must be above 0"),
        ({"cg_steps": -1}, "algo.cg_steps=-1 not negative"),
        ({"damping": -1.0}, "algo.damping=-1.0 must not be negative"),
        ({"inner_steps": -1}, "algo.inner_steps=-1"),
    ],
)
def test_a_bad_option_is_a_sentence(options: dict[str, Any], words: str):
    with pytest.raises(UserError, match=words):
        least_squares(**options)
