"""The ridge head against direct solvers, and its exact derivatives."""

from __future__ import annotations

import math
from pathlib import Path
from typing import Any

import pytest
import torch
from small import conv_network, few_shot, run_engine
from torch import Tensor
from torch.nn import functional as F

from metarun import draws, testing
from metarun.algorithms.parts.vectors import with_ones
from metarun.algorithms.r2d2 import R2D2, ridge
from metarun.errors import UserError
from metarun.objectives import CLASSIFICATION
from metarun.types import Episode

KEY, STEP = draws.key(1), torch.tensor(0)


def r2d2(norm: str = "running", **options: Any) -> R2D2:
    return R2D2(conv_network(norm, outputs=None), CLASSIFICATION, **options)


def image_episode(**sampling: Any) -> Episode:
    episode: Episode = testing.double(few_shot(**sampling).episode("train", 0))
    return episode


def problem(rows: int, width: int) -> tuple[Tensor, Tensor]:
    y = torch.eye(3, dtype=torch.float64)[torch.arange(rows) % 3]
    return torch.randn(rows, width, dtype=torch.float64), y


def direct(z: Tensor, y: Tensor, strength: float) -> Tensor:
    """Minimise |zW - y|²/B + λ|W|² as one least-squares problem: √(Bλ) I under z, zeros under y."""
    width = z.shape[1]
    below = math.sqrt(len(z) * strength) * torch.eye(width, dtype=z.dtype)
    return torch.linalg.lstsq(torch.cat([z, below]), torch.cat([y, y.new_zeros(width, y.shape[1])])).solution


@pytest.mark.parametrize(("rows", "width"), [(4, 9), (9, 9), (20, 5), (1, 6)])
@pytest.mark.parametrize("strength", [1e-3, 1.0, 50.0])
def test_the_weights_are_those_of_a_direct_solver(rows: int, width: int, strength: float):
    """Fewer rows than columns take the Woodbury form, the others the plain one."""
    z, y = problem(rows, width)
    torch.testing.assert_close(ridge(z, y, strength), direct(z, y, strength), rtol=1e-8, atol=1e-10)


@pytest.mark.parametrize(("rows", "width"), [(4, 9), (20, 5)])
def test_at_the_weights_the_gradient_of_the_objective_is_zero(rows: int, width: int):
    """d/dW of |zW - y|²/B + λ|W|² is 2 zᵀ(zW - y)/B + 2 λ W."""
    z, y = problem(rows, width)
    w = ridge(z, y, 0.7)
    assert (2.0 * z.T @ (z @ w - y) / rows + 2.0 * 0.7 * w).abs().max() < 1e-12


def test_the_two_forms_agree_on_either_side_of_the_square():
    """A column of zeros more makes of the plain form the Woodbury one, and its weight is zero."""
    z, y = problem(6, 6)
    wider = ridge(torch.cat([z, torch.zeros(6, 1, dtype=z.dtype)], dim=1), y, 0.3)
    torch.testing.assert_close(wider[:6], ridge(z, y, 0.3), rtol=1e-10, atol=1e-12)
    assert wider[6].abs().max() == 0


@pytest.mark.parametrize(("real", "width"), [(4, 9), (8, 5)])
def test_a_padded_row_changes_nothing(real: int, width: int):
    z, y = problem(real, width)
    noise, labels = problem(3, width)
    order = torch.randperm(real + 3)
    mask = (torch.arange(real + 3) < real)[order]
    padded = ridge(torch.cat([z, 100.0 * noise])[order], torch.cat([y, labels])[order], 0.5, mask)
    torch.testing.assert_close(padded, ridge(z, y, 0.5), rtol=1e-9, atol=1e-11)


@pytest.mark.parametrize(("rows", "width"), [(3, 5), (6, 4)])
def test_derivatives_of_the_solution_are_exact(rows: int, width: int):
    z, y = problem(rows, width)
    strength = torch.tensor(0.4, dtype=torch.float64, requires_grad=True)
    mask = torch.arange(rows) != 1
    assert torch.autograd.gradcheck(lambda z, strength: ridge(z, y, strength, mask), (z.requires_grad_(), strength))


