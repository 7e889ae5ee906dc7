"""The mixture for each example against its formula, and the likelihood against torch's own mixtures."""

from __future__ import annotations

import math

import pytest
import torch
from torch.autograd import gradcheck
from torch.distributions import Categorical, Independent, MixtureSameFamily, Normal

from metarun import draws
from metarun.algorithms.parts.densities import densities, density_size, points
from metarun.predictive import joint_nll, nll

KEY = draws.key(0, "densities")


def normal(name: str, *shape: int) -> torch.Tensor:
    return draws.normal(draws.fold(KEY, name), *shape, dtype=torch.float64)


def test_one_gaussian_by_hand():
    """Outputs (any, 3, 0): mean 3, deviation 0.1 + 0.9 log 2; y = 4."""
    outputs = torch.tensor([[7.0, 3.0, 0.0]], dtype=torch.float64)
    std = 0.1 + 0.9 * math.log(2.0)
    expected = math.log(std * math.sqrt(2.0 * math.pi)) + 0.5 / std**2
    assert float(nll(densities(outputs, 1, 0.1), torch.tensor([[4.0]], dtype=torch.float64))) == pytest.approx(expected)


def test_two_components_share_the_density_by_hand():
    """Weights 3/4 and 1/4, means -1 and 2, deviations s + (1 - s) log 2 both; y = 2."""
    outputs = torch.tensor([[math.log(3.0), 0.0, -1.0, 2.0, 0.0, 0.0]], dtype=torch.float64)
    std = 0.05 + 0.95 * math.log(2.0)
    density = (0.75 * math.exp(-0.5 * (3.0 / std) ** 2) + 0.25) / (std * math.sqrt(2.0 * math.pi))
    found = densities(outputs, 2, 0.05)
    assert float(nll(found, torch.tensor([[2.0]], dtype=torch.float64))) == pytest.approx(-math.log(density))


def test_the_likelihood_of_many_targets_is_that_of_torchs_mixture():
    components, targets = 3, 2
    assert density_size(components, targets) == 15
    outputs, y = normal("outputs", 6, 15), normal("y", 6, targets)
    weights, means, raw = outputs[:, :3], outputs[:, 3:9].reshape(6, 3, 2), outputs[:, 9:].reshape(6, 3, 2)
    parts = Independent(Normal(means, 0.1 + 0.9 * torch.nn.functional.softplus(raw)), 1)
    expected = -MixtureSameFamily(Categorical(logits=weights), parts).log_prob(y).mean()
    found = densities(outputs, components, 0.1)
    assert found.means.shape == (1, 3, 6, 2)
    torch.testing.assert_close(nll(found, y), expected, rtol=1e-12, atol=1e-12)
    torch.testing.assert_close(joint_nll(found, y), expected, rtol=1e-12, atol=1e-12)


def test_no_deviation_is_below_the_least_one():
    outputs = torch.full((1, 3), -1e4, dtype=torch.float64)
    assert float(densities(outputs, 1, 0.2).variance.sqrt()) == pytest.approx(0.2)


def test_the_gradient_of_the_likelihood_equals_finite_differences():
    y = normal("y", 4, 2)
    assert gradcheck(lambda outputs: nll(densities(outputs, 2, 0.1), y), normal("outputs", 4, 10).requires_grad_())


def test_points_are_inputs_beside_targets_and_padding_is_zero():
    x, y = normal("x", 3, 2, 2), normal("y", 3, 1)
    assert torch.equal(points(x, y, 1, None), torch.cat([x.flatten(1), y], dim=1))
    assert torch.equal(points(x, None, 1, None)[:, 4:], torch.zeros(3, 1, dtype=torch.float64))
    masked = points(torch.full_like(x, math.nan), y, 1, torch.tensor([False] * 3))
    assert torch.equal(masked, torch.zeros(3, 5, dtype=torch.float64))
