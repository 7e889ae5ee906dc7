"""Convolution whose weights may differ from task to task, with exact derivatives of every order, and one kernel for all tasks under `vmap`.

A convolution is bilinear, and so are its two gradients. Each of the three functions is a partial derivative of the other two:

    y = conv(x, w)        dL/dx = conv_input(g, w)        dL/dw = conv_weight(g, x)        with g = dL/dy

The three functions below therefore differentiate into each other, to any order. Each calls one torch operation with one result: a recorded
program then shows which of the three it computes, and `metarun.compute.kernels` replaces each by the C kernel of the same name.

Mapped over tasks, a function folds the tasks into one axis: into the channels, as groups, where both arguments differ by task; into the
rows or the output channels where all tasks share one argument. The shapes alone decide. Images keep their channels last in memory, tasks
next to channels, from layer to layer. The CPU kernels are several times faster in this layout, and no copy is needed between two layers.
"""

from __future__ import annotations

from typing import Any, NamedTuple

import torch
from torch import Tensor, nn
from torch.nn import functional as F

from metarun.layers.precision import as_autocast

CL = torch.channels_last


class Geometry(NamedTuple):
    """stride, padding, dilation: (rows, columns) each. groups: of the channels of one task."""

    stride: tuple[int, int]
    padding: tuple[int, int]
    dilation: tuple[int, int]
    groups: int

    def for_tasks(self, tasks: int) -> Geometry:
        """Return the geometry for this number of tasks side by side in the channels."""
        return self._replace(groups=self.groups * tasks)


def conv2d(x: Tensor, weight: Tensor, bias: Tensor | None, geometry: Geometry) -> Tensor:
    """Return the convolution (cross-correlation) of x (B, C, H, W) with weight (O, C / groups, h, w), plus bias (O,).

    Under autocast the arguments are cast here, before the functions that save them, so that all derivatives see one type.
    """
    x, weight, bias = as_autocast(x), as_autocast(weight), None if bias is None else as_autocast(bias)
    out: Tensor = _Conv.apply(x, weight, geometry) if bias is None else _BiasedConv.apply(x, weight, bias, geometry)
    return out


class Conv2d(nn.Conv2d):
    """`nn.Conv2d` with the same parameters under the same names, computed by `conv2d`."""

    def forward(self, input: Tensor) -> Tensor:
        """Return the convolution of input (B, C, H, W), padded according to `padding_mode`. torch computes other shapes."""
        if input.dim() != 4:
            return super().forward(input)
        x, padding = input, self.padding
        if isinstance(padding, str) or self.padding_mode != "zeros":
            mode = "constant" if self.padding_mode == "zeros" else self.padding_mode
            x, padding = F.pad(x, self._reversed_padding_repeated_twice, mode=mode), (0, 0)
        return conv2d(x, self.weight, self.bias, Geometry(self.stride, padding, self.dilation, self.groups))  # type: ignore[arg-type]


def channels_last(x: Tensor) -> Tensor:
    """Return x (B, C, H, W) with its channels last in memory, and with the strides that say so also for one channel and for one row.

    The stride of an axis of length 1 may be any number. torch 2.13 reads the stride of one row, and computes a wrong weight gradient.
    """
    rows, channels, height, width = x.shape
    if channels == 1:
        return x.reshape(rows, height, width, 1).permute(0, 3, 1, 2)
    if rows == 1:
        return x.permute(0, 2, 3, 1).reshape(-1).reshape(rows, height, width, channels).permute(0, 3, 1, 2)
    return x.contiguous(memory_format=CL)


def fold_tasks(x: Tensor, task_dim: int, axis: int) -> Tensor:
    """Move the task axis in front of another axis and merge the two, so that index = task * size + place.

    task_dim: the place of the task axis. axis: of the result, 0 or 1. Images (five axes) that are copied get their channels last in memory.
    """
    x = x.movedim(task_dim, axis)
    if x.dim() != 5:
        return x.flatten(axis, axis + 1)
    first, second, third, height, width = x.shape
    if axis == 0:
        return x.permute(0, 1, 3, 4, 2).reshape(first * second, height, width, third).permute(0, 3, 1, 2)
    return x.permute(0, 3, 4, 1, 2).reshape(first, height, width, second * third).permute(0, 3, 1, 2)


