"""Gradient descent, MAML's own inner step (Finn, Abbeel, Levine 2017, https://arxiv.org/abs/1703.03400).

θ_{i+1} = θ_i - α ∇L(θ_i)
"""

from __future__ import annotations

from dataclasses import dataclass

import torch
from torch import Tensor

from metarun.algorithms.parts.inner_loop import Slope
from metarun.types import Params
from metarun.values import NotNegative


@dataclass(frozen=True)
class Sgd:
    """Gradient descent. lr: α, one for all parameters. learn_lr: learn α with the initialisation."""

    lr: NotNegative = 0.4
    learn_lr: bool = False

    def init(self, weights: Params, key: Tensor) -> Params:
        """Return α where the outer loop learns it."""
        return {"lr": torch.tensor(self.lr)} if self.learn_lr else {}

    def start(self, weights: Params) -> tuple[()]:
        """Return nothing."""
        return ()

    def step(self, learned: Params, weights: Params, slope: Slope, memory: tuple[()], number: int) -> tuple[Params, tuple[()]]:
        """Return the weights one step down the gradient."""
        lr = learned.get("lr", self.lr)
        return {name: value - lr * slope.gradients[name] for name, value in weights.items()}, ()
