"""Normalisation with explicit statistics: a pass receives them and returns them, so that a network stays a pure function.

A `BatchNorm` writes its running statistics while it computes, so it cannot be mapped over tasks. It also hides a choice: which statistics
normalise the query set. That choice changes few-shot scores more than the algorithm does (Bronskill et al. 2020, "TaskNorm", table 1).
Here a layer only computes, and `NormPass` chooses the statistics of one forward pass.
"""

from __future__ import annotations

from dataclasses import dataclass, field

import torch
from torch import Tensor, nn

from metarun.layers.normalise import Normalise, affine
from metarun.layers.replace import replace_layers

Statistics = dict[str, Tensor]
"""Mean and variance (biased) per channel by layer: `<layer>.mean` (C,), `<layer>.var` (C,)."""

MODES = ("batch", "support", "running", "reptile", "layer", "instance", "none")
PER_EXAMPLE = ("layer", "instance", "none")


@dataclass
class NormPass:
    """How every `Norm` of a network normalises during one forward pass.

    how: "own" (the statistics of this pass), "given" (the statistics in `given`), or a mode of `PER_EXAMPLE`.
    mask: (B,) bool, False for rows that the statistics leave out.
    collect: fill `collected` with the statistics of this pass. differentiable: let gradients flow through them.
    """

    how: str
    mask: Tensor | None = None
    given: Statistics = field(default_factory=dict)
    collect: bool = False
    differentiable: bool = False
    collected: Statistics = field(default_factory=dict)


class Norm(nn.Module):
    """Replaces a `nn.BatchNorm*`, with the same parameters under the same names. It normalises x (B, C, ...)."""

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
        if now.how in PER_EXAMPLE:  # "none", and "instance" for examples with one value per channel, which have no spread
            mean, var = x.new_zeros(self.features), x.new_ones(self.features)
        assert mean is not None and var is not None
        return self._scale(x, mean, var)

    def _fused(self, x: Tensor, now: NormPass) -> Tensor:
        """Normalise by the statistics of this pass in one kernel, and collect the statistics as constants.

        First and second derivatives are exact, as an outer gradient through inner gradients needs them. Third derivatives are wrong: they
        leave out that the saved statistics depend on x. An algorithm that needs third derivatives sets `differentiable`.
        """
        out, mean, inverse = Normalise.apply(x, self.weight, self.bias, self.eps)
        if now.collect:
            var = (inverse.detach().square().reciprocal() - self.eps).clamp(min=0.0)
            now.collected |= {f"{self.name}.mean": mean.detach(), f"{self.name}.var": var}
        return out

    def _per_example(self, x: Tensor, over: list[int]) -> Tensor:
        """Normalise each example by the mean and variance of its values over these axes."""
        var, mean = torch.var_mean(x, over, correction=0, keepdim=True)
        out = (x - mean) * (var + self.eps).rsqrt()
        if self.weight is None or self.bias is None:
            return out
        return affine(out, self.weight, self.bias)

    def _scale(self, x: Tensor, mean: Tensor, var: Tensor) -> Tensor:
        """Return (x - mean) / sqrt(var + eps) * weight + bias, in one pass over x."""
        scale = (var + self.eps).rsqrt()
        if self.weight is not None:
            scale = scale * self.weight
        shift = -mean * scale
        if self.bias is not None:
            shift = shift + self.bias
        return affine(x, scale, shift)


def batch_statistics(x: Tensor, mask: Tensor | None) -> tuple[Tensor, Tensor]:
    """Return mean and biased variance (C,) of x (B, C, ...) per channel, without the rows where mask (B,) is False."""
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
    return replace_layers(module, _pure_norm)


def _pure_norm(module: nn.Module) -> Norm | None:
    if not isinstance(module, nn.modules.batchnorm._BatchNorm):
        return None
    momentum = 0.1 if module.momentum is None else module.momentum
    norm = Norm(module.num_features, eps=module.eps, momentum=momentum, affine=module.affine)
    norm.load_state_dict(dict(module.named_parameters()))
    return norm
