"""Normalisation by an input's own statistics: one differentiable function, to any order, with a rule for maps over tasks."""

from __future__ import annotations

from collections.abc import Sequence
from typing import Any

import torch
from torch import Tensor

from metarun.layers.conv import beside, into

WORTH_ALONE = 1 << 16
"""Values of a task's images below which the calls for each task cost more than to put the tasks side by side."""


class Normalise(torch.autograd.Function):
    """y = w x̂ + b with x̂ = (x - mean) r and r = 1 / sqrt(var + eps), per channel; returns y, mean (C,) and r (C,)."""

    @staticmethod
    def forward(x: Tensor, weight: Tensor | None, bias: Tensor | None, eps: float) -> tuple[Tensor, Tensor, Tensor]:
        mean, var = statistics_of(x)
        out = torch.native_batch_norm(x, weight, bias, mean, var, False, 0.0, eps)[0]
        return out, mean, (var + eps).rsqrt()

    @staticmethod
    def setup_context(ctx: Any, inputs: Any, output: Any) -> None:
        x, weight, _, ctx.eps = inputs
        _, mean, inverse = output
        ctx.mark_non_differentiable(mean, inverse)
        ctx.save_for_backward(x, weight, mean, inverse)

    @staticmethod
    def backward(ctx: Any, g: Tensor, *_: Any) -> Any:
        x, weight, mean, inverse = ctx.saved_tensors
        by_x, by_weight, by_bias = NormaliseBackward.apply(g, x, weight, mean, inverse, ctx.eps)
        affine = weight is not None
        return by_x, by_weight if affine else None, by_bias if affine else None, None

    @staticmethod
    def vmap(info: Any, in_dims: Any, x: Tensor, weight: Tensor | None, bias: Tensor | None, eps: float) -> Any:
        return _over_tasks(Normalise, info.batch_size, in_dims, (x, weight, bias), 0, eps)


class NormaliseBackward(torch.autograd.Function):
    """The derivatives of `Normalise` by x, weight and bias, given g = dL/dy.

    With a = mean(g), b = mean(g x̂): dL/dx = w r (g - a - b x̂), dL/dw = M b, dL/db = M a, over the M values of a channel.
    """

    @staticmethod
    def forward(g: Tensor, x: Tensor, weight: Tensor | None, mean: Tensor, inverse: Tensor, eps: float) -> tuple[Tensor, Tensor, Tensor]:
        if x.dim() == 4 and x.is_contiguous(memory_format=torch.channels_last):
            g = g.contiguous(memory_format=torch.channels_last)  # the kernel is slow where the two lie differently
        return torch.ops.aten.native_batch_norm_backward(g, x, weight, None, None, mean, inverse, True, eps, (True, True, True))

    @staticmethod
    def setup_context(ctx: Any, inputs: Any, output: Any) -> None:
        g, x, weight, mean, inverse, ctx.eps = inputs
        _, by_weight, by_bias = output
        ctx.save_for_backward(g, x, weight, mean, inverse, by_weight, by_bias)

    @staticmethod
    def backward(ctx: Any, v: Tensor, v_weight: Tensor, v_bias: Tensor) -> Any:
        """Differentiate L = Σ v·dL/dx + v_weight·dL/dw + v_bias·dL/db once more; mean and r are functions of x in this."""
        g, x, weight, mean, inverse, by_weight, by_bias = ctx.saved_tensors
        count = x.numel() / x.shape[1]
        w = torch.ones_like(inverse) if weight is None else weight
        a, b = by_bias / count, by_weight / count
        by_v, q, p = NormaliseBackward.apply(v, x, weight, mean, inverse, ctx.eps)
        p, q = p / count, q / count
        over = [0, *range(2, x.dim())]
        spread = (g * v).sum(over) / count - a * p - b * q
        scale = v_weight * inverse
        for_g = by_v + affine(x, scale, v_bias - mean * scale)
        of_g = inverse * (v_weight - w * inverse * q)
        of_v = -w * inverse.square() * b
        of_normalised = inverse * (2.0 * w * inverse * q * b - v_weight * b - w * inverse * spread)
        constant = inverse * (w * inverse * (q * a + b * p) - v_weight * a)
        of_x = of_normalised * inverse
        for_x = g * per_channel(of_g, x) + v * per_channel(of_v, x) + affine(x, of_x, constant - of_x * mean)
        return for_g, for_x, None if weight is None else inverse * spread * count, None, None, None

    @staticmethod
    def vmap(info: Any, in_dims: Any, *args: Any) -> Any:
        *tensors, eps = args
        return _over_tasks(NormaliseBackward, info.batch_size, in_dims, tensors, 1, eps)


