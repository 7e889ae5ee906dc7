"""Replaces operations of a recorded program by C kernels (`metarun.compute.kernels.operations`).

torch's CPU kernels lose time in three places:

- The gradients of a convolution with stride 2 take twice as long as those with stride 1. Small images make every weight gradient slow.
- A convolution with a kernel of 3 x 3 makes every multiplication of the formula. Winograd's tiles need less than half of them.
- The largest images of a network are written and read several times between a normalisation and the pooling or ReLU behind it.

`Plan.kernels` decides once for a run whether C kernels are used. Shapes and memory layouts decide which operations they replace.
Results equal those of torch up to rounding. One gradient consists of nothing but rounding: a bias before a normalisation has the gradient
0. An optimizer that divides by the size of a gradient (Adam) takes steps along the rounding error of torch, and none with C kernels.
"""

from __future__ import annotations

import operator
from collections.abc import Callable, Sequence
from typing import Any

import torch
from torch.fx import GraphModule, Node

from metarun.compute.kernels import normalisations
from metarun.compute.kernels.operations import CHANNELS, CL, TAPS, VECTOR, aten, tiled
from metarun.compute.kernels.views import plain, replace

WEIGHTS = 1 << 16
"""Values of a group's weight (or of one place of its tiles). More of them leave a core's cache, and torch's kernels are faster."""

_c = torch.ops.metarun


def rewrite(module: GraphModule) -> GraphModule:
    """Apply each pattern to each node of the program, from the first node to the last."""
    module.graph.eliminate_dead_code()  # an operation without readers would count as a reader itself
    for node in list(module.graph.nodes):
        pattern = _PATTERNS.get(_produced_by(node))
        if pattern is not None:
            pattern(node)
    module.graph.eliminate_dead_code()
    module.recompile()
    return module


def _produced_by(node: Node) -> tuple[Any, int | None]:
    """Return the operation that produces a node's value, and the place of the value among several results (None for a single result)."""
    if node.target is operator.getitem:
        arguments: Any = node.args
        source, place = arguments
        return source.target, place
    return node.target, None


def _convolution(node: Node) -> None:
    """Y = conv(x, w) + b."""
    arguments: Any = node.args
    x, weight, bias, *geometry = arguments
    if _suits(x, weight, node, geometry) and _slow(weight, node, geometry):
        replace(node, _c.conv.default, (x, weight, bias, *_c_geometry(geometry)))


def _input_gradient(node: Node) -> None:
    """dL/dx = conv_input(g, w) with g = dL/dy; of x only the shape is read."""
    backward: Any = node.args[0]
    g, x, weight, _, *geometry, _ = backward.args
    if _suits(x, weight, g, geometry) and plain(node, CL) and _slow(weight, g, geometry):
        replace(node, _c.conv_input.default, (g, weight, list(x.meta["val"].shape), *_c_geometry(geometry)))


def _weight_gradient(node: Node) -> None:
    """dL/dw = conv_weight(g, x) with g = dL/dy; of w only the shape is read."""
    backward: Any = node.args[0]
    g, x, weight, _, *geometry, _ = backward.args
    if _suits(x, weight, g, geometry) and plain(node, CL):
        replace(node, _c.conv_weight.default, (g, x, list(weight.meta["val"].shape), *_c_geometry(geometry)))


def _suits(x: Node, weight: Node, y: Node, geometry: Sequence[Any]) -> bool:
    """Say whether a C kernel exists for a convolution, and is faster with its weight gradient than torch.

    geometry: stride, padding, dilation, transposed, output_padding, groups, as `aten.convolution` takes them.
    """
    stride, _, dilation, transposed, _, groups = geometry
    if transposed or len(dilation) != 2 or max(dilation) > 1 or not all(plain(images, CL) for images in (x, weight, y)):
        return False
    shape = weight.meta["val"].shape
    outputs, inputs, taps = shape[0] // groups, shape[1], shape[2:].numel()
    in_cache = outputs * inputs * (1 if tiled(shape, y.meta["val"].shape, stride) else taps) <= WEIGHTS
    return in_cache and max(outputs, inputs) <= CHANNELS and taps <= TAPS and outputs % VECTOR == 0 and inputs % VECTOR == 0


def _slow(weight: Node, y: Node, geometry: Sequence[Any]) -> bool:
    """Say whether torch's kernels are slow with a convolution and with its input gradient."""
    stride = geometry[0]
    return max(stride) > 1 or tiled(weight.meta["val"].shape, y.meta["val"].shape, stride)


def _c_geometry(geometry: Sequence[Any]) -> tuple[Any, Any, Any]:
    """Return the stride, padding and groups that the C kernels take."""
    stride, padding, _, _, _, groups = geometry
    return stride, padding, groups


_PATTERNS: dict[tuple[Any, int | None], Callable[[Node], None]] = {
    (aten.convolution.default, None): _convolution,
    (aten.convolution_backward.default, 0): _input_gradient,
    (aten.convolution_backward.default, 1): _weight_gradient,
    (aten.batch_norm_update_stats.default, None): normalisations.column_statistics,
    (aten.max_pool2d_with_indices.default, None): normalisations.pooled,
    (aten.max_pool2d_with_indices.default, 0): normalisations.maxima,
    (aten.relu.default, None): normalisations.rectified,
    (aten.native_batch_norm_backward.default, None): normalisations.gradients,
    (aten.sum.dim_IntList, None): normalisations.bias_gradient_of_nothing,
}
