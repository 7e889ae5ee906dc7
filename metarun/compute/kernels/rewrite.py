"""What of a recorded program is done by kernels of our own, in the place of torch's (`metarun.compute.kernels.operations`).

torch's kernels for a processor take the derivatives of a convolution with stride 2 at half the speed of one with stride 1, and small images
slower still, as they do with the derivative by the weight whatever the stride; for kernels of 3 x 3 they multiply as often as the formula
says, where tiles need less than half of that; between normalisation and what follows it they write and read the largest images of a network
several times. Whether own kernels may be used is decided once for a run (`Plan.kernels`); what they take of a program, by shapes and layouts
alone. Results agree to rounding, also where torch leaves rounding alone: of the derivative by a bias that normalisation takes away again, which
is 0, an outer optimizer that divides by its size (Adam) makes steps all the same.
"""

from __future__ import annotations

import math
import operator
from collections.abc import Callable, Sequence
from typing import Any

import torch
from torch import Tensor
from torch.fx import GraphModule, Node

from metarun.compute.kernels.operations import CHANNELS, CL, TAPS, VECTOR, aten, tiled

WEIGHTS = 1 << 16
"""Values of a group's weight, or of one place of its tiles, above which they no longer stay in a core's cache and torch's kernels are faster."""
WORTH = 1 << 12
"""Values below which a kernel gains less than its call costs."""

own = torch.ops.metarun
_TO_IMAGES = (own.norm_relu_backward.default, own.norm_pool_backward.default)
_VIEWS = (aten.view.default, aten._unsafe_view.default, aten.permute.default)
_COPY = aten.clone.default


def use_own_kernels(module: GraphModule) -> GraphModule:
    """Let a recorded program take what suits by own kernels."""
    module.graph.eliminate_dead_code()  # what nobody reads would count as a reader
    for node in list(module.graph.nodes):
        if node.target is aten.convolution.default:
            _take_convolution(module, node)
        elif node.target is aten.convolution_backward.default:
            _take_derivatives(module, node)
        elif node.target is aten.batch_norm_update_stats.default:
            _take_statistics(module, node)
        elif node.target is aten.max_pool2d_with_indices.default:
            _take_normalised_maxima(module, node)
        elif node.target is aten.relu.default:
            _take_normalised_and_rectified(module, node)
        elif node.target is aten.native_batch_norm_backward.default:
            _take_their_derivatives(module, node)
        elif node.target is aten.sum.dim_IntList:
            _take_sums_of_nothing(module, node)
    module.graph.eliminate_dead_code()
    module.recompile()
    return module


def _take_convolution(module: GraphModule, node: Node) -> None:
    given: Any = node.args
    x, weight, bias, stride, padding, dilation, transposed, _, groups = given
    images, by, result = (each.meta["val"] for each in (x, weight, node))
    if not transposed and _suits(images, by, result, stride, dilation, groups) and _slow(by, result, stride):
        _replace(module, node, own.conv.default, (x, weight, bias, stride, padding, groups))


def _take_derivatives(module: GraphModule, node: Node) -> None:
    arguments: Any = node.args
    g, x, weight, _, stride, padding, dilation, transposed, _, groups, _ = arguments
    images, by, gradient = (each.meta["val"] for each in (x, weight, g))
    if transposed or not _suits(images, by, gradient, stride, dilation, groups):
        return
    for result in list(node.users):
        which = result.args[1] if result.target is operator.getitem else None
        if not result.meta["val"].is_contiguous(memory_format=CL):
            continue
        if which == 0 and _slow(by, gradient, stride):
            given = (g, weight, list(images.shape), stride, padding, groups)
            _replace(module, result, own.conv_input.default, given)
        elif which == 1:
            given = (g, x, list(by.shape), stride, padding, groups)
            _replace(module, result, own.conv_weight.default, given)


def _take_statistics(module: GraphModule, node: Node) -> None:
    given: Any = node.args
    x, running_mean, running_var, _ = given
    value = x.meta["val"]
    plain = _plain(value, torch.contiguous_format) and value.shape[2:].numel() == 1
    if plain and value.shape[1] >= WORTH and running_mean is None and running_var is None:
        _replace(module, node, own.column_statistics.default, (x,))


def _take_normalised_maxima(module: GraphModule, node: Node) -> None:
    """Take a pooling of images that are normalised for nothing else; where nobody asks for their places, the maxima alone."""
    given: Any = node.args
    x, *geometry = given
    if not _halves(geometry):
        return
    result, views = _before_views(x)
    norm = _normalisation(result) if _in_order(result, views) else None
    if any(user.target is not operator.getitem or user.args[1] != 0 for user in node.users):
        if norm is not None:
            _replace(module, node, own.norm_pool.default, norm)
        return
    scaled = None if norm else _scaling(result, views)
    for maxima in list(node.users):
        if norm is not None:
            _replace(module, maxima, own.norm_maxima.default, norm)
        elif scaled is not None:
            _replace(module, maxima, own.scaled_maxima.default, scaled)


