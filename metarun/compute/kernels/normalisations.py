"""Patterns of normalisation in recorded programs: together with the pooling or ReLU behind it, forwards and backwards.

In the formulas norm(x) = (x - mean) / sqrt(var + eps) * weight + bias per channel. Between two operations of a pattern there may be
views that keep the order of the values.
"""

from __future__ import annotations

import math
import operator
from collections.abc import Sequence
from typing import Any

import torch
from torch.fx import Node

from metarun.compute.kernels.operations import CL, aten
from metarun.compute.kernels.views import before_views, in_order, plain, repeat_views, replace, replayed

WORTH = 1 << 12
"""Values of a tensor below which a C kernel gains less than its call costs."""

_c = torch.ops.metarun
_BACKWARD = (_c.norm_relu_backward.default, _c.norm_pool_backward.default)

_BATCH_NORMS = (aten.native_batch_norm.default, aten._native_batch_norm_legit_no_training.default)
"""torch records a batch normalisation as the first operation. torch 2.6 records the second one, which has no argument `training`."""


def column_statistics(node: Node) -> None:
    """Replace the mean and variance of each channel by `metarun.column_statistics`, for images of one pixel."""
    arguments: Any = node.args
    x, running_mean, running_var, _ = arguments
    shape = x.meta["val"].shape
    one_pixel = shape[2:].numel() == 1 and shape[1] >= WORTH
    if one_pixel and plain(x, torch.contiguous_format) and running_mean is None and running_var is None:
        replace(node, _c.column_statistics.default, (x,))


def pooled(node: Node) -> None:
    """Replace maxpool(norm(x)) by norm_pool(x), where an operation reads the places of the maxima and no other one reads norm(x)."""
    if _reads_places(node) and (norm := _pooled_normalisation(node)[0]):
        replace(node, _c.norm_pool.default, norm)


def maxima(node: Node) -> None:
    """Replace maxpool(norm(x)) by norm_maxima(x), and maxpool(x * scale + shift) by scaled_maxima(x, scale, shift).

    No operation reads the places of the maxima, and no other one reads norm(x) or the product.
    """
    pooling: Any = node.args[0]
    if _reads_places(pooling):
        return
    norm, scaled = _pooled_normalisation(pooling)
    if norm is not None:
        replace(node, _c.norm_maxima.default, norm)
    elif scaled is not None:
        replace(node, _c.scaled_maxima.default, scaled)


def _reads_places(pooling: Node) -> bool:
    """Say whether anything but the first result of a pooling, the maxima, is read."""
    return any(user.target is not operator.getitem or user.args[1] != 0 for user in pooling.users)


def _pooled_normalisation(pooling: Node) -> tuple[tuple[Any, ...] | None, tuple[Any, ...] | None]:
    """Return the arguments of the norm(x) that windows of 2 x 2 pool, and else (x, scale, shift) of x * scale + shift.

    None stands for each of the two that the program does not have.
    """
    arguments: Any = pooling.args
    x, *windows = arguments
    if not _halves(windows):
        return None, None
    result, views = before_views(x)
    norm = _normalisation(result) if in_order(result, views) else None
    return norm, None if norm else _scaling(result, views)


def rectified(node: Node) -> None:
    """Replace relu(views(norm(x))) by views(norm_relu(x)), where no other operation reads norm(x). These views may reorder the values."""
    viewed: Any = node.args[0]
    result, _ = before_views(viewed)
    norm = _normalisation(result)
    if norm is not None:
        replace(result, _c.norm_relu.default, norm)
        node.replace_all_uses_with(node.args[0])  # type: ignore[arg-type]


def _normalisation(result: Node) -> tuple[Any, ...] | None:
    """Return (x, weight, bias, mean, var, eps) of norm(x), where `result` is norm(x) and one operation reads it; else None."""
    if result.target is not operator.getitem or result.args[1] != 0 or len(result.users) != 1:
        return None
    norm: Any = result.args[0]
    if norm.target not in _BATCH_NORMS or len(norm.users) > 1 or not _worth(norm.args[0]):
        return None
    if norm.target is _BATCH_NORMS[1]:
        *tensors, _, eps = norm.args
        return (*tensors, eps)
    *tensors, training, _, eps = norm.args
    return None if training else (*tensors, eps)


def _scaling(result: Node, views: Sequence[Node]) -> tuple[Node, Node, Node] | None:
    """Return (x, scale, shift), where `result` is x * scale + shift with one scale and shift per channel for all tasks; else None.

    views: between `result` and the operation that reads it. They and the views before the product must keep the order of x together.
    """
    if result.target is not aten.addcmul.default or result.kwargs or len(result.users) != 1:
        return None
    arguments: Any = result.args
    shift, viewed, scale = arguments
    x, before = before_views(viewed)
    if not _worth(x) or not in_order(x, [*before, *views]):
        return None
    channels, *size = x.meta["val"].shape[1:]
    images = replayed(x.meta["val"].shape, before)
    in_place = images is not None and images.is_contiguous() and images.shape[-3:] == result.meta["val"].shape[-3:] == (channels, *size)
    return (x, scale, shift) if in_place and _per_channel(scale, channels) and _per_channel(shift, channels) else None


def _per_channel(node: Node, channels: int) -> bool:
    """Say whether a node's value is one number per channel, in a shape that broadcasts over images."""
    value = node.meta["val"]
    return plain(node, torch.contiguous_format) and value.shape[-3:] == (channels, 1, 1) and value.numel() == channels