def repeat_for_tasks(vector: Tensor, tasks: int) -> Tensor:
    """Return a vector (C,) that all tasks share once for each task: (T * C,)."""
    return vector.expand(tasks, -1).reshape(-1)


class _Conv(torch.autograd.Function):
    """y = conv(x, w)."""

    @staticmethod
    def forward(x: Tensor, weight: Tensor, geometry: Geometry) -> Tensor:
        return _convolution(x, weight, None, geometry)

    @staticmethod
    def setup_context(ctx: Any, inputs: Any, output: Tensor) -> None:
        x, weight, ctx.geometry = inputs
        ctx.save_for_backward(x, weight)

    @staticmethod
    def backward(ctx: Any, g: Tensor) -> Any:
        x, weight = ctx.saved_tensors
        needs = ctx.needs_input_grad
        return (
            _ConvInput.apply(g, weight, tuple(x.shape), ctx.geometry) if needs[0] else None,
            _ConvWeight.apply(g, x, tuple(weight.shape), ctx.geometry) if needs[1] else None,
            None,
        )

    @staticmethod
    def vmap(info: Any, in_dims: Any, x: Tensor, weight: Tensor, geometry: Geometry) -> tuple[Tensor, int]:
        return _over_tasks(info.batch_size, in_dims, x, weight, None, geometry)


class _BiasedConv(torch.autograd.Function):
    """y = conv(x, w) + b. The kernel adds the bias."""

    @staticmethod
    def forward(x: Tensor, weight: Tensor, bias: Tensor, geometry: Geometry) -> Tensor:
        return _convolution(x, weight, bias, geometry)

    @staticmethod
    def setup_context(ctx: Any, inputs: Any, output: Tensor) -> None:
        x, weight, _, ctx.geometry = inputs
        ctx.save_for_backward(x, weight)

    @staticmethod
    def backward(ctx: Any, g: Tensor) -> Any:
        by_x, by_weight, _ = _Conv.backward(ctx, g)
        return by_x, by_weight, g.sum((0, 2, 3)) if ctx.needs_input_grad[2] else None, None

    @staticmethod
    def vmap(info: Any, in_dims: Any, x: Tensor, weight: Tensor, bias: Tensor, geometry: Geometry) -> tuple[Tensor, int]:
        return _over_tasks(info.batch_size, in_dims, x, weight, bias, geometry)


class _ConvInput(torch.autograd.Function):
    """dL/dx from g = dL/dy and w."""

    @staticmethod
    def forward(g: Tensor, weight: Tensor, shape: tuple[int, ...], geometry: Geometry) -> Tensor:
        g, weight = channels_last(g), channels_last(weight)
        x = torch.empty(shape, dtype=g.dtype, device=g.device, memory_format=CL)
        return _gradient(0, g, x, weight, geometry)

    @staticmethod
    def setup_context(ctx: Any, inputs: Any, output: Tensor) -> None:
        g, weight, _, ctx.geometry = inputs
        ctx.save_for_backward(g, weight)

    @staticmethod
    def backward(ctx: Any, v: Tensor) -> Any:
        g, weight = ctx.saved_tensors
        needs = ctx.needs_input_grad
        return (
            _Conv.apply(v, weight, ctx.geometry) if needs[0] else None,
            _ConvWeight.apply(g, v, tuple(weight.shape), ctx.geometry) if needs[1] else None,
            None,
            None,
        )

    @staticmethod
    def vmap(info: Any, in_dims: Any, g: Tensor, weight: Tensor, shape: tuple[int, ...], geometry: Geometry) -> tuple[Tensor, int]:
        tasks, (g_dim, weight_dim) = info.batch_size, in_dims[:2]
        rows, channels, *size = shape
        if weight_dim is None:
            out = _ConvInput.apply(fold_tasks(g, g_dim, 0), weight, (tasks * rows, channels, *size), geometry)
            return out.unflatten(0, (tasks, rows)), 0
        weight = fold_tasks(weight, weight_dim, 0)
        g = fold_tasks(g, g_dim, 1) if g_dim is not None else g.repeat(1, tasks, 1, 1)
        out = _ConvInput.apply(g, weight, (rows, tasks * channels, *size), geometry.for_tasks(tasks))
        return out.unflatten(1, (tasks, channels)), 1