def _take_normalised_and_rectified(module: GraphModule, node: Node) -> None:
    """Take a rectification of images that are normalised for nothing else; views between the two are left behind it."""
    x: Any = node.args[0]
    result, _ = _before_views(x)
    norm = _normalisation(result)
    if norm is not None:
        _replace(module, result, own.norm_relu.default, norm)
        node.replace_all_uses_with(node.args[0])  # type: ignore[arg-type]


def _normalisation(result: Node) -> tuple[Any, ...] | None:
    """Return x, weight, bias, mean, var and eps of the normalisation that a node is the result of, if it is the one result of one with given
    statistics.
    """
    if result.target is not operator.getitem or result.args[1] != 0 or len(result.users) != 1:
        return None
    norm: Any = result.args[0]
    if norm.target is not aten.native_batch_norm.default or len(norm.users) > 1 or not _worth(norm.args[0]):
        return None
    *given, training, _, eps = norm.args
    return None if training else (*given, eps)


def _scaling(result: Node, views: Sequence[Node]) -> tuple[Node, Node, Node] | None:
    """Return x, scale and shift where a node is x * scale + shift by channel, views aside: normalised by numbers that all tasks share."""
    if result.target is not aten.addcmul.default or result.kwargs or len(result.users) != 1:
        return None
    given: Any = result.args
    shift, viewed, scale = given
    x, before = _before_views(viewed)
    if not _worth(x) or not _in_order(x, [*before, *views]):
        return None
    channels, *size = x.meta["val"].shape[1:]
    images = _replayed(x.meta["val"].shape, before)
    as_they_lie = images is not None and images.is_contiguous() and images.shape[-3:] == result.meta["val"].shape[-3:] == (channels, *size)
    by_channel = all(
        _plain(each, torch.contiguous_format) and each.shape[-3:] == (channels, 1, 1) and each.numel() == channels
        for each in (scale.meta["val"], shift.meta["val"])
    )
    return (x, scale, shift) if as_they_lie and by_channel else None


def _take_their_derivatives(module: GraphModule, node: Node) -> None:
    """Take the derivative of a normalisation whose result is used by a pooling or a rectification only."""
    given: Any = node.args
    g, x, weight, _, _, mean, inverse, training, *_ = given
    if not training or mean is None or not _worth(x):
        return
    result, views = _before_views(g, copies=True)
    if len(result.users) != 1:
        return
    through: Any = result.args
    if result.target is aten.max_pool2d_with_indices_backward.default:
        g, _, *geometry, places = through
        if _halves(geometry) and _in_order(result, views):
            _replace(module, node, own.norm_pool_backward.default, (g, places, x, weight, mean, inverse))
    elif result.target is aten.threshold_backward.default:
        g, y, threshold = through
        rectified, after = _before_views(y, alone=False, copies=True)
        known = rectified.target is own.norm_relu.default and _normalises(rectified, x, weight, mean, inverse)
        alike = g.meta["val"].shape == result.meta["val"].shape
        if threshold == 0 and known and alike and _in_order(rectified, [*after, *views]):
            _replace(module, node, own.norm_relu_backward.default, (_viewed(module, g, views, node), *rectified.args))


def _normalises(node: Node, x: Node, weight: Node | None, mean: Node, inverse: Node) -> bool:
    """Say whether a normalisation is that of x, by this weight and the statistics that this mean and inverse are of."""
    given: Any = node.args
    *of_images, of_mean, of_var, eps = given
    deviation, _ = _before_views(inverse, alone=False)
    squared = deviation.args[0] if deviation.target is aten.rsqrt.default else None
    by_var = isinstance(squared, Node) and squared.target is aten.add.Tensor and squared.args == (of_var, eps) and not squared.kwargs
    return of_images[:2] == [x, weight] and _before_views(mean, alone=False)[0] is of_mean and by_var


