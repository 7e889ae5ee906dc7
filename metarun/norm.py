"""Normalisation whose statistics go in and come out explicitly, so that a network stays a pure function.

A `BatchNorm` that writes its running statistics while it computes cannot be mapped over tasks, and hides the choice that decides
few-shot scores more than the algorithm does: whose statistics normalise the query set (Bronskill et al. 2020, "TaskNorm",
table 1). Here a layer only computes; `NormPass` says, for one forward pass, with which statistics.
"""

from __future__ import annotations

from collections.abc import Sequence
from dataclasses import dataclass, field
from typing import Any

import torch
from torch import Tensor, nn

from metarun.conv import beside, into
from metarun.layers import replace_layers

Statistics = dict[str, Tensor]
"""Mean and variance (biased) per channel by layer: `<layer>.mean` (C,), `<layer>.var` (C,)."""

MODES = ("batch", "support", "running", "reptile", "layer", "instance", "none")
PER_EXAMPLE = ("layer", "instance", "none")

WORTH_ALONE = 1 << 16
"""Values of a task's images below which the calls for each task cost more than to put the tasks side by side."""


@dataclass
class NormPass:
    """How every `Norm` of a network normalises during one forward pass.

    how: "own" (statistics of the rows of this pass), "given" (those in `given`), or a mode of `PER_EXAMPLE`.
    mask: (B,) bool, False on rows that must not count in the statistics.
    collected: filled with this pass's own statistics, where `collect` asks for them; a gradient flows through them only where
        `differentiable` asks for that.
    """

    how: str
    mask: Tensor | None = None
    given: Statistics = field(default_factory=dict)
    collect: bool = False
    differentiable: bool = False
    collected: Statistics = field(default_factory=dict)


class Norm(nn.Module):
    """Stands in for a `nn.BatchNorm*`, with the same parameters under the same names; x: (B, C, ...)."""

    def __init__(self, features: int, *, eps: float = 1e-5, momentum: float = 0.1, affine: bool = True) -> None:
        super().__init__()
        self.features, self.eps, self.momentum = features, eps, momentum
        self.weight = nn.Parameter(torch.ones(features)) if affine else None
        self.bias = nn.Parameter(torch.zeros(features)) if affine else None
        self.name = ""
        self.current = NormPass("own")

    def forward(self, x: Tensor) -> Tensor:
        now = self.current
        if now.how == "own" and now.mask is None and not now.differentiable:
            return self._fused(x, now)
        mean = var = None
        if now.how == "own" or now.collect:
            mean, var = batch_statistics(x, now.mask)
            if now.collect:
                now.collected |= {f"{self.name}.mean": mean, f"{self.name}.var": var}
        if now.how == "given":
            mean, var = now.given[f"{self.name}.mean"], now.given[f"{self.name}.var"]
        if now.how == "layer" or (now.how == "instance" and x.dim() > 2):
            return self._per_example(x, over=list(range(1 if now.how == "layer" else 2, x.dim())))
        if now.how in PER_EXAMPLE:  # "none", and "instance" where an example has one value a channel and so no spread
            mean, var = x.new_zeros(self.features), x.new_ones(self.features)
        assert mean is not None and var is not None
        return self._scale(x, mean, var)

    def _fused(self, x: Tensor, now: NormPass) -> Tensor:
        """Normalise by the pass's own statistics in one kernel; it returns them too, as constants.

        First and second derivatives are exact, which is what an outer gradient through inner gradients takes. Third ones are not, as
        they leave out that the saved statistics depend on x; an algorithm that needs them sets `differentiable`.
        """
        out, mean, inverse = _Normalise.apply(x, self.weight, self.bias, self.eps)
        if now.collect:
            var = (inverse.detach().square().reciprocal() - self.eps).clamp(min=0.0)
            now.collected |= {f"{self.name}.mean": mean.detach(), f"{self.name}.var": var}
        return out

    def _per_example(self, x: Tensor, over: list[int]) -> Tensor:
        """Normalise each example by the spread of its own values over these axes."""
        var, mean = torch.var_mean(x, over, correction=0, keepdim=True)
        out = (x - mean) * (var + self.eps).rsqrt()
        if self.weight is None or self.bias is None:
            return out
        return _affine(out, self.weight, self.bias)

    def _scale(self, x: Tensor, mean: Tensor, var: Tensor) -> Tensor:
        """Return (x - mean) / sqrt(var + eps) * weight + bias in one pass over the values."""
        scale = (var + self.eps).rsqrt()
        if self.weight is not None:
            scale = scale * self.weight
        shift = -mean * scale
        if self.bias is not None:
            shift = shift + self.bias
        return _affine(x, scale, shift)