class _ConvWeight(torch.autograd.Function):
    """dL/dw from g = dL/dy and x."""

    @staticmethod
    def forward(g: Tensor, x: Tensor, shape: tuple[int, ...], geometry: Geometry) -> Tensor:
        g, x = channels_last(g), channels_last(x)
        weight = torch.empty(shape, dtype=g.dtype, device=g.device, memory_format=CL)
        return _gradient(1, g, x, weight, geometry)

    @staticmethod
    def setup_context(ctx: Any, inputs: Any, output: Tensor) -> None:
        g, x, _, ctx.geometry = inputs
        ctx.save_for_backward(g, x)

    @staticmethod
    def backward(ctx: Any, v: Tensor) -> Any:
        g, x = ctx.saved_tensors
        needs = ctx.needs_input_grad
        return (
            _Conv.apply(x, v, ctx.geometry) if needs[0] else None,
            _ConvInput.apply(g, v, tuple(x.shape), ctx.geometry) if needs[1] else None,
            None,
            None,
        )

    @staticmethod
    def vmap(info: Any, in_dims: Any, g: Tensor, x: Tensor, shape: tuple[int, ...], geometry: Geometry) -> tuple[Tensor, int]:
        tasks, (g_dim, x_dim) = info.batch_size, in_dims[:2]
        out_channels, *rest = shape
        g = fold_tasks(g, g_dim, 1) if g_dim is not None else g.repeat(1, tasks, 1, 1)
        if x_dim is None and geometry.groups == 1:  # one input under the gradients of all tasks
            out = _ConvWeight.apply(g, x, (tasks * out_channels, *rest), geometry)
        else:
            x = fold_tasks(x, x_dim, 1) if x_dim is not None else x.repeat(1, tasks, 1, 1)
            out = _ConvWeight.apply(g, x, (tasks * out_channels, *rest), geometry.for_tasks(tasks))
        return out.unflatten(0, (tasks, out_channels)), 0


def _over_tasks(tasks: int, in_dims: Any, x: Tensor, weight: Tensor, bias: Tensor | None, geometry: Geometry) -> tuple[Tensor, int]:
    """Convolve for all tasks at once. in_dims: the task axes of x, weight and bias; None for a tensor that all tasks share."""
    x_dim, weight_dim = in_dims[:2]
    bias_dim = in_dims[2] if bias is not None else None
    if weight_dim is None and bias_dim is None:
        out = conv2d(fold_tasks(x, x_dim, 0), weight, bias, geometry)
        return out.unflatten(0, (tasks, -1)), 0
    weight = fold_tasks(weight, weight_dim, 0) if weight_dim is not None else weight.repeat(tasks, 1, 1, 1)
    if bias is not None:
        bias = bias.movedim(bias_dim, 0).reshape(-1) if bias_dim is not None else repeat_for_tasks(bias, tasks)
    if x_dim is None and geometry.groups == 1:  # one input under the weights of all tasks
        out = conv2d(x, weight, bias, geometry)
    else:
        x = fold_tasks(x, x_dim, 1) if x_dim is not None else x.repeat(1, tasks, 1, 1)
        out = conv2d(x, weight, bias, geometry.for_tasks(tasks))
    return out.unflatten(1, (tasks, -1)), 1


def _convolution(x: Tensor, weight: Tensor, bias: Tensor | None, geometry: Geometry) -> Tensor:
    stride, padding, dilation, groups = geometry
    x, weight = channels_last(x), channels_last(weight)
    return torch.ops.aten.convolution(x, weight, bias, stride, padding, dilation, False, (0, 0), groups)


def _gradient(which: int, g: Tensor, x: Tensor, weight: Tensor, geometry: Geometry) -> Tensor:
    """Return the gradient by x (which = 0) or by weight (which = 1). Of the tensor in question, torch reads only the shape."""
    stride, padding, dilation, groups = geometry
    mask = (which == 0, which == 1, False)
    gradients = torch.ops.aten.convolution_backward(g, x, weight, None, stride, padding, dilation, False, (0, 0), groups, mask)
    out: Tensor = gradients[which]
    return out
