"""The inner loop of meta-training on a stream: gradient descent through the examples in their order.

The output layer is linear, and the layers below it may learn too. For a step on example i with features z_i, the gradient of the
weights W (N, F) is the outer product s_i z_iᵀ, where s_i (N,) is the gradient of the loss by the outputs. After k steps of plain gradient
descent with rate α,

    W_k = W_0 - α Σ_{i<k} s_i z_iᵀ,    b_k = b_0 - α Σ_{i<k} s_i,    outputs at z = W_0 z + b_0 - α Σ_{i<k} s_i (z_i · z + 1)

`Layer` holds W_0 and the pairs (s_i, z_i). The formula is exact, so all derivatives are. An inner step then needs no copy of W, which has
a row for each of about a thousand classes.
"""

from __future__ import annotations

import functools
from collections.abc import Callable
from dataclasses import dataclass
from typing import NamedTuple

import torch
import torch.nn.functional as F
from torch import Tensor
from torch.func import grad

from metarun.objectives import Objective
from metarun.types import Params, constant


class Layer(NamedTuple):
    """A linear layer after some steps of gradient descent. weight: W_0. bias: b_0. inputs: z_i (S, F). slopes: α s_i (S, N)."""

    weight: Tensor
    bias: Tensor
    inputs: Tensor
    slopes: Tensor

    @classmethod
    def of(cls, head: Params) -> Layer:
        """Return the layer before the first step."""
        weight = head["weight"]
        return cls(weight, head["bias"], weight.new_zeros(0, weight.shape[1]), weight.new_zeros(0, weight.shape[0]))

    def outputs(self, z: Tensor) -> Tensor:
        """Return the outputs (B, N) at z (B, F)."""
        return F.linear(z, self.weight, self.bias) - (z @ self.inputs.T + 1.0) @ self.slopes

    def after(self, z: Tensor, slopes: Tensor) -> Layer:
        """Return the layer after a step on examples z (B, F). slopes: α times the gradient of the loss by their outputs, (B, N)."""
        return self._replace(inputs=torch.cat([self.inputs, z]), slopes=torch.cat([self.slopes, slopes]))


@dataclass(frozen=True)
class Descent:
    """The inner loop: gradient descent through the examples in their order, in differentiable steps.

    lr: α. batch: examples in a step. first_order: treat the steps as constants in the outer gradient.
    """

    objective: Objective
    lr: float
    batch: int = 1
    first_order: bool = False

    def run(self, embed: Callable[..., Tensor], below: Params, layer: Layer, y: Tensor, mask: Tensor | None) -> tuple[Params, Layer]:
        """Return the parameters below the layer and the layer, after a step on each example, y (S, N).

        embed: called with parameters below the layer and `rows`, returns the inputs of the layer for these rows of the examples. There may
        be no parameters below, {}.
        """
        # Real examples come first, in their order, so that padding rows change no step.
        order = None if mask is None or self.batch == 1 else torch.argsort(~mask, stable=True)
        for first in range(0, len(y), self.batch):
            rows = slice(first, first + self.batch) if order is None else order[first : first + self.batch]
            known = None if mask is None else mask[rows]
            below, layer = self._step(functools.partial(embed, rows=rows), below, layer, y[rows], known)
        return below, layer

    def _step(self, embed: Callable[[Params], Tensor], below: Params, layer: Layer, y: Tensor, mask: Tensor | None) -> tuple[Params, Layer]:
        def loss_of(outputs: Tensor) -> Tensor:
            return self.objective.loss(outputs, y, mask)

        def loss(chosen: Params) -> tuple[Tensor, tuple[Tensor, Tensor]]:
            z = embed(chosen)
            outputs = layer.outputs(z)
            return loss_of(outputs), (z, outputs)

        gradients, (z, outputs) = grad(loss, has_aux=True)(below) if below else ({}, loss(below)[1])
        slopes = grad(loss_of)(outputs)
        if self.first_order:
            gradients, z, slopes = constant(gradients), z.detach(), slopes.detach()
        below = {name: value - self.lr * gradients[name] for name, value in below.items()}
        return below, layer.after(z, self.lr * slopes)
