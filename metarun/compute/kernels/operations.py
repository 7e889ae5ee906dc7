"""The C kernels as torch operations: convolution, statistics of columns, and normalisation with the pooling or ReLU behind it.

They compute the same functions as torch's operations, by other sums and products. The C files say how, and why that is faster.
`metarun.compute.kernels.rewriting` puts them into recorded programs. Every operation computes in float32, on the CPU and on one thread.
Images have their channels last in memory; an operation copies images that lie otherwise. g is always dL/dy, the gradient by the result.
"""

from __future__ import annotations

import math
from collections.abc import Sequence
from typing import NamedTuple

import torch
from torch import Tensor

from metarun.compute.kernels.binding import Convolution, Images, call

VECTOR, CHANNELS, TAPS = 16, 1024, 49
"""Channels of a group: a multiple of VECTOR, at most CHANNELS (`products.h`). A kernel has TAPS taps at most (`convolution.c`)."""
TILE = 2
"""Side of the square of results that a tile of `winograd.c` gives, in pixels."""
FILLED, TILES = 0.7, 16
"""Tiles are faster where at least this share of their results lies inside the image, and where there are at least TILES of them."""

aten = torch.ops.aten
CL = torch.channels_last

_OPERATIONS = torch.library.Library("metarun", "DEF")
_OPERATIONS.define("conv(Tensor x, Tensor weight, Tensor? bias, int[] stride, int[] padding, int groups) -> Tensor")
_OPERATIONS.define("conv_input(Tensor g, Tensor weight, int[] shape, int[] stride, int[] padding, int groups) -> Tensor")
_OPERATIONS.define("conv_weight(Tensor g, Tensor x, int[] shape, int[] stride, int[] padding, int groups) -> Tensor")
_OPERATIONS.define("column_statistics(Tensor x) -> (Tensor, Tensor)")
_OPERATIONS.define("norm_relu(Tensor x, Tensor? weight, Tensor? bias, Tensor mean, Tensor var, float eps) -> Tensor")
_OPERATIONS.define(
    "norm_relu_backward(Tensor g, Tensor x, Tensor? weight, Tensor? bias, Tensor mean, Tensor var, float eps) -> (Tensor, Tensor, Tensor)"
)
_OPERATIONS.define("norm_pool(Tensor x, Tensor? weight, Tensor? bias, Tensor mean, Tensor var, float eps) -> (Tensor, Tensor)")
_OPERATIONS.define("norm_maxima(Tensor x, Tensor? weight, Tensor? bias, Tensor mean, Tensor var, float eps) -> Tensor")
_OPERATIONS.define("scaled_maxima(Tensor x, Tensor scale, Tensor shift) -> Tensor")
_OPERATIONS.define(
    "norm_pool_backward(Tensor g, Tensor places, Tensor x, Tensor? weight, Tensor mean, Tensor inverse) -> (Tensor, Tensor, Tensor)"
)


def _empty(*shape: int, dtype: torch.dtype = torch.float32) -> Tensor:
    return torch.empty(shape, dtype=dtype, device="cpu", memory_format=CL if len(shape) == 4 else torch.contiguous_format)


