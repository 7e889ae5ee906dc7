"""A network as a pure function of its parameters, and what normalises each of its passes.

Which statistics a pass uses, by `norm` and by the moment of the pass (N.B. `support` and `query` here are the two passes that an
algorithm makes over an episode; "own" means the statistics of the rows of that very pass):

| norm                  | train, support | train, query      | test, support | test, query       |
| --------------------- | -------------- | ----------------- | ------------- | ----------------- |
| batch                 | own            | own               | own           | own               |
| support               | own            | support's         | own           | support's         |
| reptile               | own            | support + 1 query | own           | support + 1 query |
| running               | own            | own               | running       | running           |
| layer, instance, none | per example    | per example       | per example   | per example       |
"""

from __future__ import annotations

from dataclasses import dataclass
from functools import cached_property
from typing import NamedTuple

import torch
from torch import Tensor, nn
from torch.func import functional_call, vmap

from metarun.errors import UserError, nearest
from metarun.layers.conv import replace_conv
from metarun.layers.norm import MODES, PER_EXAMPLE, Norm, NormPass, Statistics, replace_batch_norm
from metarun.layers.pool import replace_pool
from metarun.types import Episode, Examples, Params, State

RUNNING = "running."
"""Prefix of the running statistics in a `State`."""


class Fitted(NamedTuple):
    """A network that is ready for queries: parameters, and what its normalisation knows of the support set.

    params: the (adapted) parameters. statistics: what the query pass is normalised by; empty where it uses its own.
    support: the support set, for norm=reptile only. classes: (N,) bool, which ways the episode has; None where it has all.
    """

    params: Params
    statistics: Statistics
    support: Examples | None
    classes: Tensor | None


