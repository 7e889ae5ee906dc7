"""Adam, differentiable everywhere (Kingma and Ba 2015, https://arxiv.org/abs/1412.6980, algorithm 1).

    m_{i+1} = β1 m_i + (1 - β1) ∇L(θ_i)             m̂ = m_{i+1} / (1 - β1^{i+1})
    v_{i+1} = β2 v_i + (1 - β2) ∇L(θ_i)²            v̂ = v_{i+1} / (1 - β2^{i+1})
    θ_{i+1} = θ_i - α m̂ / sqrt(v̂ + ε²)                                               with m_0 = v_0 = 0 at the start of each task

The paper divides by sqrt(v̂) + ε. Its derivative does not exist at v̂ = 0, which happens for the parameters of a dead unit. With ε inside
the root the derivative there is 1/ε by m̂ and 0 by v̂. Elsewhere the two forms differ by ε against |∇L|. A smaller ε makes meta-gradients
larger and noisier.
"""

from __future__ import annotations

from dataclasses import dataclass
from typing import NamedTuple

import torch
from torch import Tensor

from metarun.algorithms.parts.inner_loop import Slope
from metarun.errors import UserError
from metarun.types import Params
from metarun.values import BelowOne, NotNegative, Positive


class Moments(NamedTuple):
    """Adam's memory: m and v by name."""

    first: Params
    second: Params


@dataclass(frozen=True)
class Adam:
    """Adam. lr: α. learn_lr: learn α with the initialisation."""

    lr: NotNegative = 0.01
    beta1: BelowOne = 0.9
    beta2: BelowOne = 0.999
    eps: Positive = 1e-8
    learn_lr: bool = False

    def __post_init__(self) -> None:
        if self.eps <= 0.0 or not (0.0 <= self.beta1 < 1.0 and 0.0 <= self.beta2 < 1.0):
            raise UserError(
                f"algo.update has beta1={self.beta1}, beta2={self.beta2}, eps={self.eps}; "
                "betas must be at least 0 and below 1, eps above 0."
            )

    def init(self, weights: Params, key: Tensor) -> Params:
        """Return α where the outer loop learns it."""
        return {"lr": torch.tensor(self.lr)} if self.learn_lr else {}

    def start(self, weights: Params) -> Moments:
        """Return moments of zero."""
        return Moments(*({name: torch.zeros_like(value) for name, value in weights.items()} for _ in range(2)))

    def step(self, learned: Params, weights: Params, slope: Slope, memory: Moments, number: int) -> tuple[Params, Moments]:
        """Return θ and the moments after a step."""
        lr = learned.get("lr", self.lr)
        first = {name: self.beta1 * memory.first[name] + (1 - self.beta1) * g for name, g in slope.gradients.items()}
        second = {name: self.beta2 * memory.second[name] + (1 - self.beta2) * g.square() for name, g in slope.gradients.items()}
        done = number + 1

        def change(name: str) -> Tensor:
            mean, square = first[name] / (1 - self.beta1**done), second[name] / (1 - self.beta2**done)
            return lr * mean / (square + self.eps**2).sqrt()

        return {name: value - change(name) for name, value in weights.items()}, Moments(first, second)
