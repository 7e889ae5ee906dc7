"""Normalisation with explicit statistics: a pass receives them and returns them, so that a network stays a pure function.

A `BatchNorm` writes its running statistics while it computes, so it cannot be mapped over tasks. It also hides a choice: which statistics
normalise the query set. That choice changes few-shot scores more than the algorithm does (Bronskill et al. 2020, "TaskNorm", table 1).
Here a layer only computes, and `NormPass` chooses the statistics of one forward pass.
"""

from __future__ import annotations

import functools
import types
from collections.abc import Iterator, Sequence
from contextlib import contextmanager
from dataclasses import dataclass, field
from typing import get_args

import torch
from torch import Tensor, nn

from metarun.layers.normalise import Normalise, affine, scaled, standardised
from metarun.layers.precision import at_least_float32
from metarun.values import NormMode

Statistics = dict[str, Tensor]
"""Mean and variance (biased) per channel by layer: `<layer>.mean` (C,), `<layer>.var` (C,)."""

MODES = get_args(NormMode)
PER_EXAMPLE = ("layer", "instance", "none")


@dataclass
class NormPass:
    """How every `Norm` of a network normalises during one forward pass.

    how: "own" (the statistics of this pass), "given" (the statistics in `given`), or a mode of `PER_EXAMPLE`.
    mask: (B,) bool, False for rows that the statistics leave out.
    collect: fill `collected` with the statistics of this pass. differentiable: let gradients flow through them.
    uses: how often each layer has computed in this pass.
    """

    how: str
    mask: Tensor | None = None
    given: Statistics = field(default_factory=dict)
    collect: bool = False
    differentiable: bool = False
    collected: Statistics = field(default_factory=dict)
    uses: dict[str, int] = field(default_factory=dict)

    def next_use(self, layer: str) -> str:
        """Count another use of a layer in this pass, and return the name of its statistics."""
        self.uses[layer] = self.uses.get(layer, 0) + 1
        return use_of(layer, self.uses[layer])


class Norm(nn.Module):
    """The computation of a `nn.BatchNorm*` that `metarun.layers.adopt` has adopted: it normalises x (B, C, ...).

    norm_name: the layer's name in the network. norm_pass: how the current pass normalises.
    """

    num_features: int
    eps: float
    momentum: float | None
    weight: Tensor | None
    bias: Tensor | None
    running_mean: Tensor | None
    running_var: Tensor | None
    num_batches_tracked: Tensor | None
    norm_name: str
    norm_pass: NormPass

    def forward(self, input: Tensor) -> Tensor:
        """Return input (B, C, ...) normalised as `norm_pass` says."""
        x, now = input, self.norm_pass
        use = now.next_use(self.norm_name)
        how = "own" if now.how == "given" and not _known(now.given, self.norm_name) else now.how
        if how == "own" and now.mask is None and not now.differentiable:
            return self._fused(x, now, use)
        mean = var = None
        if how == "own" or now.collect:
            mean, var = batch_statistics(x, now.mask)
            if now.collect:
                now.collected |= {f"{use}.mean": mean, f"{use}.var": var}
        if how == "given":
            name = use if _known(now.given, use) else self.norm_name
            mean, var = now.given[f"{name}.mean"], now.given[f"{name}.var"]
        return self._normalised(x, how, mean, var)

    def _normalised(self, x: Tensor, how: str, mean: Tensor | None, var: Tensor | None) -> Tensor:
        """Normalise by these statistics, or as a mode of `PER_EXAMPLE` says."""
        if how == "layer" or (how == "instance" and x.dim() > 2):
            return scaled(standardised(x, list(range(1 if how == "layer" else 2, x.dim())), self.eps), self.weight, self.bias)
        if how in PER_EXAMPLE:  # "none", and "instance" for examples with one value per channel, which have no spread
            mean, var = x.new_zeros(self.num_features), x.new_ones(self.num_features)
        assert mean is not None and var is not None
        return self._scale(x, mean, var)

    def _fused(self, x: Tensor, now: NormPass, use: str) -> Tensor:
        """Normalise by the statistics of this pass in one kernel, and collect the statistics as constants.

        First and second derivatives are exact, as an outer gradient through inner gradients needs them. Third derivatives are wrong: they
        leave out that the saved statistics depend on x. An algorithm that needs third derivatives sets `differentiable`.
        """
        out, mean, inverse = Normalise.apply(x, self.weight, self.bias, self.eps)
        if now.collect:
            var = (inverse.detach().square().reciprocal() - self.eps).clamp(min=0.0)
            now.collected |= {f"{use}.mean": mean.detach(), f"{use}.var": var}
        return out

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
    over, x = [0, *range(2, x.dim())], at_least_float32(x)
    if mask is None:
        var, mean = torch.var_mean(x, over, correction=0)
        return mean, var
    per_row = x[0, 0].numel()
    rows = mask.to(x.dtype).reshape((-1,) + (1,) * (x.dim() - 1))
    weight = rows / (rows.sum() * per_row).clamp(min=1)
    mean = (x * weight).sum(over)
    centred = x - mean.reshape((1, -1) + (1,) * (x.dim() - 2))
    return mean, (centred.square() * weight).sum(over)


@contextmanager
def normalised_as(now: NormPass, layers: Sequence[Norm]) -> Iterator[None]:
    """Let these layers normalise as one pass says, and by their own statistics again afterwards."""
    for layer in layers:
        layer.norm_pass = now
    try:
        yield
    finally:
        for layer in layers:
            layer.norm_pass = NormPass("own")


BATCH_NORMS = (nn.BatchNorm1d, nn.BatchNorm2d, nn.BatchNorm3d, nn.SyncBatchNorm)


def computes_statistics(layer: nn.Module) -> bool:
    """Return whether a layer is a batch normalisation of torch, or of a subclass, that uses the statistics of its input."""
    return isinstance(layer, BATCH_NORMS) and not isinstance(layer, Norm) and (layer.training or layer.running_mean is None)


@functools.cache
def norm_kind(kind: type[nn.Module]) -> type[nn.Module]:
    """Return the class for an object of a batch normalisation's class: the same class, with `Norm` in the place of torch's forward.

    In a user's subclass `Norm` comes after the subclass and before torch's class, so its `super().forward` is `Norm.forward`.
    """
    base = next(each for each in kind.__mro__ if each in BATCH_NORMS)
    bases = (Norm, kind) if kind is base else (kind, norm_kind(base))
    return types.new_class(kind.__name__, bases, exec_body=lambda names: names.update(__module__=kind.__module__))


def use_of(layer: str, number: int) -> str:
    """Return the name of the statistics of a layer's use in a pass, counted from 1. A layer that blocks share has several uses."""
    return layer if number == 1 else f"{layer}:{number}"


def _known(statistics: Statistics, name: str) -> bool:
    return f"{name}.mean" in statistics
