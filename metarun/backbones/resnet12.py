"""The twelve-layer residual network of few-shot learning on photographs.

Kwonjoon Lee, Subhransu Maji, Avinash Ravichandran, Stefano Soatto. "Meta-Learning with Differentiable Convex Optimization", CVPR 2019,
https://arxiv.org/abs/1904.03758, after Oreshkin et al., "TADAM", NeurIPS 2018, and Mishra et al., "SNAIL", ICLR 2018. Four blocks of

    x -> [3x3 convolution, batch normalisation, leaky ReLU 0.1] twice -> 3x3 convolution, batch normalisation
      -> + (1x1 convolution and batch normalisation of x) -> leaky ReLU 0.1 -> 2x2 max-pooling.

Differences from the first paper: no DropBlock, and by default the mean over the final grid instead of the grid itself. Its widths are 64,
160, 320 and 640. The defaults here are 64, 128, 256 and 512, as in Chen et al., "Meta-Baseline", ICCV 2021; they cost half as much.
"""

from __future__ import annotations

from collections.abc import Sequence
from itertools import pairwise
from typing import Literal

from torch import Tensor, nn
from torch.nn import functional as F

from metarun.errors import UserError, nearest
from metarun.values import InputShape, Sizes

SLOPE = 0.1
"""Slope of the leaky ReLU below zero."""


class ResNet12(nn.Module):
    """Embed images (B, C, H, W) as vectors (B, out_features).

    input_shape: (C, H, W). widths: channels of each block, of which there are four in the literature; each halves the sides, rounding down
        (84 -> 42 -> 21 -> 10 -> 5). output: "mean" over the final grid, out_features = widths[-1], or "flatten", times height and width.

    Convolutions have no bias; their weights are normal with variance 2 / fan_out, as in the released code of both papers.
    """

    def __init__(self, input_shape: InputShape, widths: Sizes = (64, 128, 256, 512), output: Literal["flatten", "mean"] = "mean") -> None:
        super().__init__()
        _check(input_shape, widths, output)
        channels, height, width = input_shape
        self.blocks = nn.Sequential(*(Block(before, after) for before, after in pairwise([channels, *widths])))
        self.output = output
        final = (height >> len(widths)) * (width >> len(widths))
        self.out_features = widths[-1] * (1 if output == "mean" else final)

    def forward(self, x: Tensor) -> Tensor:
        grid: Tensor = self.blocks(x)
        return grid.mean(dim=(2, 3)) if self.output == "mean" else grid.flatten(1)


class Block(nn.Module):
    """Three convolutions with a shortcut round them, and max-pooling: (B, before, H, W) to (B, after, H/2, W/2)."""

    def __init__(self, before: int, after: int) -> None:
        super().__init__()
        self.convs = nn.ModuleList([_conv(inputs, after, 3) for inputs in (before, after, after)])
        self.norms = nn.ModuleList([nn.BatchNorm2d(after) for _ in self.convs])
        self.shortcut = nn.Sequential(_conv(before, after, 1), nn.BatchNorm2d(after))
        self.pool = nn.MaxPool2d(2)

    def forward(self, x: Tensor) -> Tensor:
        shortcut: Tensor = self.shortcut(x)
        *first, (conv, norm) = zip(self.convs, self.norms, strict=True)
        for before, normalise in first:
            x = F.leaky_relu(normalise(before(x)), SLOPE)
        # The leaky ReLU is increasing, so it may follow the pooling, where there are fewer values.
        return F.leaky_relu(self.pool(norm(conv(x)) + shortcut), SLOPE)


def _conv(before: int, after: int, size: int) -> nn.Conv2d:
    conv = nn.Conv2d(before, after, size, padding=size // 2, bias=False)
    nn.init.kaiming_normal_(conv.weight, mode="fan_out")
    return conv


def _check(input_shape: Sequence[int], widths: Sequence[int], output: str) -> None:
    if output not in ("mean", "flatten"):
        raise UserError(f"backbone.output is mean or flatten, not '{output}'.{nearest(str(output), ('mean', 'flatten'))}")
    listed = isinstance(widths, Sequence) and not isinstance(widths, str)
    if not listed or not widths or not all(isinstance(width, int) and width >= 1 for width in widths):
        raise UserError(
            f"backbone.widths={widths} must be a list of one or more blocks of at least 1 channel each, such as [64, 128, 256, 512]."
        )
    if len(input_shape) != 3:
        raise UserError(
            f"backbone=resnet12 needs images (channels, height, width); this task's inputs have the shape {tuple(input_shape)}. "
            "Use backbone=mlp."
        )
    height, width = input_shape[1:]
    if min(height, width) >> len(widths) < 1:
        raise UserError(
            f"images of {height}x{width} are too small for {len(widths)} 2x2 max-poolings, which need at least "
            f"{2 ** len(widths)}x{2 ** len(widths)}. Use larger images or fewer backbone.widths."
        )
