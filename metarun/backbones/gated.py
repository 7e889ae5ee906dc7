"""ANML's two networks: one embeds an image, and the other, the neuromodulatory network, gates the embedding.

Shawn Beaulieu, Lapo Frati, Thomas Miconi, Joel Lehman, Kenneth O. Stanley, Jeff Clune, Nick Cheney. "Learning to Continually Learn",
ECAI 2020. https://arxiv.org/abs/2002.09571

    z = f(x) * sigmoid(V h(x) + v)          f: `body`, h: `modulator`, V and v: `gate`                        (figure 1)

The sizes are those of the released code (https://github.com/uvm-neurobotics-lab/ANML): f has 256 filters and h has 112. That code feeds
each image three times as three channels; here images keep their channels.
"""

from __future__ import annotations

import torch
from torch import Tensor, nn

from metarun.backbones.conv_stack import ConvStack
from metarun.errors import UserError
from metarun.values import InputShape, Positive, Size, Sizes

LARGEST_GATE = 50_000_000
"""Most weights of V, 200 MB. V has a weight for each pair of values of the two final grids, so it grows fast with the images."""


class Gated(nn.Module):
    """Embed images (B, C, H, W) as gated vectors (B, out_features).

    filters: of f. gate_filters: of h. strides, pools, normalised, norm_eps: of both, as in `ConvStack`.
    """

    def __init__(
        self,
        input_shape: InputShape,
        filters: Size = 256,
        gate_filters: Size = 112,
        strides: Sizes = (1, 1, 1),
        pools: Sizes = (2, 2, 1),
        normalised: bool = True,
        norm_eps: Positive = 1e-5,
    ) -> None:
        super().__init__()
        self.body = ConvStack(input_shape, filters, strides, pools, normalised, norm_eps)
        self.modulator = ConvStack(input_shape, gate_filters, strides, pools, normalised, norm_eps)
        _check_gate(input_shape, self.modulator.out_features, self.body.out_features)
        self.gate = nn.Linear(self.modulator.out_features, self.body.out_features)
        self.out_features = self.body.out_features
        ConvStack.init_weights(self.gate)

    def forward(self, x: Tensor) -> Tensor:
        embedding: Tensor = self.body(x)
        return embedding * torch.sigmoid(self.gate(self.modulator(x)))


def _check_gate(input_shape: InputShape, inputs: int, outputs: int) -> None:
    if inputs * outputs > LARGEST_GATE:
        raise UserError(
            f"with images of {input_shape[1]}x{input_shape[2]} the gate of backbone=gated_conv has {inputs:,} x {outputs:,} weights, more "
            f"than {LARGEST_GATE:,}. Use smaller images, fewer backbone.filters, or larger backbone.pools."
        )
