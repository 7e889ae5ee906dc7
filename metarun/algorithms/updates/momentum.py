"""Gradient descent with momentum (Polyak 1964; in this form Sutskever et al. 2013, https://proceedings.mlr.press/v28/sutskever13.html).

    v_{i+1} = μ v_i + ∇L(θ_i)
    θ_{i+1} = θ_i - α v_{i+1}                                                        with v_0 = 0 at the start of each task

This is torch's form: μ does not weaken the new gradient.
"""

from __future__ import annotations

from dataclasses import dataclass

import torch
from torch import Tensor

from metarun.algorithms.parts.inner_loop import Slope
from metarun.errors import UserError
from metarun.types import Params
from metarun.values import BelowOne, NotNegative


@dataclass(frozen=True)
class Momentum:
    """Gradient descent with momentum. lr: α. momentum: μ. learn_lr: learn α and μ with the initialisation."""

    lr: NotNegative = 0.1
    momentum: BelowOne = 0.9
    learn_lr: bool = False

    def __post_init__(self) -> None:
        if not 0.0 <= self.momentum < 1.0:
            raise UserError(f"algo.update.momentum={self.momentum} must be at least 0 and below 1.")

    def init(self, weights: Params, key: Tensor) -> Params:
        """Return α and μ where the outer loop learns them."""
        return {"lr": torch.tensor(self.lr), "momentum": torch.tensor(self.momentum)} if self.learn_lr else {}

    def start(self, weights: Params) -> Params:
        """Return v = 0."""
        return {name: torch.zeros_like(value) for name, value in weights.items()}

    def step(self, learned: Params, weights: Params, slope: Slope, memory: Params, number: int) -> tuple[Params, Params]:
        """Return θ and v after a step."""
        lr, momentum = learned.get("lr", self.lr), learned.get("momentum", self.momentum)
        velocity = {name: momentum * memory[name] + gradient for name, gradient in slope.gradients.items()}
        return {name: value - lr * velocity[name] for name, value in weights.items()}, velocity