def test_logits_are_the_scaled_outputs_of_the_direct_solver():
    algorithm, (support, query) = r2d2("batch", strength=2.0, scale=3.0), image_episode()
    params, state = testing.start(algorithm)
    params["ridge.bias"] = torch.tensor(0.25, dtype=torch.float64)
    network = algorithm.network
    z = network.on_support(params, state, support, training=False)
    asked, _ = network.on_query(network.fit(params, state, support, training=False), query.x)
    expected = 3.0 * with_ones(asked) @ direct(with_ones(z), support.y, 2.0) + 0.25
    logits = algorithm.predict(algorithm.adapt(params, state, support, KEY), query.x)
    torch.testing.assert_close(logits, expected, rtol=1e-6, atol=1e-7)  # ln 2 is kept in single precision


def test_the_training_loss_is_that_of_one_joint_pass():
    algorithm, (support, query) = r2d2("running", strength=2.0), image_episode(shots=3)
    params, state = testing.start(algorithm)
    known, asked, _ = algorithm.network.on_episode(params, state, Episode(support, query))
    logits = 10.0 * with_ones(asked) @ direct(with_ones(known), support.y, 2.0)
    loss, aux = algorithm.loss(params, state, Episode(support, query), KEY, STEP)
    torch.testing.assert_close(loss, F.cross_entropy(logits, query.y.argmax(dim=1)), rtol=1e-6, atol=1e-7)
    assert float(aux.metrics["accuracy"]) == float((logits.argmax(dim=1) == query.y.argmax(dim=1)).double().mean())


def test_strength_and_scale_get_exact_gradients_and_a_bias_that_all_classes_share_gets_none():
    algorithm, episode = r2d2(strength=0.8), image_episode()
    params, state = testing.start(algorithm)
    names = ("ridge.log_strength", "ridge.scale", "ridge.bias")
    leaves = [params[name].clone().requires_grad_() for name in names]

    def loss(*values: Tensor) -> Tensor:
        return algorithm.loss({**params, **dict(zip(names, values, strict=True))}, state, episode, KEY, STEP)[0]

    assert torch.autograd.gradcheck(loss, leaves)
    by_strength, by_scale, by_bias = torch.autograd.grad(loss(*leaves), leaves)
    assert by_strength.abs() > 1e-6
    assert by_scale.abs() > 1e-6
    assert by_bias.abs() < 1e-12


def test_a_fixed_strength_is_no_parameter():
    fixed, learned = r2d2(learn_strength=False, strength=3.0), r2d2(strength=3.0)
    params, state = testing.start(learned)
    assert set(params) - set(testing.start(fixed)[0]) == {"ridge.log_strength"}
    episode = image_episode()
    ours, theirs = (algorithm.loss(params, state, episode, KEY, STEP)[0] for algorithm in (fixed, learned))
    torch.testing.assert_close(ours, theirs, rtol=1e-6, atol=1e-7)


def test_logits_permute_with_the_classes():
    algorithm, (support, query) = r2d2(), image_episode()
    params, state = testing.start(algorithm)
    order = torch.tensor([1, 2, 0])
    plain, turned = (algorithm.adapt(params, state, each, KEY) for each in (support, support._replace(y=support.y[:, order])))
    torch.testing.assert_close(algorithm.predict(plain, query.x)[:, order], algorithm.predict(turned, query.x), rtol=1e-10, atol=1e-10)


def test_training_lowers_the_loss(tmp_path: Path):
    run = run_engine(tmp_path, r2d2(strength=0.1), few_shot(), steps=12, optimizer={"name": "Adam", "lr": 0.01})
    losses = [line["train/loss"] for line in run.lines if "train/loss" in line]
    assert sum(losses[-3:]) < sum(losses[:3])


def test_a_strength_of_zero_is_refused():
    with pytest.raises(UserError, match=r"algo\.strength=0\.0 must be above 0"):
        r2d2(strength=0.0)
