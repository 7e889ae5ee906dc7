"""Normalisation by the statistics of the input, with exact first and second derivatives and a rule for `vmap`."""

from __future__ import annotations

from collections.abc import Sequence
from typing import Any

import torch
from torch import Tensor

from metarun.layers.conv import fold_tasks, repeat_for_tasks
from metarun.layers.precision import at_least_float32

WORTH_ALONE = 1 << 16
"""Values of a task's images. With fewer values, one call for all tasks, side by side, is faster than a call for each task."""


class Normalise(torch.autograd.Function):
    """y = w x̂ + b with x̂ = (x - mean) r and r = 1 / sqrt(var + eps), per channel; returns y, mean (C,) and r (C,)."""

    @staticmethod
    def forward(x: Tensor, weight: Tensor | None, bias: Tensor | None, eps: float) -> tuple[Tensor, Tensor, Tensor]:
        if x.is_cuda:  # one call does all, with sums exact enough in every layout
            found: tuple[Tensor, Tensor, Tensor] = torch.native_batch_norm(x, weight, bias, None, None, True, 0.0, eps)
            return found
        mean, var = statistics_of(x)
        out = torch.native_batch_norm(x, weight, bias, mean, var, False, 0.0, eps)[0]
        return out, mean, (var + eps).rsqrt()

    @staticmethod
    def setup_context(ctx: Any, inputs: Any, output: Any) -> None:
        x, weight, bias, ctx.eps = inputs
        _, mean, inverse = output
        ctx.biased = bias is not None
        ctx.mark_non_differentiable(mean, inverse)
        ctx.save_for_backward(x, weight, mean, inverse)

    @staticmethod
    def backward(ctx: Any, g: Tensor, *_: Any) -> Any:
        x, weight, mean, inverse = ctx.saved_tensors
        by_x, by_weight, by_bias = NormaliseBackward.apply(g, x, weight, mean, inverse, ctx.eps)
        return by_x, None if weight is None else by_weight, by_bias if ctx.biased else None, None

    @staticmethod
    def vmap(info: Any, in_dims: Any, x: Tensor, weight: Tensor | None, bias: Tensor | None, eps: float) -> Any:
        return _over_tasks(Normalise, info.batch_size, in_dims, (x, weight, bias), 0, eps)


class NormaliseBackward(torch.autograd.Function):
    """The gradients of `Normalise` by x, weight and bias, from g = dL/dy.

    Over the M values of a channel, with a = mean(g) and b = mean(g x̂): dL/dx = w r (g - a - b x̂), dL/dw = M b, dL/db = M a.
    """

    @staticmethod
    def forward(g: Tensor, x: Tensor, weight: Tensor | None, mean: Tensor, inverse: Tensor, eps: float) -> tuple[Tensor, Tensor, Tensor]:
        if x.dim() == 4 and x.is_contiguous(memory_format=torch.channels_last):
            g = g.contiguous(memory_format=torch.channels_last)  # the kernel is slow where g and x differ in layout
        if weight is None and x.is_cuda:
            weight = torch.ones_like(mean)  # without a weight, the CUDA kernel cannot return its gradient, which `backward` reads
        return torch.ops.aten.native_batch_norm_backward(g, x, weight, None, None, mean, inverse, True, eps, (True, True, True))

    @staticmethod
    def setup_context(ctx: Any, inputs: Any, output: Any) -> None:
        g, x, weight, mean, inverse, ctx.eps = inputs
        _, by_weight, by_bias = output
        ctx.save_for_backward(g, x, weight, mean, inverse, by_weight, by_bias)

    @staticmethod
    def backward(ctx: Any, v: Tensor, v_weight: Tensor, v_bias: Tensor) -> Any:
        """Return the gradients of S = Σ v dL/dx + v_weight dL/dw + v_bias dL/db by g, x and w.

        Let p = mean(v), q = mean(v x̂) and s = mean(g v) - a p - b q. Then S = M (w r s + v_weight b + v_bias a), and

            dS/dg = w r (v - p - q x̂) + v_weight x̂ + v_bias        dS/dw = M r s

        x enters through x̂ and r. Through x̂, in b and q: h = dS/dx̂ = (v_weight - w r q) g - w r b v. Through r: dS/dr = M w s.
        With dx̂_j/dx_i = r (δ_ij - 1/M - x̂_i x̂_j / M) and dr/dx_i = -r² x̂_i / M,

            dS/dx = r (h - mean(h) - x̂ mean(h x̂)) - w r² s x̂

        where mean(h) = (v_weight - w r q) a - w r b p and mean(h x̂) = v_weight b - 2 w r q b.
        """
        g, x, weight, mean, inverse, by_weight, by_bias = ctx.saved_tensors
        count = x.numel() / x.shape[1]
        w = torch.ones_like(inverse) if weight is None else weight
        a, b = by_bias / count, by_weight / count
        through_v, q, p = NormaliseBackward.apply(v, x, weight, mean, inverse, ctx.eps)
        p, q = p / count, q / count
        s = (at_least_float32(g) * v).sum([0, *range(2, x.dim())]) / count - a * p - b * q
        scale = v_weight * inverse
        by_g = through_v + affine(x, scale, v_bias - mean * scale)
        of_g = inverse * (v_weight - w * inverse * q)  # dS/dx = of_g g + of_v v + of_normalised x̂ + constant
        of_v = -w * inverse.square() * b
        of_normalised = inverse * (2.0 * w * inverse * q * b - v_weight * b - w * inverse * s)
        constant = inverse * (w * inverse * (q * a + b * p) - v_weight * a)
        of_x = of_normalised * inverse
        by_x = g * per_channel(of_g, x) + v * per_channel(of_v, x) + affine(x, of_x, constant - of_x * mean)
        return by_g, by_x, None if weight is None else inverse * s * count, None, None, None

    @staticmethod
    def vmap(info: Any, in_dims: Any, *args: Any) -> Any:
        *tensors, eps = args
        return _over_tasks(NormaliseBackward, info.batch_size, in_dims, tensors, 1, eps)


