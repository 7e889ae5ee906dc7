"""Operations of torch that are functions in C: convolutions, statistics of columns, normalisation with what follows it.

They compute the same functions as torch's own operations, by other sums and products; the C files say how, and why that is faster.
`metarun.compute.kernels.rewrite` puts them into recorded programs. All compute in float32 on one thread; images have their channels last in memory.
"""

from __future__ import annotations

import functools
import math
from collections.abc import Sequence
from typing import NamedTuple

import torch
from torch import Tensor
from torch.nn import functional as F

from metarun import draws
from metarun.compute.kernels import binding as c_functions
from metarun.compute.kernels.binding import Convolution, Images, call
from metarun.compute.kernels.compiler import NoLibraryError

VECTOR, CHANNELS, TAPS = 16, 1024, 49
"""What the channels of a group must be a multiple of, how many they may be (`products.h`), and the places of a kernel (`convolution.c`)."""
TILE = 2
"""The side of what a tile of `winograd.c` gives."""
FILLED, TILES = 0.7, 16
"""Tiles are worth while where so much of what they give lies inside of the image, and there are so many of them."""
TOLERANCE = 1e-5
"""How far a result may be from torch's in float64, as a share of the largest value, for the operations to be used."""

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


@functools.cache
def missing() -> str | None:
    """Return why these operations cannot be used here, or None where they can; the first call compiles them and tries them out."""
    try:
        for source in c_functions.SOURCES:
            c_functions.library(source)
    except NoLibraryError as reason:
        return str(reason)
    return _wrong()


def _empty(*shape: int, dtype: torch.dtype = torch.float32) -> Tensor:
    return torch.empty(shape, dtype=dtype, device="cpu", memory_format=CL if len(shape) == 4 else torch.contiguous_format)


