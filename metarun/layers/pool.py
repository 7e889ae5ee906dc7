"""Max-pooling with exact derivatives of every order, and one kernel for all tasks under `vmap`.

Pooling chooses one value of each window. Its derivatives need only the places of the chosen values:

    y = x[chosen]        dL/dx = g put back at the chosen places        the derivative of putting back is choosing again

The three functions below therefore differentiate into each other, to any order. Images keep their channels last in memory. Pooling does not
mix channels, so the tasks are folded into the rows or the channels, without a copy. torch's rule for `vmap` copies the images first, which
takes ten times as long as the pooling.
"""

from __future__ import annotations

from collections.abc import Sequence
from typing import Any, NamedTuple

import torch
from torch import Tensor, nn

from metarun.layers.conv import channels_last, fold_tasks

Pair = tuple[int, int]


class Windows(NamedTuple):
    """kernel, stride, padding, dilation: (rows, columns) each. ceil: whether a window may reach beyond the edge."""

    kernel: Pair
    stride: Pair
    padding: Pair
    dilation: Pair
    ceil: bool


def max_pool2d(x: Tensor, windows: Windows) -> Tensor:
    """Return the largest value of each window of x (B, C, H, W). Of equal values, the derivative belongs to the first."""
    out: Tensor = _MaxPool.apply(x, windows)[0]
    return out


class MaxPool2d(nn.MaxPool2d):
    """`nn.MaxPool2d`, computed by `max_pool2d`."""

    def forward(self, input: Tensor) -> Tensor:
        """Return the pooled images of input (B, C, H, W). torch pools other shapes, and layers that return indices."""
        if input.dim() != 4 or self.return_indices:
            pooled: Tensor = super().forward(input)
            return pooled
        sizes = (_pair(self.kernel_size), _pair(self.stride), _pair(self.padding), _pair(self.dilation))
        return max_pool2d(input, Windows(*sizes, self.ceil_mode))


class _MaxPool(torch.autograd.Function):
    """y = x[chosen], and the place of each chosen value in its image: row * width + column."""

    @staticmethod
    def forward(x: Tensor, windows: Windows) -> tuple[Tensor, Tensor]:
        out: tuple[Tensor, Tensor] = torch.ops.aten.max_pool2d_with_indices(channels_last(x), *windows)
        return out

    @staticmethod
    def setup_context(ctx: Any, inputs: Any, output: Any) -> None:
        x, ctx.windows = inputs
        ctx.mark_non_differentiable(output[1])
        ctx.save_for_backward(output[1])
        ctx.shape = tuple(x.shape)

    @staticmethod
    def backward(ctx: Any, g: Tensor, _: Any) -> Any:
        return _PutBack.apply(g, ctx.saved_tensors[0], ctx.shape, ctx.windows), None

    @staticmethod
    def vmap(info: Any, in_dims: Any, x: Tensor, windows: Windows) -> Any:
        axis = _folding_axis(in_dims[0])
        out = _MaxPool.apply(fold_tasks(x, in_dims[0], axis), windows)
        return tuple(part.unflatten(axis, (info.batch_size, -1)) for part in out), (axis, axis)


class _PutBack(torch.autograd.Function):
    """Images of a given shape: at each place the sum of g over the windows that chose it."""

    @staticmethod
    def forward(g: Tensor, chosen: Tensor, shape: tuple[int, ...], windows: Windows) -> Tensor:
        like = torch.empty(shape, dtype=g.dtype, device=g.device, memory_format=torch.channels_last)  # only its shape is read
        out: Tensor = torch.ops.aten.max_pool2d_with_indices_backward(channels_last(g), like, *windows, channels_last(chosen))
        return out

    @staticmethod
    def setup_context(ctx: Any, inputs: Any, output: Tensor) -> None:
        _, chosen, _, ctx.windows = inputs
        ctx.save_for_backward(chosen)

    @staticmethod
    def backward(ctx: Any, v: Tensor) -> Any:
        return _Choose.apply(v, ctx.saved_tensors[0], ctx.windows), None, None, None

    @staticmethod
    def vmap(info: Any, in_dims: Any, g: Tensor, chosen: Tensor, shape: tuple[int, ...], windows: Windows) -> tuple[Tensor, int]:
        axis, g, chosen = _fold_both(info.batch_size, in_dims, g, chosen)
        tasks = (info.batch_size * shape[axis],)
        out = _PutBack.apply(g, chosen, (*shape[:axis], *tasks, *shape[axis + 1 :]), windows)
        return out.unflatten(axis, (info.batch_size, -1)), axis


class _Choose(torch.autograd.Function):
    """v[chosen]."""

    @staticmethod
    def forward(v: Tensor, chosen: Tensor, windows: Windows) -> Tensor:
        values, places = (part.permute(0, 2, 3, 1).flatten(1, 2) for part in (channels_last(v), channels_last(chosen)))
        out: Tensor = values.gather(1, places).unflatten(1, chosen.shape[2:]).permute(0, 3, 1, 2)
        return out

    @staticmethod
    def setup_context(ctx: Any, inputs: Any, output: Tensor) -> None:
        v, chosen, ctx.windows = inputs
        ctx.save_for_backward(chosen)
        ctx.shape = tuple(v.shape)

    @staticmethod
    def backward(ctx: Any, g: Tensor) -> Any:
        return _PutBack.apply(g, ctx.saved_tensors[0], ctx.shape, ctx.windows), None, None

    @staticmethod
    def vmap(info: Any, in_dims: Any, v: Tensor, chosen: Tensor, windows: Windows) -> tuple[Tensor, int]:
        axis, v, chosen = _fold_both(info.batch_size, in_dims, v, chosen)
        return _Choose.apply(v, chosen, windows).unflatten(axis, (info.batch_size, -1)), axis


def _folding_axis(task_dim: int) -> int:
    """Return the axis that tasks fold into without a copy: the rows where the task axis is the first one, else the channels."""
    return 0 if task_dim == 0 else 1


def _fold_both(tasks: int, in_dims: Any, values: Tensor, chosen: Tensor) -> tuple[int, Tensor, Tensor]:
    """Return the axis that the tasks are folded into, and both folded tensors. All tasks may share one of the tensors."""
    values_dim, chosen_dim = in_dims[:2]
    axis = _folding_axis(values_dim if chosen_dim is None else chosen_dim)

    def folded(tensor: Tensor, dim: int | None) -> Tensor:
        return torch.cat([tensor] * tasks, axis) if dim is None else fold_tasks(tensor, dim, axis)

    return axis, folded(values, values_dim), folded(chosen, chosen_dim)


def _pair(size: int | Sequence[int]) -> Pair:
    return (size, size) if isinstance(size, int) else (size[0], size[-1])