class _Normalise(torch.autograd.Function):
    """y = w x̂ + b with x̂ = (x - mean) r and r = 1 / sqrt(var + eps), per channel; returns y, mean (C,) and r (C,)."""

    @staticmethod
    def forward(x: Tensor, weight: Tensor | None, bias: Tensor | None, eps: float) -> tuple[Tensor, Tensor, Tensor]:
        mean, var = _statistics(x)
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
        by_x, by_weight, by_bias = _NormaliseBackward.apply(g, x, weight, mean, inverse, ctx.eps)
        affine = weight is not None
        return by_x, by_weight if affine else None, by_bias if affine else None, None

    @staticmethod
    def vmap(info: Any, in_dims: Any, x: Tensor, weight: Tensor | None, bias: Tensor | None, eps: float) -> Any:
        return _over_tasks(_Normalise, info.batch_size, in_dims, (x, weight, bias), 0, eps)


class _NormaliseBackward(torch.autograd.Function):
    """The derivatives of `_Normalise` by x, weight and bias, given g = dL/dy.

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
        by_v, q, p = _NormaliseBackward.apply(v, x, weight, mean, inverse, ctx.eps)
        p, q = p / count, q / count
        over = [0, *range(2, x.dim())]
        spread = (g * v).sum(over) / count - a * p - b * q
        scale = v_weight * inverse
        for_g = by_v + _affine(x, scale, v_bias - mean * scale)
        of_g = inverse * (v_weight - w * inverse * q)
        of_v = -w * inverse.square() * b
        of_normalised = inverse * (2.0 * w * inverse * q * b - v_weight * b - w * inverse * spread)
        constant = inverse * (w * inverse * (q * a + b * p) - v_weight * a)
        of_x = of_normalised * inverse
        for_x = g * _per_channel(of_g, x) + v * _per_channel(of_v, x) + _affine(x, of_x, constant - of_x * mean)
        return for_g, for_x, None if weight is None else inverse * spread * count, None, None, None

    @staticmethod
    def vmap(info: Any, in_dims: Any, *args: Any) -> Any:
        *tensors, eps = args
        return _over_tasks(_NormaliseBackward, info.batch_size, in_dims, tensors, 1, eps)


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


def _statistics(x: Tensor) -> tuple[Tensor, Tensor]:
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


def _affine(x: Tensor, scale: Tensor, shift: Tensor) -> Tensor:
    return torch.addcmul(_per_channel(shift, x), x, _per_channel(scale, x))  # one pass over x, where a product and a sum are two


def _per_channel(values: Tensor, x: Tensor) -> Tensor:
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


def batch_statistics(x: Tensor, mask: Tensor | None) -> tuple[Tensor, Tensor]:
    """Return mean and biased variance (C,) over all axes of x (B, C, ...) but the second, leaving out rows where mask is False."""
    over = [0, *range(2, x.dim())]
    if mask is None:
        var, mean = torch.var_mean(x, over, correction=0)
        return mean, var
    per_row = x[0, 0].numel()
    rows = mask.to(x.dtype).reshape((-1,) + (1,) * (x.dim() - 1))
    weight = rows / (rows.sum() * per_row).clamp(min=1)
    mean = (x * weight).sum(over)
    centred = x - mean.reshape((1, -1) + (1,) * (x.dim() - 2))
    return mean, (centred.square() * weight).sum(over)


def replace_batch_norm(module: nn.Module) -> nn.Module:
    """Return the module with every `nn.BatchNorm*` in it replaced by `Norm`, parameters kept."""
    return replace_layers(module, _own)


def _own(module: nn.Module) -> Norm | None:
    if not isinstance(module, nn.modules.batchnorm._BatchNorm):
        return None
    momentum = 0.1 if module.momentum is None else module.momentum
    norm = Norm(module.num_features, eps=module.eps, momentum=momentum, affine=module.affine)
    norm.load_state_dict(dict(module.named_parameters()))
    return norm
