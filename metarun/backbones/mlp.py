"""The multi-layer perceptron: linear layers, each followed by its activation."""

from __future__ import annotations

import math
from collections.abc import Sequence
from itertools import pairwise
from typing import Literal

from torch import Tensor, nn

from metarun.errors import UserError, nearest
from metarun.values import InputShape, Positive, Sizes

ACTIVATIONS: dict[str, type[nn.Module]] = {"relu": nn.ReLU, "tanh": nn.Tanh}


class Mlp(nn.Module):
    """Embed inputs (B, ...) as vectors (B, out_features); axes beyond the first are flattened.

    input_shape: shape of one input, without the batch axis. widths: units of each hidden layer; the last is out_features.
    init_std: standard deviation of the weights, which are normal and cut off at two standard deviations; biases are zero. MAML's
        released code has 0.01 for sinusoids (`cbfinn/maml` maml.py, `construct_fc_weights`). A head on top is initialised by the
        same rule, so widths [40, 40] and one output give the 1-40-40-1 network of that code. None: torch's default for `nn.Linear`.
    """

    def __init__(
        self,
        input_shape: InputShape,
        widths: Sizes = (40, 40),
        activation: Literal["relu", "tanh"] = "relu",
        init_std: Positive | None = None,
    ) -> None:
        super().__init__()
        _check(widths, activation, init_std)
        self.init_std = init_std
        sizes = [math.prod(input_shape), *widths]
        layers = [layer for before, after in pairwise(sizes) for layer in (nn.Linear(before, after), ACTIVATIONS[activation]())]
        self.layers = nn.Sequential(*layers)
        self.out_features = widths[-1]
        self.apply(self.init_weights)

    def forward(self, x: Tensor) -> Tensor:
        embedded: Tensor = self.layers(x.flatten(1))
        return embedded

    def init_weights(self, module: nn.Module) -> None:
        """Draw the weights of one linear layer from torch's global generator; without `init_std` leave it as it is."""
        if self.init_std is not None and isinstance(module, nn.Linear):
            nn.init.trunc_normal_(module.weight, std=self.init_std, a=-2 * self.init_std, b=2 * self.init_std)
            nn.init.zeros_(module.bias)


def _check(widths: Sequence[int], activation: str, init_std: float | None) -> None:
    listed = isinstance(widths, Sequence) and not isinstance(widths, str)
    if not listed or not widths or not all(isinstance(width, int) and width >= 1 for width in widths):
        raise UserError(f"backbone.widths={widths} must be a list of one or more layers of at least 1 unit each, for example [40, 40].")
    if activation not in ACTIVATIONS:
        raise UserError(f"backbone.activation is {' or '.join(ACTIVATIONS)}, not '{activation}'.{nearest(str(activation), ACTIVATIONS)}")
    if init_std is not None and not (isinstance(init_std, int | float) and init_std > 0):
        raise UserError(f"backbone.init_std={init_std} must be above 0, or null for torch's own initialisation.")
