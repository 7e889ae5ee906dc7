"""Kernels of our own for recorded programs on images, where they are faster than torch's.

torch's kernels for a processor take the derivatives of a convolution with stride 2 at half the speed of one with stride 1, and small images
slower still; those of `convolution.c` keep their speed, and compute the same sums in another order. `statistics.c` has means and variances, to
the same bits. Whether own kernels may be used is decided once for a run (`Plan.kernels`); what they take of a program, by shapes and layouts.
"""

from __future__ import annotations

import ctypes
import functools
import operator
from collections.abc import Callable, Sequence
from pathlib import Path
from typing import Any

import torch
from torch import Tensor
from torch.fx import GraphModule, Node

from metarun import c_library, draws

CHANNELS, TAPS, VECTOR = 1024, 49, 16
"""Limits of `convolution.c`: channels of a group, places of the kernel, and what channels must be a multiple of."""
WEIGHTS = 1 << 16
"""Values of a group's weight above which they no longer stay in a core's cache, and torch's kernels are the faster ones."""
COLUMNS = 1 << 12
"""Columns below which their statistics take less time than the call."""
TOLERANCE = 1e-5

aten = torch.ops.aten
CL = torch.channels_last

_OPERATIONS = torch.library.Library("metarun", "DEF")
_OPERATIONS.define("conv(Tensor x, Tensor weight, Tensor? bias, int[] stride, int[] padding, int groups) -> Tensor")
_OPERATIONS.define("conv_input(Tensor g, Tensor weight, int[] shape, int[] stride, int[] padding, int groups) -> Tensor")
_OPERATIONS.define("conv_weight(Tensor g, Tensor x, int[] shape, int[] stride, int[] padding, int groups) -> Tensor")
_OPERATIONS.define("column_statistics(Tensor x) -> (Tensor, Tensor)")


class _Convolution(ctypes.Structure):
    """`convolution` of the C file; in and out are channels of one group."""

    _fields_ = [
        (name, ctypes.c_int)
        for name in (
            *("images", "in", "out", "height", "width", "out_height", "out_width", "rows", "columns"),
            *("row_stride", "column_stride", "row_padding", "column_padding", "groups"),
        )
    ]


@functools.cache
def missing() -> str | None:
    """Return why there are no own kernels here, or None where there are; the first call compiles them and tries them out."""
    try:
        for source in ("convolution.c", "statistics.c"):
            _library(source)
    except c_library.NoLibraryError as reason:
        return str(reason)
    return _wrong()


def use_own_kernels(module: GraphModule) -> GraphModule:
    """Let a recorded program take what suits by own kernels."""
    for node in list(module.graph.nodes):
        if node.target is aten.convolution.default:
            _take_convolution(module, node)
        elif node.target is aten.convolution_backward.default:
            _take_derivatives(module, node)
        elif node.target is aten.batch_norm_update_stats.default:
            _take_statistics(module, node)
    module.graph.eliminate_dead_code()
    module.recompile()
    return module


def _take_convolution(module: GraphModule, node: Node) -> None:
    given: Any = node.args
    x, weight, bias, stride, padding, dilation, transposed, _, groups = given
    if not transposed and _suits(x.meta["val"], weight.meta["val"], node.meta["val"], stride, dilation, groups):
        _replace(module, node, torch.ops.metarun.conv.default, (x, weight, bias, stride, padding, groups))


def _take_derivatives(module: GraphModule, node: Node) -> None:
    arguments: Any = node.args
    g, x, weight, _, stride, padding, dilation, transposed, _, groups, _ = arguments
    if transposed or not _suits(x.meta["val"], weight.meta["val"], g.meta["val"], stride, dilation, groups):
        return
    for result in list(node.users):
        which = result.args[1] if result.target is operator.getitem else None
        if which == 0:
            given = (g, weight, list(x.meta["val"].shape), stride, padding, groups)
            _replace(module, result, torch.ops.metarun.conv_input.default, given)
        elif which == 1:
            given = (g, x, list(weight.meta["val"].shape), stride, padding, groups)
            _replace(module, result, torch.ops.metarun.conv_weight.default, given)


def _take_statistics(module: GraphModule, node: Node) -> None:
    given: Any = node.args
    x, x_mean, x_variance, _ = given
    value = x.meta["val"]
    plain = value.dtype == torch.float32 and value.device.type == "cpu" and value.is_contiguous() and value[0, 0].numel() == 1
    if plain and value.shape[1] >= COLUMNS and x_mean is None and x_variance is None:
        _replace(module, node, torch.ops.metarun.column_statistics.default, (x,))


def _replace(module: GraphModule, node: Node, operation: Callable[..., Any], given: tuple[Any, ...]) -> None:
    with module.graph.inserting_before(node):
        new = module.graph.call_function(operation, given)
    new.meta = dict(node.meta)
    node.replace_all_uses_with(new)
    module.graph.erase_node(node)