def tiled(weight: Sequence[int], y: Sequence[int], stride: Sequence[int]) -> bool:
    """Say whether `winograd.c` computes a convolution with a weight and a result y of these shapes, and its gradients."""
    if tuple(weight[2:]) != (3, 3) or tuple(stride) != (1, 1):
        return False
    tiles = math.prod(-(-side // TILE) for side in y[2:])
    return y[0] * tiles >= TILES and math.prod(y[2:]) >= FILLED * tiles * TILE**2


class _Shapes(NamedTuple):
    """Shapes of a convolution y = conv(x, weight): x (B, C, H, W), weight (O, C / groups, h, w), y (B, O, H', W')."""

    x: Sequence[int]
    weight: Sequence[int]
    y: Sequence[int]
    stride: Sequence[int]
    padding: Sequence[int]
    groups: int


def _convolve(name: str, shapes: _Shapes, *tensors: Tensor | None) -> None:
    """Call `forward`, `input_gradient` or `weight_gradient` of `winograd.c` where tiles are faster, else of `convolution.c`.

    Raises ValueError where no kernel exists for these shapes, MemoryError where the C code cannot allocate memory.
    """
    x, weight, y, stride, padding, groups = shapes
    outputs, inputs, taps = weight[0] // groups, weight[1], weight[2] * weight[3]
    fits = outputs % VECTOR == 0 and inputs % VECTOR == 0 and max(outputs, inputs) <= CHANNELS and taps <= TAPS
    if not fits or min(*x[1:], *y[1:]) < 1:
        raise ValueError(f"the C kernels have no convolution for weights {tuple(weight)} in {groups} groups on images {tuple(x)}.")
    shape = Convolution(x[0], inputs, outputs, *x[2:], *y[2:], *weight[2:], *stride, *padding, groups)
    if call(f"tiled_{name}" if tiled(weight, y, stride) else name, shape, *tensors):
        raise MemoryError("there is not enough memory for a convolution.")


def conv(x: Tensor, weight: Tensor, bias: Tensor | None, stride: Sequence[int], padding: Sequence[int], groups: int) -> Tensor:
    """Return the convolution y of x with weight, plus bias."""
    x, weight, bias = x.contiguous(memory_format=CL), weight.contiguous(memory_format=CL), None if bias is None else bias.contiguous()
    size = [(x.shape[2 + i] + 2 * padding[i] - weight.shape[2 + i]) // stride[i] + 1 for i in (0, 1)]
    y = _empty(x.shape[0], weight.shape[0], *size)
    _convolve("forward", _Shapes(x.shape, weight.shape, y.shape, stride, padding, groups), x, weight, bias, y)
    return y


def conv_input(g: Tensor, weight: Tensor, shape: Sequence[int], stride: Sequence[int], padding: Sequence[int], groups: int) -> Tensor:
    """Return dL/dx, which has this shape."""
    g, weight = g.contiguous(memory_format=CL), weight.contiguous(memory_format=CL)
    x = _empty(*shape)
    _convolve("input_gradient", _Shapes(shape, weight.shape, g.shape, stride, padding, groups), g, weight, x)
    return x


def conv_weight(g: Tensor, x: Tensor, shape: Sequence[int], stride: Sequence[int], padding: Sequence[int], groups: int) -> Tensor:
    """Return dL/dweight, which has this shape."""
    g, x = g.contiguous(memory_format=CL), x.contiguous(memory_format=CL)
    weight = _empty(*shape)
    _convolve("weight_gradient", _Shapes(x.shape, shape, g.shape, stride, padding, groups), g, x, weight)
    return weight


def column_statistics(x: Tensor) -> tuple[Tensor, Tensor]:
    """Return mean and biased variance (C,) of the columns of x (B, C, ...), which has one value per row and column."""
    x = x.contiguous()
    mean, variance = _empty(x.shape[1]), _empty(x.shape[1])
    call("column_statistics", Images(x.shape[0], 1, 1, x.shape[1]), x, mean, variance)
    return mean, variance


def norm_relu(x: Tensor, weight: Tensor | None, bias: Tensor | None, mean: Tensor, var: Tensor, eps: float) -> Tensor:
    """Return relu((x - mean) / sqrt(var + eps) * weight + bias)."""
    x = x.contiguous(memory_format=CL)
    y = torch.empty_like(x)
    call("normalise_and_rectify", _images(x), x, *_scale_and_shift(weight, bias, mean, var, eps), y)
    return y


def norm_pool(x: Tensor, weight: Tensor | None, bias: Tensor | None, mean: Tensor, var: Tensor, eps: float) -> tuple[Tensor, Tensor]:
    """Return the maxima of (x - mean) / sqrt(var + eps) * weight + bias over windows of 2 x 2, and their places.

    A place is row * width + column, as in `aten.max_pool2d_with_indices`.
    """
    x = x.contiguous(memory_format=CL)
    y = _empty(*x.shape[:2], x.shape[2] // 2, x.shape[3] // 2)
    places = _empty(*y.shape, dtype=torch.int64)
    call("normalise_and_pool", _images(x), x, *_scale_and_shift(weight, bias, mean, var, eps), y, places)
    return y, places


def norm_maxima(x: Tensor, weight: Tensor | None, bias: Tensor | None, mean: Tensor, var: Tensor, eps: float) -> Tensor:
    """Return the maxima of `norm_pool` without the places."""
    return scaled_maxima(x, *_scale_and_shift(weight, bias, mean, var, eps))


def scaled_maxima(x: Tensor, scale: Tensor, shift: Tensor) -> Tensor:
    """Return the maxima of x * scale + shift over windows of 2 x 2. scale, shift: one number per channel."""
    x = x.contiguous(memory_format=CL)
    y = _empty(*x.shape[:2], x.shape[2] // 2, x.shape[3] // 2)
    call("normalise_and_take_maxima", _images(x), x, scale.contiguous(), shift.contiguous(), y)
    return y


def norm_relu_backward(
    g: Tensor, x: Tensor, weight: Tensor | None, bias: Tensor | None, mean: Tensor, var: Tensor, eps: float
) -> tuple[Tensor, Tensor, Tensor]:
    """Return the gradients of `norm_relu` by x, weight and bias, where mean and var are the statistics of x."""
    scale_and_shift = _scale_and_shift(weight, bias, mean, var, eps)
    return _through_norm("where_positive", (g,), x, scale_and_shift, weight, mean, (var + eps).rsqrt())


def norm_pool_backward(
    g: Tensor, places: Tensor, x: Tensor, weight: Tensor | None, mean: Tensor, inverse: Tensor
) -> tuple[Tensor, Tensor, Tensor]:
    """Return the gradients of `norm_pool` by x, weight and bias, where mean and inverse = 1 / sqrt(var + eps) are statistics of x.

    places: of the maxima, as `norm_pool` returned them.
    """
    return _through_norm("at_maxima", (g, places), x, (), weight, mean, inverse)


def _through_norm(
    where: str, passed: Sequence[Tensor], x: Tensor, extra: Sequence[Tensor], weight: Tensor | None, mean: Tensor, inverse: Tensor
) -> tuple[Tensor, Tensor, Tensor]:
    """Return the gradients of a normalisation by x, weight and bias, where mean and inverse are statistics of x.

    where: the suffix of the two C functions, which says at which values g passes. passed: g, then the places of the maxima, if any.
    extra: the arguments that the C functions take behind x. With g = 0 at all other values, dL/dx = w r (g - a - b x̂) as in
    `metarun.layers.normalise.NormaliseBackward`.
    """
    *passed, x = (images.contiguous(memory_format=CL) for images in (*passed, x))
    sums, by_x = _empty(2, x.shape[1]), torch.empty_like(x)
    call(f"sums_{where}", _images(x), *passed, x, *extra, mean.contiguous(), sums)
    by_bias, by_weight = sums[0].clone(), sums[1] * inverse
    count, gain = x.numel() / x.shape[1], inverse if weight is None else weight * inverse
    scale = -gain * inverse * by_weight / count
    shift = -gain * by_bias / count - scale * mean
    call(f"spread_{where}", _images(x), *passed, x, *extra, scale, shift, gain.contiguous(), by_x)
    return by_x, by_weight, by_bias


def _images(x: Tensor) -> Images:
    return Images(x.shape[0], *x.shape[2:], x.shape[1])


def _scale_and_shift(weight: Tensor | None, bias: Tensor | None, mean: Tensor, var: Tensor, eps: float) -> tuple[Tensor, Tensor]:
    scale = (var + eps).rsqrt() if weight is None else (var + eps).rsqrt() * weight
    return scale, -mean * scale if bias is None else bias - mean * scale


for _function in (
    conv,
    conv_input,
    conv_weight,
    column_statistics,
    norm_relu,
    norm_relu_backward,
    norm_pool,
    norm_maxima,
    scaled_maxima,
    norm_pool_backward,
):
    _OPERATIONS.impl(_function.__name__, _function, "CPU")