def _over_tasks(
    function: type[torch.autograd.Function], tasks: int, in_dims: Any, tensors: Sequence[Tensor | None], image: int, eps: float
) -> tuple[tuple[Tensor, ...], tuple[int, int, int]]:
    """Apply a function of images and vectors, which returns images and two vectors, to every task. image: the place of x in `tensors`.

    One call computes all tasks, folded into the channels. After a convolution with shared weights the tasks lie one after the other in
    memory, and folding copies the images. For large images the two copies cost more than the normalisation. They get one call per task.
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
    """Return the images (B, C, H, W) or the vector of each task. One split gives all of them, so that its derivative is one `cat`."""
    if tensor is None or dim is None:
        return [tensor] * tasks
    tensor = tensor.movedim(dim, 0)
    return tensor.flatten(0, 1).split(tensor.shape[1]) if tensor.dim() == 5 else tensor.unbind()


def statistics_of(x: Tensor) -> tuple[Tensor, Tensor]:
    """Return mean and biased variance per channel, (C,) each.

    For images with their channels last, torch adds one value after the other and loses one and a half digits. This function computes the
    statistics of each pixel over the images first, and then combines the pixels. For images in bfloat16 the statistics are in float32.
    """
    x = at_least_float32(x)
    channels = x.shape[1]
    if x.dim() != 4 or not x.is_contiguous(memory_format=torch.channels_last):
        mean, var = torch.ops.aten.batch_norm_update_stats(x, None, None, 0.0)
        return mean, var
    by_place = x.permute(0, 2, 3, 1).reshape(x.shape[0], -1, 1, 1)
    means, vars = (values.view(-1, channels) for values in torch.ops.aten.batch_norm_update_stats(by_place, None, None, 0.0))
    mean = means.mean(dim=0)
    return mean, vars.mean(dim=0) + (means - mean).square().mean(dim=0)


def affine(x: Tensor, scale: Tensor, shift: Tensor) -> Tensor:
    """Return x (B, C, ...) * scale (C,) + shift (C,), in one operation."""
    return torch.addcmul(per_channel(shift, x), x, per_channel(scale, x))  # one pass over x; a product and a sum take two


def standardised(x: Tensor, over: list[int], eps: float) -> Tensor:
    """Return x with mean 0 and biased variance 1 over these axes, in float32 at least."""
    x = at_least_float32(x)
    var, mean = torch.var_mean(x, over, correction=0, keepdim=True)
    return (x - mean) * (var + eps).rsqrt()


def scaled(x: Tensor, weight: Tensor | None, bias: Tensor | None) -> Tensor:
    """Return x (B, C, ...) * weight (C,) + bias (C,), each left out where it is None."""
    if weight is not None and bias is not None:
        return affine(x, weight, bias)
    x = x if weight is None else x * per_channel(weight, x)
    return x if bias is None else x + per_channel(bias, x)


def per_channel(values: Tensor, x: Tensor) -> Tensor:
    """Return values (C,) in a shape that broadcasts over x (B, C, ...)."""
    return values.reshape((1, -1) + (1,) * (x.dim() - 2))


def _fold(tensor: Tensor | None, dim: int | None, tasks: int) -> Tensor | None:
    """Fold the tasks into the channels: (B, T * C, ...) or (T * C,). dim: the task axis; None for a tensor that all tasks share."""
    if tensor is None:
        return None
    if dim is None:
        return repeat_for_tasks(tensor, tasks) if tensor.dim() == 1 else tensor.repeat(1, tasks, *[1] * (tensor.dim() - 2))
    return fold_tasks(tensor, dim, 0 if tensor.dim() == 2 else 1)


def _unfold(tasks: int, x: Tensor, *vectors: Tensor) -> tuple[Tensor, ...]:
    return x.unflatten(1, (tasks, -1)), *(vector.unflatten(0, (tasks, -1)) for vector in vectors)
