"""Meta-SGD: learn the direction and the rate of the inner step together with the initialisation.

Zhenguo Li, Fengwei Zhou, Fei Chen, Hang Li. "Meta-SGD: Learning to Learn Quickly for Few-Shot Learning", 2017.
https://arxiv.org/abs/1707.09835

    θ' = θ - α ∘ ∇L(θ, support)          α has the shape of θ: one rate for each number                       (equation 1)
    minimise over θ and α the mean over tasks of L(θ', query)                                                  (equation 2)

Nothing keeps α positive, so a rate may turn against the gradient. MAML++ learns one rate for each tensor and step instead. The paper
takes one inner step. α fits the number of steps in training; more steps at test may diverge.
"""

from __future__ import annotations

from dataclasses import dataclass

from torch import Tensor

from metarun import draws
from metarun.algorithms.parts.inner_loop import Slope
from metarun.errors import UserError
from metarun.types import Params
from metarun.values import Finite

LR = "lr."


@dataclass(frozen=True)
class MetaSgd:
    """Meta-SGD. low, high: α starts as uniform draws between them."""

    low: Finite = 0.005
    high: Finite = 0.1

    def __post_init__(self) -> None:
        if self.low > self.high:
            raise UserError(f"algo.update.low={self.low} is above algo.update.high={self.high}; give the smaller rate as low.")

    def init(self, weights: Params, key: Tensor) -> Params:
        """Return α."""
        return {
            LR + name: draws.uniform(draws.fold(key, name), *value.shape, low=self.low, high=self.high) for name, value in weights.items()
        }

    def start(self, weights: Params) -> tuple[()]:
        """Return nothing."""
        return ()

    def step(self, learned: Params, weights: Params, slope: Slope, memory: tuple[()], number: int) -> tuple[Params, tuple[()]]:
        """Return θ'."""
        return {name: value - learned[LR + name] * slope.gradients[name] for name, value in weights.items()}, ()