def tiled(weight: Sequence[int], y: Sequence[int], stride: Sequence[int]) -> bool:
    """Say whether a convolution with a weight and a result of these shapes, and its derivatives, are computed tile by tile, by `winograd.c`."""
    tiles = math.prod(-(-side // TILE) for side in y[2:])
    return (
        tuple(weight[2:]) == (3, 3) and tuple(stride) == (1, 1) and y[0] * tiles >= TILES and math.prod(y[2:]) >= FILLED * tiles * TILE**2
    )


class _Shapes(NamedTuple):
    """Of a convolution of x with a weight, whose result is y; the weight has its channels per group."""

    x: Sequence[int]
    weight: Sequence[int]
    y: Sequence[int]
    stride: Sequence[int]
    padding: Sequence[int]
    groups: int


def _convolve(name: str, shapes: _Shapes, *tensors: Tensor | None) -> None:
    """Call one of the three functions of a convolution, in the way that suits its shapes."""
    x, weight, y, stride, padding, groups = shapes
    out, into, places = weight[0] // groups, weight[1], weight[2] * weight[3]
    if out % VECTOR or into % VECTOR or max(out, into) > CHANNELS or places > TAPS or min(*x[1:], *y[1:]) < 1:
        raise ValueError(f"no own convolution is made for weights {tuple(weight)} in {groups} groups on images {tuple(x)}.")
    shape = Convolution(x[0], into, out, *x[2:], *y[2:], *weight[2:], *stride, *padding, groups)
    if call(f"tiled_{name}" if tiled(weight, y, stride) else name, shape, *tensors):
        raise MemoryError("there is no memory for a convolution.")


def _conv(x: Tensor, weight: Tensor, bias: Tensor | None, stride: Sequence[int], padding: Sequence[int], groups: int) -> Tensor:
    x, weight, bias = x.contiguous(memory_format=CL), weight.contiguous(memory_format=CL), None if bias is None else bias.contiguous()
    size = [(x.shape[2 + i] + 2 * padding[i] - weight.shape[2 + i]) // stride[i] + 1 for i in (0, 1)]
    y = _empty(x.shape[0], weight.shape[0], *size)
    _convolve("forward", _Shapes(x.shape, weight.shape, y.shape, stride, padding, groups), x, weight, bias, y)
    return y


def _conv_input(g: Tensor, weight: Tensor, shape: Sequence[int], stride: Sequence[int], padding: Sequence[int], groups: int) -> Tensor:
    g, weight = g.contiguous(memory_format=CL), weight.contiguous(memory_format=CL)
    x = _empty(*shape)
    _convolve("input_gradient", _Shapes(shape, weight.shape, g.shape, stride, padding, groups), g, weight, x)
    return x


def _conv_weight(g: Tensor, x: Tensor, shape: Sequence[int], stride: Sequence[int], padding: Sequence[int], groups: int) -> Tensor:
    g, x = g.contiguous(memory_format=CL), x.contiguous(memory_format=CL)
    weight = _empty(*shape)
    _convolve("weight_gradient", _Shapes(x.shape, shape, g.shape, stride, padding, groups), g, x, weight)
    return weight


def _column_statistics(x: Tensor) -> tuple[Tensor, Tensor]:
    x = x.contiguous()
    mean, variance = _empty(x.shape[1]), _empty(x.shape[1])
    call("column_statistics", Images(x.shape[0], 1, 1, x.shape[1]), x, mean, variance)
    return mean, variance


def _norm_relu(x: Tensor, weight: Tensor | None, bias: Tensor | None, mean: Tensor, var: Tensor, eps: float) -> Tensor:
    """Return normalised images, rectified."""
    x = x.contiguous(memory_format=CL)
    y = torch.empty_like(x)
    call("normalise_and_rectify", _images(x), x, *_scale_and_shift(weight, bias, mean, var, eps), y)
    return y


def _norm_pool(x: Tensor, weight: Tensor | None, bias: Tensor | None, mean: Tensor, var: Tensor, eps: float) -> tuple[Tensor, Tensor]:
    """Return the maxima of normalised images over windows of 2 x 2, and their places, as `max_pool2d_with_indices` has them."""
    x = x.contiguous(memory_format=CL)
    y = _empty(*x.shape[:2], x.shape[2] // 2, x.shape[3] // 2)
    places = _empty(*y.shape, dtype=torch.int64)
    call("normalise_and_pool", _images(x), x, *_scale_and_shift(weight, bias, mean, var, eps), y, places)
    return y, places


def _norm_maxima(x: Tensor, weight: Tensor | None, bias: Tensor | None, mean: Tensor, var: Tensor, eps: float) -> Tensor:
    """Return what `_norm_pool` does without the places."""
    return _scaled_maxima(x, *_scale_and_shift(weight, bias, mean, var, eps))


def _scaled_maxima(x: Tensor, scale: Tensor, shift: Tensor) -> Tensor:
    """Return the maxima of x * scale + shift over windows of 2 x 2; scale, shift: by channel."""
    x = x.contiguous(memory_format=CL)
    y = _empty(*x.shape[:2], x.shape[2] // 2, x.shape[3] // 2)
    call("normalise_and_take_maxima", _images(x), x, scale.contiguous(), shift.contiguous(), y)
    return y


def _norm_relu_backward(
    g: Tensor, x: Tensor, weight: Tensor | None, bias: Tensor | None, mean: Tensor, var: Tensor, eps: float
) -> tuple[Tensor, Tensor, Tensor]:
    """Return the derivatives by x, weight and bias of `_norm_relu`, where mean and var are those of x."""
    normalised = _scale_and_shift(weight, bias, mean, var, eps)
    return _through_norm("where_positive", (g,), x, normalised, weight, mean, (var + eps).rsqrt())


def _norm_pool_backward(
    g: Tensor, places: Tensor, x: Tensor, weight: Tensor | None, mean: Tensor, inverse: Tensor
) -> tuple[Tensor, Tensor, Tensor]:
    """Return the derivatives by x, weight and bias of `_norm_pool`, which found these places; inverse = 1 / sqrt(var + eps)."""
    return _through_norm("at_maxima", (g, places), x, (), weight, mean, inverse)


def _through_norm(
    where: str, g: Sequence[Tensor], x: Tensor, behind: Sequence[Tensor], weight: Tensor | None, mean: Tensor, inverse: Tensor
) -> tuple[Tensor, Tensor, Tensor]:
    """Differentiate a normalisation by x, weight and bias, whose mean and inverse are those of x.

    g: with it, what says where it passed, if anything; behind: what the functions of `normalisation.c` take behind x. With g put back there, dL/dx =
    w r (g - a - b x̂) as in `metarun.layers.norm`, where a and b are sums over these places only.
    """
    *g, x = (each.contiguous(memory_format=CL) for each in (*g, x))
    sums, by_x = _empty(2, x.shape[1]), torch.empty_like(x)
    call(f"sums_{where}", _images(x), *g, x, *behind, mean.contiguous(), sums)
    by_bias, by_weight = sums[0].clone(), sums[1] * inverse
    count, gain = x.numel() / x.shape[1], inverse if weight is None else weight * inverse
    scale = -gain * inverse * by_weight / count
    shift = -gain * by_bias / count - scale * mean
    call(f"spread_{where}", _images(x), *g, x, *behind, scale, shift, gain.contiguous(), by_x)
    return by_x, by_weight, by_bias


def _images(x: Tensor) -> Images:
    return Images(x.shape[0], *x.shape[2:], x.shape[1])


def _scale_and_shift(weight: Tensor | None, bias: Tensor | None, mean: Tensor, var: Tensor, eps: float) -> tuple[Tensor, Tensor]:
    scale = (var + eps).rsqrt() if weight is None else (var + eps).rsqrt() * weight
    return scale, -mean * scale if bias is None else bias - mean * scale


for _name, _function in {
    "conv": _conv,
    "conv_input": _conv_input,
    "conv_weight": _conv_weight,
    "column_statistics": _column_statistics,
    "norm_relu": _norm_relu,
    "norm_relu_backward": _norm_relu_backward,
    "norm_pool": _norm_pool,
    "norm_maxima": _norm_maxima,
    "scaled_maxima": _scaled_maxima,
    "norm_pool_backward": _norm_pool_backward,
}.items():
    _OPERATIONS.impl(_name, _function, "CPU")


def _wrong() -> str | None:
    """Try the kernels on small images beside torch's in float64; return what is wrong with them, if anything."""

    def normal(slot: str, *shape: int) -> Tensor:
        return draws.normal(draws.key(0, slot), *shape).contiguous(memory_format=CL)

    pairs = []
    for images, groups, into, out, size, kernel, stride, padding in (
        (7, 2, 16, 48, (6, 5), (3, 3), (2, 2), (1, 1)),
        (2, 1, 80, 16, (4, 7), (1, 2), (2, 2), (0, 1)),
        (3, 2, 16, 80, (6, 7), (3, 3), (1, 1), (1, 1)),  # tiled
    ):
        x, weight = normal("x", images, groups * into, *size), normal("weight", groups * out, into, *kernel)
        bias = draws.normal(draws.key(0, "bias"), groups * out)
        y = _conv(x, weight, bias, stride, padding, groups)
        g = normal("g", *y.shape)
        rest = (stride, padding, (1, 1), False, (0, 0), groups)
        by_x, by_weight, _ = aten.convolution_backward(g.double(), x.double(), weight.double(), None, *rest, (True, True, False))
        pairs += [(y, aten.convolution(x.double(), weight.double(), bias.double(), *rest))]
        pairs += [
            (_conv_input(g, weight, x.shape, stride, padding, groups), by_x),
            (_conv_weight(g, x, weight.shape, stride, padding, groups), by_weight),
        ]
    values = draws.normal(draws.key(0, "values"), 5, 1100)
    mean, variance = _column_statistics(values)
    pairs += [(mean, values.double().mean(dim=0)), (variance, values.double().var(dim=0, correction=0))]
    pairs += _pairs_of_norms(normal("x", 3, 20, 5, 4), normal("g", 3, 20, 2, 2), normal("relu", 3, 20, 5, 4))
    apart = torch.stack([(ours.double() - exact).abs().max() / exact.abs().max() for ours, exact in pairs]).max()  # NaN where one is
    return None if apart < TOLERANCE else f"compiled here, they are off by {apart:.1g}"


def _pairs_of_norms(x: Tensor, g_pooled: Tensor, g_rectified: Tensor) -> list[tuple[Tensor, Tensor]]:
    """Return what own operations and torch's give for x normalised and pooled or rectified, and for its derivatives."""
    mean, var = x.mean(dim=(0, 2, 3)), x.var(dim=(0, 2, 3), correction=0)
    weight, bias, inverse = -mean - 0.5, mean + 0.1, (var + 1e-5).rsqrt()
    leaves = [leaf.double().requires_grad_() for leaf in (x, weight, bias)]
    with torch.enable_grad():
        normalised = F.batch_norm(leaves[0], None, None, leaves[1], leaves[2], training=True)
        pooled, rectified = F.max_pool2d(normalised, 2), F.relu(normalised)
        through_pooling = torch.autograd.grad(pooled, leaves, g_pooled.double(), retain_graph=True)
        through_rectification = torch.autograd.grad(rectified, leaves, g_rectified.double())
    maxima, places = _norm_pool(x, weight, bias, mean, var, 1e-5)
    return [
        (maxima, pooled.detach()),
        (_norm_maxima(x, weight, bias, mean, var, 1e-5), pooled.detach()),
        (_norm_relu(x, weight, bias, mean, var, 1e-5), rectified.detach()),
        *zip(_norm_pool_backward(g_pooled, places, x, weight, mean, inverse), through_pooling, strict=True),
        *zip(_norm_relu_backward(g_rectified, x, weight, bias, mean, var, 1e-5), through_rectification, strict=True),
    ]