def _suits(x: Tensor, weight: Tensor, y: Tensor, stride: Sequence[int], dilation: Sequence[int], groups: int) -> bool:
    """Say whether a convolution is one of those that own kernels know and do faster."""
    if len(stride) != 2 or max(stride) == 1 or max(dilation) > 1:
        return False
    if any(each.dtype != torch.float32 or each.device.type != "cpu" or not each.is_contiguous(memory_format=CL) for each in (x, weight, y)):
        return False
    out, into = weight.shape[0] // groups, weight.shape[1]
    many = max(out, into) > CHANNELS or weight.shape[2:].numel() > TAPS or out * weight[0].numel() > WEIGHTS
    return not many and out % VECTOR == 0 and into % VECTOR == 0


@functools.cache
def _library(source: str) -> ctypes.CDLL:
    library = c_library.load(Path(__file__).with_name(source))
    pointer, whole, shape = ctypes.c_void_p, ctypes.c_long, ctypes.POINTER(_Convolution)
    known: dict[str, list[Any]] = {
        "forward": [shape, *[pointer] * 4],
        "input_gradient": [shape, *[pointer] * 3],
        "weight_gradient": [shape, *[pointer] * 3],
        "column_statistics": [whole, whole, *[pointer] * 3],
    }
    for name, arguments in known.items():
        if hasattr(library, name):
            getattr(library, name).argtypes = arguments
    return library


def _convolve(name: str, shape: _Convolution, *tensors: Tensor | None) -> None:
    """Call a function of `convolution.c`; other threads do not wait for it."""
    pointers = [None if tensor is None else tensor.data_ptr() for tensor in tensors]
    if getattr(_library("convolution.c"), name)(ctypes.byref(shape), *pointers):
        raise MemoryError("there is no memory for a convolution.")


def _shape(
    x: Sequence[int], weight: Sequence[int], y: Sequence[int], stride: Sequence[int], padding: Sequence[int], groups: int
) -> _Convolution:
    return _Convolution(x[0], weight[1], weight[0] // groups, *x[2:], *y[2:], *weight[2:], *stride, *padding, groups)


def _conv(x: Tensor, weight: Tensor, bias: Tensor | None, stride: Sequence[int], padding: Sequence[int], groups: int) -> Tensor:
    x, weight, bias = x.contiguous(memory_format=CL), weight.contiguous(memory_format=CL), None if bias is None else bias.contiguous()
    size = [(x.shape[2 + i] + 2 * padding[i] - weight.shape[2 + i]) // stride[i] + 1 for i in (0, 1)]
    y = torch.empty((x.shape[0], weight.shape[0], *size), memory_format=CL)
    _convolve("forward", _shape(x.shape, weight.shape, y.shape, stride, padding, groups), x, weight, bias, y)
    return y


def _conv_input(g: Tensor, weight: Tensor, shape: Sequence[int], stride: Sequence[int], padding: Sequence[int], groups: int) -> Tensor:
    g, weight = g.contiguous(memory_format=CL), weight.contiguous(memory_format=CL)
    x = torch.empty(shape, memory_format=CL)
    _convolve("input_gradient", _shape(shape, weight.shape, g.shape, stride, padding, groups), g, weight, x)
    return x


def _conv_weight(g: Tensor, x: Tensor, shape: Sequence[int], stride: Sequence[int], padding: Sequence[int], groups: int) -> Tensor:
    g, x = g.contiguous(memory_format=CL), x.contiguous(memory_format=CL)
    weight = torch.empty(shape, memory_format=CL)
    _convolve("weight_gradient", _shape(x.shape, shape, g.shape, stride, padding, groups), g, x, weight)
    return weight


def _column_statistics(x: Tensor) -> tuple[Tensor, Tensor]:
    x = x.contiguous()
    mean, variance = torch.empty(x.shape[1]), torch.empty(x.shape[1])
    _library("statistics.c").column_statistics(x.shape[0], x.shape[1], x.data_ptr(), mean.data_ptr(), variance.data_ptr())
    return mean, variance


for _name, _function in (
    ("conv", _conv),
    ("conv_input", _conv_input),
    ("conv_weight", _conv_weight),
    ("column_statistics", _column_statistics),
):
    _OPERATIONS.impl(_name, _function, "CPU")


def _wrong() -> str | None:
    """Try the kernels on small images beside torch's in float64; return what is wrong with them, if anything."""

    def normal(slot: str, *shape: int) -> Tensor:
        return draws.normal(draws.key(0, slot), *shape).contiguous(memory_format=CL)

    pairs = []
    for images, groups, into, out, size, kernel, padding in (
        (7, 2, 16, 48, (6, 5), (3, 3), (1, 1)),
        (2, 1, 80, 16, (4, 7), (1, 2), (0, 1)),
    ):
        x, weight = normal("x", images, groups * into, *size), normal("weight", groups * out, into, *kernel)
        bias, stride = draws.normal(draws.key(0, "bias"), groups * out), (2, 2)
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
    apart = torch.stack([(ours.double() - exact).abs().max() / exact.abs().max() for ours, exact in pairs]).max()  # NaN where one is
    return None if apart < TOLERANCE else f"compiled here, they are off by {apart:.1g}"
