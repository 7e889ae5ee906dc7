"""Adam, differentiable at zero."""

from __future__ import annotations

import pytest
import torch
from rules import check_steps_of_torch

from metarun.algorithms.parts.inner_loop import Slope
from metarun.algorithms.updates.adam import Adam
from metarun.errors import UserError


def test_the_steps_are_torchs():
    """Up to the place of eps: outside the root in torch, inside here."""
    check_steps_of_torch(Adam(0.1), lambda params: torch.optim.Adam(params, lr=0.1), tolerance=1e-6)


def test_adams_first_step_has_the_size_of_its_rate_and_its_derivative_at_zero_is_one_over_eps():
    """m̂ / sqrt(v̂ + ε²) = g / sqrt(g² + ε²) at the first step: the sign of g from afar, g/ε near zero."""
    gradient = torch.tensor([3.0, -0.2, 0.0], dtype=torch.float64, requires_grad=True)
    start = {"w": torch.zeros(3, dtype=torch.float64)}
    rule = Adam(lr=1.0, eps=1e-3)
    stepped, _ = rule.step({}, start, Slope({"w": gradient}, torch.zeros(()), {}), rule.start(start), 0)
    torch.testing.assert_close(stepped["w"], -torch.tensor([1.0, -1.0, 0.0]).double(), rtol=0, atol=2e-5)
    (slope,) = torch.autograd.grad(stepped["w"][2], gradient)
    assert slope[2] == pytest.approx(-1e3)


def test_a_bad_option_is_a_sentence():
    with pytest.raises(UserError, match="eps above 0"):
        Adam(eps=0.0)