def _take_sums_of_nothing(module: GraphModule, node: Node) -> None:
    """Take the derivative by a bias before a normalisation, which takes it away again: that by the images sums to 0 over each channel.

    What torch's kernels give is what rounding leaves of it, for another passage through the largest images.
    """
    given: Any = node.args
    x, dims, *_ = given
    result, views = _before_views(x, alone=False)
    through: Any = result.args if result.target is operator.getitem else (None, None)
    if through[1] != 0 or through[0].target not in _TO_IMAGES or dims is None or node.kwargs:
        return
    shape = result.meta["val"].shape
    images = _replayed(shape, views)
    if images is None:
        return
    summed = {dim % images.dim() for dim in dims}
    kept = [(images.shape[axis], images.stride(axis)) for axis in range(images.dim()) if axis not in summed]
    channels, pixels = shape[1], shape[2:].numel()
    # In however many axes: what is kept are as many places as there are channels, whole images apart, and the last one is the last channel.
    one_by_one = (
        all(stride % pixels == 0 for _, stride in kept) and sum((size - 1) * stride for size, stride in kept) == (channels - 1) * pixels
    )
    if one_by_one and math.prod(size for size, _ in kept) == channels:
        _replace(module, node, aten.new_zeros.default, (x, list(node.meta["val"].shape)))


def _halves(geometry: Sequence[Any]) -> bool:
    """Say whether windows are of 2 x 2, side by side; geometry: kernel, stride, padding, dilation, ceil, as far as they are given."""
    whole = (*geometry, *([[], [0, 0], [1, 1], False][len(geometry) - 1 :]))
    return list(whole[0]) == [2, 2] and list(whole[1]) in ([], [2, 2]) and whole[2:] == ([0, 0], [1, 1], False)


def _worth(x: Node) -> bool:
    value = x.meta["val"]
    return value.dim() == 4 and _plain(value, CL) and bool(value.numel() >= WORTH)


def _plain(value: Tensor, order: torch.memory_format) -> bool:
    """Say whether a tensor is of the type, place and order in memory that own kernels know."""
    return value.dtype == torch.float32 and value.device.type == "cpu" and value.is_contiguous(memory_format=order)


def _before_views(node: Node, *, alone: bool = True, copies: bool = False) -> tuple[Node, list[Node]]:
    """Return the node of whose result this one is but a view, and the views, the first one first.

    alone: look only through views that are read once, so that nothing else reads what they view. copies: look through copies, too.
    """
    views: list[Node] = []
    while (node.target in _VIEWS or (copies and node.target is _COPY)) and (len(node.users) == 1 or not alone):
        views.insert(0, node)
        node = node.args[0]  # type: ignore[assignment]
    return node, views


def _in_order(node: Node, views: Sequence[Node]) -> bool:
    """Say whether views of a node's result leave its shape and the order of its values."""
    shape = node.meta["val"].shape
    viewed = _replayed(shape, views)
    return viewed is not None and viewed.shape == shape and viewed.is_contiguous()


def _replayed(shape: Sequence[int], views: Sequence[Node]) -> Tensor | None:
    """Return what views make of a tensor of this shape whose values lie in order, or None where they depend on another order.

    Copies are left out: the strides of what is returned say where each value came from.
    """
    viewed = torch.empty(shape, device="meta")
    for view in views:
        operation: Any = view.target
        try:
            viewed = viewed if operation is _COPY else operation(viewed, *view.args[1:])
        except RuntimeError:
            return None
    return viewed


def _viewed(module: GraphModule, node: Node, views: Sequence[Node], before: Node) -> Node:
    """Return a node after the same views, put into the program before another one, and copied where it lies otherwise in memory."""
    with module.graph.inserting_before(before):
        for view in views:
            if view.target is not _COPY:
                operation: Any = view.target if view.target is aten.permute.default else aten.reshape.default
                value = operation(node.meta["val"], *view.args[1:])
                node = module.graph.call_function(operation, (node, *view.args[1:]))
                node.meta = view.meta | {"val": value}
    return node


def _replace(module: GraphModule, node: Node, operation: Callable[..., Any], given: tuple[Any, ...]) -> None:
    with module.graph.inserting_before(node):
        new = module.graph.call_function(operation, given)
    new.meta = dict(node.meta)
    node.replace_all_uses_with(new)
    module.graph.erase_node(node)


def _suits(x: Tensor, weight: Tensor, y: Tensor, stride: Sequence[int], dilation: Sequence[int], groups: int) -> bool:
    """Say whether a convolution is one of those that own kernels know, and are faster with."""
    if len(dilation) != 2 or max(dilation) > 1 or not all(_plain(each, CL) for each in (x, weight, y)):
        return False
    out, into, places = weight.shape[0] // groups, weight.shape[1], weight.shape[2:].numel()
    at_once = out * into * (1 if tiled(weight.shape, y.shape, stride) else places)
    many = max(out, into) > CHANNELS or places > TAPS or at_once > WEIGHTS
    return not many and out % VECTOR == 0 and into % VECTOR == 0


def _slow(weight: Tensor, y: Tensor, stride: Sequence[int]) -> bool:
    """Say whether torch's kernels are slow with a convolution, and with its derivative by the images."""
    return max(stride) > 1 or tiled(weight.shape, y.shape, stride)
