"""The four-layer convolutional network of few-shot learning.

Vinyals et al., "Matching networks for one shot learning", NeurIPS 2016, with max-pooling; Finn, Abbeel and Levine,
"Model-agnostic meta-learning", ICML 2017, with strides instead of pooling on Omniglot. Four blocks of

    3x3 convolution -> batch normalisation -> ReLU -> 2x2 max-pooling (or stride 2 in the convolution).

Here pooling comes before ReLU. ReLU is monotone, so the two orders are the same function with the same derivatives, and ReLU reads a
quarter of the values.
"""

from __future__ import annotations

import math
from collections.abc import Mapping, Sequence
from typing import Literal, get_args

from torch import Tensor, nn

from metarun.errors import UserError, nearest
from metarun.values import InputShape, Positive, Size

BLOCKS = 4
Pooling = Literal["max", "stride"]
Output = Literal["flatten", "mean"]
Init = Literal["glorot", "torch"]
OPTIONS = {"pooling": get_args(Pooling), "output": get_args(Output), "init": get_args(Init)}


class Conv4(nn.Module):
    """Embed images (B, C, H, W) as vectors (B, out_features).

    input_shape: (C, H, W). filters: channels of every block.
    pooling: "max" halves each side rounding down (28 -> 14 -> 7 -> 3 -> 1); "stride" rounding up (28 -> 14 -> 7 -> 4 -> 2), the
        sizes of TensorFlow's SAME padding in MAML's released code (which on even sides pads one edge, where we pad both).
    output: "flatten" keeps the final grid, out_features = filters * height * width; "mean" averages over it, out_features =
        filters, which is MAML's choice for Omniglot.
    norm_eps: the number that batch normalisation adds to a variance. PyTorch has 1e-5. TensorFlow has 1e-3, and so has the released code
        of MAML and of Reptile.
    init: "glorot", uniform weights with bound sqrt(6 / (fan_in + fan_out)) and biases zero, as the convolutions of MAML's released code
        (`cbfinn/maml` maml.py, `construct_conv_weights`); its head on Omniglot differs: `head_init` of `metarun.backbones.classifier`.
        "torch", the default of PyTorch, as in the released code of Prototypical Networks.

    Each normalisation has a scale and a shift. MAML's released code has shifts only.
    """

    def __init__(
        self,
        input_shape: InputShape,
        filters: Size = 64,
        pooling: Pooling = "max",
        output: Output = "flatten",
        norm_eps: Positive = 1e-5,
        init: Init = "glorot",
    ) -> None:
        super().__init__()
        _check(input_shape, filters, norm_eps, {"pooling": pooling, "output": output, "init": init})
        channels, height, width = input_shape
        self.blocks = nn.Sequential(*(_block(filters if i else channels, filters, pooling, norm_eps) for i in range(BLOCKS)))
        self.output, self.init = output, init
        self.out_features = filters if output == "mean" else filters * _final(height, pooling) * _final(width, pooling)
        self.apply(self.init_weights)

    def forward(self, x: Tensor) -> Tensor:
        grid: Tensor = self.blocks(x)
        return grid.mean(dim=(2, 3)) if self.output == "mean" else grid.flatten(1)

    def init_weights(self, module: nn.Module) -> None:
        """Draw the weights of one layer from torch's global generator; a head on top follows the same rule. "torch" changes nothing."""
        if self.init == "glorot" and isinstance(module, nn.Conv2d | nn.Linear):
            nn.init.xavier_uniform_(module.weight)
            if module.bias is not None:
                nn.init.zeros_(module.bias)


def _block(channels: int, filters: int, pooling: str, norm_eps: float) -> nn.Sequential:
    stride = 2 if pooling == "stride" else 1
    layers = [nn.Conv2d(channels, filters, 3, stride=stride, padding=1), nn.BatchNorm2d(filters, eps=norm_eps)]
    return nn.Sequential(*layers, *([nn.MaxPool2d(2)] if pooling == "max" else []), nn.ReLU())


def _final(side: int, pooling: str) -> int:
    """Return the length of a side after all blocks."""
    for _ in range(BLOCKS):
        side = (side + 1) // 2 if pooling == "stride" else side // 2
    return side


def _check(input_shape: Sequence[int], filters: int, norm_eps: float, chosen: Mapping[str, str]) -> None:
    for name, known in OPTIONS.items():
        if chosen[name] not in known:
            raise UserError(f"backbone.{name} is {' or '.join(known)}, not '{chosen[name]}'.{nearest(str(chosen[name]), known)}")
    if not isinstance(filters, int) or filters < 1:
        raise UserError(f"backbone.filters={filters} must be a whole number of at least 1.")
    if isinstance(norm_eps, bool) or not isinstance(norm_eps, int | float) or not 0 < norm_eps < math.inf:
        raise UserError(f"backbone.norm_eps={norm_eps} must be a number above 0, such as 1.0e-5.")
    if len(input_shape) != 3:
        raise UserError(
            f"backbone=conv4 needs images (channels, height, width); this task's inputs have the shape {tuple(input_shape)}. "
            "Use backbone=mlp."
        )
    height, width = input_shape[1:]
    if min(_final(height, chosen["pooling"]), _final(width, chosen["pooling"])) < 1:
        raise UserError(
            f"images of {height}x{width} are too small for four 2x2 max-poolings, which need at least {2**BLOCKS}x{2**BLOCKS}. "
            "Use larger images or backbone.pooling=stride."
        )
