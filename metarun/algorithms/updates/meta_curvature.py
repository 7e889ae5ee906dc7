"""Meta-Curvature: learn a linear map of each layer's gradient, as a product of small matrices.

Eunbyung Park, Junier B. Oliva. "Meta-Curvature", NeurIPS 2019. https://arxiv.org/abs/1902.03356

    θ' = θ - α MC(∇L(θ, support)),      MC(G) = G ×₁ M_o ×₂ M_i ×₃ M_f                                         (section 3)

G (O, I, F) is the gradient of a convolution with O output channels, I input channels and F filter positions. M_o (O, O), M_i (I, I) and
M_f (F, F) multiply it along each axis. A linear layer has no M_f. A vector (bias, scale or shift) has one factor for each entry, as with a
diagonal M_o. All start as the identity, which is gradient descent, and the outer loop learns them with θ.
"""

from __future__ import annotations

from dataclasses import dataclass

import torch
from torch import Tensor

from metarun.algorithms.parts.inner_loop import Slope
from metarun.types import Params
from metarun.values import NotNegative

OUTPUTS, INPUTS, FILTER, FACTORS = "outputs.", "inputs.", "filter.", "factors."


@dataclass(frozen=True)
class MetaCurvature:
    """Meta-Curvature. lr: α, which stays fixed."""

    lr: NotNegative = 0.4

    def init(self, weights: Params, key: Tensor) -> Params:
        """Return the identity for each tensor."""
        learned: Params = {}
        for name, value in weights.items():
            if value.dim() == 1:
                learned[FACTORS + name] = torch.ones(len(value))
                continue
            learned[OUTPUTS + name], learned[INPUTS + name] = torch.eye(value.shape[0]), torch.eye(value.shape[1])
            if value.dim() > 2:
                learned[FILTER + name] = torch.eye(value[0, 0].numel())
        return learned

    def start(self, weights: Params) -> tuple[()]:
        """Return nothing."""
        return ()

    def step(self, learned: Params, weights: Params, slope: Slope, memory: tuple[()], number: int) -> tuple[Params, tuple[()]]:
        """Return θ'."""
        return {name: value - self.lr * curved(learned, name, slope.gradients[name]) for name, value in weights.items()}, ()


def curved(learned: Params, name: str, gradient: Tensor) -> Tensor:
    """Return MC(G) of one tensor, in its shape."""
    if gradient.dim() == 1:
        return learned[FACTORS + name] * gradient
    grid = gradient.flatten(2) if gradient.dim() > 2 else gradient[:, :, None]
    if FILTER + name in learned:
        grid = grid @ learned[FILTER + name].T
    grid = learned[INPUTS + name] @ grid
    return (learned[OUTPUTS + name] @ grid.flatten(1)).reshape(gradient.shape)
