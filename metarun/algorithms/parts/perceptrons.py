"""A multi-layer perceptron as two functions, for algorithms that make a network of their own."""

from __future__ import annotations

from collections.abc import Sequence
from itertools import pairwise

import torch
import torch.nn.functional as F
from torch import Tensor

from metarun import draws
from metarun.types import Params


def linear_init(key: Tensor, inputs: int, outputs: int) -> Params:
    """Return weight (outputs, inputs) and bias (outputs,) of a linear layer, uniform within ±1/√inputs, as in `nn.Linear`."""
    limit = inputs**-0.5
    return {
        "weight": draws.uniform(draws.fold(key, "weight"), outputs, inputs, low=-limit, high=limit),
        "bias": draws.uniform(draws.fold(key, "bias"), outputs, low=-limit, high=limit),
    }


def perceptron_init(key: Tensor, sizes: Sequence[int]) -> Params:
    """Return the parameters `<layer>.weight` and `<layer>.bias` of layers from sizes[0] inputs to sizes[-1] outputs."""
    layers = [linear_init(draws.fold(key, number), *sizes) for number, sizes in enumerate(pairwise(sizes))]
    return {f"{number}.{name}": value for number, layer in enumerate(layers) for name, value in layer.items()}


def perceptron(params: Params, x: Tensor) -> Tensor:
    """Return the outputs (B, E) at x (B, D): linear layers with ReLU between them."""
    layers = len(params) // 2
    for number in range(layers):
        x = F.linear(x, params[f"{number}.weight"], params[f"{number}.bias"])
        x = x if number == layers - 1 else torch.relu(x)
    return x
