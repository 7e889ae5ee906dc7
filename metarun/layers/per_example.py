"""Group, layer and instance normalisation in operations that torch can map over tasks and differentiate twice.

torch 2.6 to 2.13 map the kernels of layer and instance normalisation wrongly: an outer gradient through a mapped inner gradient takes the
statistics for constants, without an error. The kernel of group normalisation fails where no gradient is recorded.
"""

from __future__ import annotations

from typing import Any

from torch import Tensor, nn

from metarun.layers.normalise import scaled, standardised


class GroupNorm(nn.GroupNorm):
    """`nn.GroupNorm` with the same parameters (Wu and He 2018, https://arxiv.org/abs/1803.08494)."""

    def forward(self, input: Tensor) -> Tensor:
        """Normalise each group of channels of each example of input (B, C, ...)."""
        groups = input.reshape(input.shape[0], self.num_groups, -1)
        return scaled(standardised(groups, [2], self.eps).reshape(input.shape), self.weight, self.bias)


class LayerNorm(nn.LayerNorm):
    """`nn.LayerNorm` with the same parameters (Ba, Kiros and Hinton 2016, https://arxiv.org/abs/1607.06450)."""

    def forward(self, input: Tensor) -> Tensor:
        """Normalise over the last axes of input, those of `normalized_shape`."""
        out = standardised(input, list(range(-len(self.normalized_shape), 0)), self.eps)
        out = out if self.weight is None else out * self.weight
        return out if self.bias is None else out + self.bias


class _InstanceNorm(nn.Module):
    """The computation of the three classes below."""

    axes = 0
    weight: Any
    bias: Any
    eps: float
    track_running_stats: bool

    def forward(self, input: Tensor) -> Tensor:
        """Normalise each channel of each example over its last axes. With running statistics torch computes."""
        if self.track_running_stats:
            plain: Tensor = super().forward(input)
            return plain
        places = (-1, *[1] * self.axes)
        out = standardised(input, list(range(-self.axes, 0)), self.eps)
        out = out if self.weight is None else out * self.weight.reshape(places)
        shifted: Tensor = out if self.bias is None else out + self.bias.reshape(places)
        return shifted


class InstanceNorm1d(_InstanceNorm, nn.InstanceNorm1d):
    """`nn.InstanceNorm1d` with the same parameters (Ulyanov et al. 2016, https://arxiv.org/abs/1607.08022)."""

    axes = 1


class InstanceNorm2d(_InstanceNorm, nn.InstanceNorm2d):
    """`nn.InstanceNorm2d`."""

    axes = 2


class InstanceNorm3d(_InstanceNorm, nn.InstanceNorm3d):
    """`nn.InstanceNorm3d`."""

    axes = 3
