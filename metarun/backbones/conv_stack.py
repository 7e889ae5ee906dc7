"""3x3 convolutions without padding: the networks of the two papers on meta-learning from a stream.

ANML (`backbone=conv3`): Beaulieu et al., "Learning to Continually Learn", ECAI 2020, https://arxiv.org/abs/2002.09571. Three blocks of
convolution, normalisation, ReLU; 2x2 max-pooling after the first two. 28x28 images become 3x3 grids.

OML (`backbone=conv6`): Javed and White, "Meta-Learning Representations for Continual Learning", NeurIPS 2019,
https://arxiv.org/abs/1905.12588. Six convolutions with strides 2, 1, 2, 1, 2, 2 and ReLU, no normalisation. 84x84 images become 3x3 grids.

The strides of OML are those of the released code (https://github.com/khurramjaved96/mrcl). Weights start as He et al. 2015 propose, biases
at zero, as in both released codes. Pooling comes before ReLU here, which gives the same values.
"""

from __future__ import annotations

from collections.abc import Sequence

from torch import Tensor, nn

from metarun.errors import UserError
from metarun.values import InputShape, Positive, Size, Sizes

SIDE = 3
"""The side of a kernel."""


class ConvStack(nn.Module):
    """Embed images (B, C, H, W) as vectors (B, out_features): the flattened grid of the last block.

    input_shape: (C, H, W). filters: channels of every block. strides: of the convolution of each block. pools: the side of the max-pooling
    of each block; 1 for none. normalised: whether each block normalises after its convolution. norm_eps: the number that the
    normalisation adds to a variance.
    """

    def __init__(
        self,
        input_shape: InputShape,
        filters: Size = 256,
        strides: Sizes = (1, 1, 1),
        pools: Sizes = (2, 2, 1),
        normalised: bool = True,
        norm_eps: Positive = 1e-5,
    ) -> None:
        super().__init__()
        side = final_sides(input_shape, strides, pools)
        channels = [input_shape[0], *[filters] * len(strides)]
        self.blocks = nn.Sequential(
            *(
                _block(channels[i], filters, stride, pool, norm_eps if normalised else None)
                for i, (stride, pool) in enumerate(zip(strides, pools, strict=True))
            )
        )
        self.out_features = filters * side[0] * side[1]
        self.apply(self.init_weights)

    def forward(self, x: Tensor) -> Tensor:
        grid: Tensor = self.blocks(x)
        return grid.flatten(1)

    @staticmethod
    def init_weights(module: nn.Module) -> None:
        """Draw the weights of one layer from torch's global generator."""
        if isinstance(module, nn.Conv2d | nn.Linear):
            nn.init.kaiming_normal_(module.weight)
            if module.bias is not None:
                nn.init.zeros_(module.bias)


def _block(channels: int, filters: int, stride: int, pool: int, norm_eps: float | None) -> nn.Sequential:
    norm = [] if norm_eps is None else [nn.BatchNorm2d(filters, eps=norm_eps)]
    return nn.Sequential(nn.Conv2d(channels, filters, SIDE, stride=stride), *norm, *([nn.MaxPool2d(pool)] if pool > 1 else []), nn.ReLU())


def final_sides(input_shape: Sequence[int], strides: Sequence[int], pools: Sequence[int]) -> tuple[int, int]:
    """Return height and width after all blocks; UserError where the images are too small or the lists do not fit."""
    if len(strides) != len(pools):
        raise UserError(
            f"backbone.strides={list(strides)} and backbone.pools={list(pools)} must have one number for each block; "
            f"they have {len(strides)} and {len(pools)}."
        )
    if len(input_shape) != 3:
        raise UserError(
            f"convolutions need images (channels, height, width); this task's inputs have the shape {tuple(input_shape)}. Use backbone=mlp."
        )
    height, width = (_final(side, strides, pools) for side in input_shape[1:])
    if min(height, width) < 1:
        least = next(side for side in range(1, 100_000) if _final(side, strides, pools) > 0)
        raise UserError(
            f"images of {input_shape[1]}x{input_shape[2]} are too small for these {len(strides)} blocks, which need at least "
            f"{least}x{least}. Use larger images or another backbone, such as backbone=conv4 backbone.pooling=stride."
        )
    return height, width


def _final(side: int, strides: Sequence[int], pools: Sequence[int]) -> int:
    for stride, pool in zip(strides, pools, strict=True):
        side = ((side - SIDE) // stride + 1) // pool if side >= SIDE else 0
    return side
