"""No network: the embedding is the input itself, as for features that a pretrained network has computed (`task=features`)."""

from __future__ import annotations

import math

from torch import Tensor, nn

from metarun.values import InputShape


class Identity(nn.Module):
    """Return inputs (B, ...) as vectors (B, out_features), without a parameter.

    input_shape: shape of one input, without the batch axis.
    """

    def __init__(self, input_shape: InputShape) -> None:
        super().__init__()
        self.out_features = math.prod(input_shape)

    def forward(self, x: Tensor) -> Tensor:
        return x.flatten(1)