def gradients(node: Node) -> None:
    """Replace norm_backward(g, x), where g comes from the gradient of a pooling or a ReLU and no other operation reads it."""
    arguments: Any = node.args
    gradient, x, _, _, _, mean, _, training, *_ = arguments
    if not training or mean is None or not _worth(x):
        return
    passed, views = before_views(gradient, copies=True)
    if len(passed.users) != 1:
        return
    if passed.target is aten.max_pool2d_with_indices_backward.default:
        _gradients_through_pooling(node, passed, views)
    elif passed.target is aten.threshold_backward.default:
        _gradients_through_relu(node, passed, views)


def _gradients_through_pooling(node: Node, pooling: Node, views: Sequence[Node]) -> None:
    """Replace norm_backward(maxpool_backward(g, places), x) by norm_pool_backward(g, places, x)."""
    arguments: Any = node.args
    _, x, weight, _, _, mean, inverse, *_ = arguments
    of_pooling: Any = pooling.args
    g, _, *windows, places = of_pooling
    if _halves(windows) and in_order(pooling, views):
        replace(node, _c.norm_pool_backward.default, (g, places, x, weight, mean, inverse))


def _gradients_through_relu(node: Node, relu: Node, views: Sequence[Node]) -> None:
    """Replace norm_backward(views(relu_backward(g, y)), x), where y = norm_relu(x), by norm_relu_backward(views(g), x)."""
    of_relu: Any = relu.args
    g, y, threshold = of_relu
    norm, behind = before_views(y, alone=False, copies=True)
    same_shape = g.meta["val"].shape == relu.meta["val"].shape
    if threshold == 0 and same_shape and _differentiates(node, norm) and in_order(norm, [*behind, *views]):
        replace(node, _c.norm_relu_backward.default, (repeat_views(g, views, before=node), *norm.args))


def _differentiates(backward: Node, norm: Node) -> bool:
    """Say whether `backward` belongs to `norm`: the same x, weight and mean, and inverse = 1 / sqrt(var + eps) by its var and eps."""
    if norm.target is not _c.norm_relu.default:
        return False
    arguments: Any = (*norm.args, *backward.args)
    x, weight, _, mean, var, eps, _, backward_x, backward_weight, _, _, backward_mean, inverse, *_ = arguments
    root, _ = before_views(inverse, alone=False)
    radicand = root.args[0] if root.target is aten.rsqrt.default else None
    plus_eps = isinstance(radicand, Node) and radicand.target is aten.add.Tensor and not radicand.kwargs
    same_inverse = plus_eps and radicand.args == (var, eps)  # type: ignore[union-attr]
    same_images = backward_x is x and backward_weight is weight
    return same_images and same_inverse and before_views(backward_mean, alone=False)[0] is mean


def bias_gradient_of_nothing(node: Node) -> None:
    """Replace the sum of dL/dx over each channel by 0, where dL/dx is the gradient of a normalisation: the gradient of a bias before it.

    With r = 1 / sqrt(var + eps) and x̂ = (x - mean) r, dL/dx = w r (g - mean(g) - x̂ mean(g x̂)). Its sum is 0, since mean(x̂) = 0.
    torch sums the rounding errors of dL/dx instead, in another pass over the largest images.
    """
    arguments: Any = node.args
    viewed, dims, *_ = arguments
    gradient, views = before_views(viewed, alone=False)
    if node.kwargs or dims is None or gradient.target is not operator.getitem:
        return
    source: Any = gradient.args[0]
    by_images = gradient.args[1] == 0 and source.target in _BACKWARD
    if by_images and _sums_each_channel(gradient.meta["val"].shape, views, dims):
        replace(node, aten.new_zeros.default, (viewed, list(node.meta["val"].shape)))


def _sums_each_channel(shape: torch.Size, views: Sequence[Node], dims: Sequence[int]) -> bool:
    """Say whether a sum over these axes of views of images (B, C, H, W) gives one sum for each channel, over all of its values."""
    images = replayed(shape, views)
    if images is None:
        return False
    summed = {dim % images.dim() for dim in dims}
    kept = [(images.shape[axis], images.stride(axis)) for axis in range(images.dim()) if axis not in summed]
    channels, pixels = shape[1], shape[2:].numel()
    as_many = math.prod(size for size, _ in kept) == channels
    whole_images_apart = all(stride % pixels == 0 for _, stride in kept)
    reaches_the_last_channel = sum((size - 1) * stride for size, stride in kept) == (channels - 1) * pixels
    return as_many and whole_images_apart and reaches_the_last_channel


def _halves(windows: Sequence[Any]) -> bool:
    """Say whether windows are 2 x 2 and side by side.

    windows: kernel, stride, padding, dilation, ceil_mode. torch leaves out the last ones where they have their defaults.
    """
    defaults: list[Any] = [[], [0, 0], [1, 1], False]
    kernel, stride, *rest = (*windows, *defaults[len(windows) - 1 :])
    return list(kernel) == [2, 2] and list(stride) in ([], [2, 2]) and tuple(rest) == ([0, 0], [1, 1], False)


def _worth(x: Node) -> bool:
    """Say whether images lie in memory as the C kernels need them and are large enough to be worth a call."""
    value = x.meta["val"]
    return value.dim() == 4 and plain(x, CL) and bool(value.numel() >= WORTH)