@dataclass(frozen=True)
class Network:
    """A module that is called with explicit parameters, and the name of its normalisation.

    The module is only a description: its own parameters are the initial values and are never read again.
    """

    module: nn.Module
    norm: str = "batch"

    def __post_init__(self) -> None:
        if self.norm not in MODES:
            raise UserError(f"backbone.norm={self.norm} is unknown; it must be one of {', '.join(MODES)}.{nearest(self.norm, MODES)}")
        replace_batch_norm(self.module)
        replace_conv(self.module)
        replace_pool(self.module)
        for name, layer in self.module.named_modules():
            if isinstance(layer, Norm):
                layer.name = name
            if isinstance(layer, nn.modules.dropout._DropoutNd) and layer.p > 0:
                raise UserError(f"the backbone's layer '{name}' is a dropout, whose draws could not be repeated; set its p to 0.")

    @cached_property
    def norms(self) -> list[Norm]:
        """The normalisation layers, in order."""
        return [layer for layer in self.module.modules() if isinstance(layer, Norm)]

    @cached_property
    def norm_params(self) -> set[str]:
        """Names of the parameters that belong to normalisation layers."""
        return {f"{layer.name}.{name}" for layer in self.norms for name, _ in layer.named_parameters()}

    @cached_property
    def names(self) -> list[str]:
        """Names of the module's parameters, in order; an algorithm may keep more than these in its own."""
        return [name for name, _ in self.module.named_parameters()]

    def init(self) -> tuple[Params, State]:
        """Return the initial parameters, and running statistics of mean 0 and variance 1."""
        params = {name: value.detach().clone() for name, value in self.module.named_parameters()}
        state = {}
        for layer in self.norms:
            state[f"{RUNNING}{layer.name}.mean"] = torch.zeros(layer.features)
            state[f"{RUNNING}{layer.name}.var"] = torch.ones(layer.features)
        return params, state

    def forward(self, params: Params, x: Tensor, now: NormPass) -> Tensor:
        """Run the module on x (B, ...) with those of these parameters that are its own; `now` says how to normalise and collects statistics."""
        for layer in self.norms:
            layer.current = now
        out: Tensor = functional_call(self.module, {name: params[name] for name in self.names}, (x,))
        return out

    def on_support(self, params: Params, state: State, support: Examples, classes: Tensor | None = None, *, training: bool) -> Tensor:
        """Return outputs on a support set, as the inner loop sees them."""
        return hide_absent(self.forward(params, support.x, self._support_pass(state, support.mask, training)), classes)

    def on_support_seen(self, params: Params, state: State, support: Examples, classes: Tensor | None = None) -> tuple[Tensor, Statistics]:
        """Return what `on_support` does in training, and the pass's own statistics."""
        now = self._support_pass(state, support.mask, training=True)
        now.mask, now.collect = support.mask, True
        outputs = hide_absent(self.forward(params, support.x, now), classes)
        return outputs, {name: value.detach() for name, value in now.collected.items()}

    def fit(self, params: Params, state: State, support: Examples, classes: Tensor | None = None, *, training: bool) -> Fitted:
        """Fix what queries will be normalised by, given the parameters that adaptation ended with."""
        if self.norm == "support":
            now = NormPass("own", support.mask, collect=True, differentiable=True)
            self.forward(params, support.x, now)
            return Fitted(params, now.collected, None, classes)
        if self.norm == "running" and not training:
            return Fitted(params, running_statistics(state), None, classes)
        return Fitted(params, {}, support if self.norm == "reptile" and self.norms else None, classes)

    def on_query(self, fitted: Fitted, x: Tensor, mask: Tensor | None = None, *, collect: bool = False) -> tuple[Tensor, Statistics]:
        """Return outputs on queries x (B, ...), absent classes at -1e9, and the pass's own statistics where `collect` asks."""
        if fitted.support is not None:
            outputs, statistics = self._each_with_support(fitted, x, mask, collect)
        else:
            how = self.norm if self.norm in PER_EXAMPLE else "given" if fitted.statistics else "own"
            now = NormPass(how, mask, fitted.statistics, collect)
            outputs, statistics = self.forward(fitted.params, x, now), now.collected
        return hide_absent(outputs, fitted.classes), {name: value.detach() for name, value in statistics.items()}

    def on_episode(self, params: Params, state: State, episode: Episode) -> tuple[Tensor, Tensor, Statistics]:
        """Return a training pass's outputs on support and on query, and its statistics, for methods that embed both sets alike.

        Where the mode normalises by the batch at hand (`batch`, `running`), the two sets go through the network in one pass and are
        normalised by the statistics of both, as in the released code of such methods; elsewhere in two.
        """
        support, query = episode
        if self.norm not in ("batch", "running"):
            outputs = self.on_support(params, state, support, training=True)
            fitted = self.fit(params, state, support, training=True)
            return outputs, *self.on_query(fitted, query.x, query.mask, collect=True)
        now = NormPass("own", joint_mask(support, query), collect=True)
        outputs = self.forward(params, torch.cat([support.x, query.x]), now)
        split = support.x.shape[0]
        return outputs[:split], outputs[split:], {name: value.detach() for name, value in now.collected.items()}

    def update_running(self, state: State, statistics: Statistics) -> State:
        """Move the running statistics towards the mean over tasks of `statistics` (leading axis T), by each layer's momentum."""
        state = dict(state)
        for layer in self.norms:
            for kind in ("mean", "var"):
                name, seen = f"{RUNNING}{layer.name}.{kind}", statistics[f"{layer.name}.{kind}"].mean(dim=0)
                state[name] = state[name] + layer.momentum * (seen - state[name])
        return state

    def _support_pass(self, state: State, mask: Tensor | None, training: bool) -> NormPass:
        if self.norm in PER_EXAMPLE:
            return NormPass(self.norm)
        if self.norm == "running" and not training and self.norms:
            return NormPass("given", given=running_statistics(state))
        return NormPass("own", mask)

    def _each_with_support(self, fitted: Fitted, x: Tensor, mask: Tensor | None, collect: bool) -> tuple[Tensor, Statistics]:
        """Pass each query through the network in a batch with the whole support set, as Reptile's released code does."""
        support = fitted.support
        assert support is not None
        used = None if support.mask is None else torch.cat([support.mask, support.mask.new_ones(1)])

        def one(query: Tensor) -> tuple[Tensor, Statistics]:
            now = NormPass("own", used, collect=collect)
            outputs = self.forward(fitted.params, torch.cat([support.x, query[None]]), now)
            return outputs[-1], now.collected

        outputs, statistics = vmap(one)(x)
        weight = x.new_full((len(x),), 1 / len(x)) if mask is None else mask.to(x.dtype) / mask.sum().clamp(min=1)
        return outputs, {name: weight @ value for name, value in statistics.items()}


def running_statistics(state: State) -> Statistics:
    """Return the running statistics of a state under the names of their layers."""
    return {name.removeprefix(RUNNING): value for name, value in state.items() if name.startswith(RUNNING)}


def present_classes(support: Examples) -> Tensor | None:
    """Return which ways have a support example, (N,) bool; None where nothing is padded, and so all have."""
    if support.mask is None:
        return None
    return (support.y * support.mask[:, None]).sum(dim=0) > 0


def hide_absent(logits: Tensor, classes: Tensor | None) -> Tensor:
    """Return logits (B, N) with the absent classes at -1e9, which is probability 0 and gradient 0."""
    return logits if classes is None else logits.masked_fill(~classes, -1e9)


def joint_mask(support: Examples, query: Examples) -> Tensor | None:
    """Return the mask of support and query behind each other, None where nothing in either is padded."""
    if support.mask is None and query.mask is None:
        return None
    parts = [
        torch.ones(len(part.x), dtype=torch.bool, device=part.x.device) if part.mask is None else part.mask for part in (support, query)
    ]
    return torch.cat(parts)