def _over_tasks(
    function: type[torch.autograd.Function], tasks: int, in_dims: Any, tensors: Sequence[Tensor | None], image: int, eps: float
) -> tuple[tuple[Tensor, ...], tuple[int, int, int]]:
    """Apply a function of images and vectors, which returns images and two vectors, to every task. image: the place of x in `tensors`.

    Images of a task that are large and lie one task after the other in memory, as a convolution leaves them whose weights all tasks share,
    are done one task after the other; all others at once, the tasks beside the channels. There the large ones would have to be brought,
    and brought back, which costs more than the normalisation does.
    """
    x = tensors[image]
    assert x is not None
    apart = tasks > 1 and in_dims[image] == 0 and x.dim() == 5 and x.permute(0, 1, 3, 4, 2).is_contiguous()
    if apart and x.device.type == "cpu" and x.numel() >= tasks * WORTH_ALONE:
        parts = [_parts(tensor, dim, tasks) for tensor, dim in zip(tensors, in_dims, strict=False)]
        images, *vectors = zip(*(function.apply(*task, eps) for task in zip(*parts, strict=True)), strict=True)
        return (torch.cat(images).unflatten(0, (tasks, -1)), *(torch.stack(vector) for vector in vectors)), (0, 0, 0)
    folded = [_fold(tensor, dim, tasks) for tensor, dim in zip(tensors, in_dims, strict=False)]
    return _unfold(tasks, *function.apply(*folded, eps)), (1, 0, 0)


def _parts(tensor: Tensor | None, dim: int | None, tasks: int) -> Sequence[Tensor | None]:
    """Return each task's images (B, C, H, W) or vector; cut once, so that the derivative puts them together at once."""
    if tensor is None or dim is None:
        return [tensor] * tasks
    tensor = tensor.movedim(dim, 0)
    return tensor.flatten(0, 1).split(tensor.shape[1]) if tensor.dim() == 5 else tensor.unbind()


def statistics_of(x: Tensor) -> tuple[Tensor, Tensor]:
    """Return mean and biased variance per channel, (C,) each.

    Of images with their channels last torch adds up one value after the other, which costs a digit and a half. Here the values of each
    place in the image are added up first, and then those of all places.
    """
    channels = x.shape[1]
    if x.dim() != 4 or not x.is_contiguous(memory_format=torch.channels_last):
        mean, var = torch.ops.aten.batch_norm_update_stats(x, None, None, 0.0)
        return mean, var
    by_place = x.permute(0, 2, 3, 1).reshape(x.shape[0], -1, 1, 1)
    means, vars = (values.view(-1, channels) for values in torch.ops.aten.batch_norm_update_stats(by_place, None, None, 0.0))
    mean = means.mean(dim=0)
    return mean, vars.mean(dim=0) + (means - mean).square().mean(dim=0)


def affine(x: Tensor, scale: Tensor, shift: Tensor) -> Tensor:
    """Return x (B, C, ...) times scale (C,) plus shift (C,), in one operation."""
    return torch.addcmul(per_channel(shift, x), x, per_channel(scale, x))  # one pass over x, where a product and a sum are two


def per_channel(values: Tensor, x: Tensor) -> Tensor:
    """Return values (C,) in a shape that broadcasts over x (B, C, ...)."""
    return values.reshape((1, -1) + (1,) * (x.dim() - 2))


def _fold(tensor: Tensor | None, dim: int | None, tasks: int) -> Tensor | None:
    """Put the tasks beside the channels: (B, T * C, ...) or (T * C,), whether or not the tensor has a task axis `dim`."""
    if tensor is None:
        return None
    if dim is None:
        return beside(tensor, tasks) if tensor.dim() == 1 else tensor.repeat(1, tasks, *[1] * (tensor.dim() - 2))
    return into(tensor, dim, 0 if tensor.dim() == 2 else 1)


def _unfold(tasks: int, x: Tensor, *vectors: Tensor) -> tuple[Tensor, ...]:
    return x.unflatten(1, (tasks, -1)), *(vector.unflatten(0, (tasks, -1)) for vector in vectors)
