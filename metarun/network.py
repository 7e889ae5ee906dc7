"""A network as a pure function of its parameters, and the normalisation of each of its passes.

An algorithm makes two passes over an episode, one over the support set and one over the query set. The table shows which statistics
normalise each pass, by `norm`. "own" means the statistics of the rows of this pass.

| norm                  | train, support | train, query      | test, support | test, query       |
| --------------------- | -------------- | ----------------- | ------------- | ----------------- |
| batch                 | own            | own               | own           | own               |
| support               | own            | support's         | own           | support's         |
| reptile               | own            | support + 1 query | own           | support + 1 query |
| running               | own            | own               | running       | running           |
| layer, instance       | per example    | per example       | per example   | per example       |
| none                  | none           | none              | none          | none              |
"""

from __future__ import annotations

from collections.abc import Sequence
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
from metarun.objectives import CLASSIFICATION, Objective
from metarun.types import Aux, Episode, Examples, Params, State, part_of

RUNNING = "running."
"""Prefix of the running statistics in a `State`."""


class Fitted(NamedTuple):
    """A network that is ready for queries: its parameters, and the statistics that normalise queries.

    params: the (adapted) parameters. statistics: the support set's or the running ones; empty where the query pass uses its own.
    support: the support set, for norm=reptile only. classes: (N,) bool, True for each way in the episode; None where all are in it.
    """

    params: Params
    statistics: Statistics
    support: Examples | None
    classes: Tensor | None


@dataclass(frozen=True)
class Network:
    """A module that takes its parameters as an argument, and the name of its normalisation.

    The module describes the layers only. `init` copies the values of its parameters, and no other method reads these values.
    norm: one of `metarun.layers.norm.MODES`. Raises UserError for another name, and for a module with dropout.
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
                raise UserError(f"the backbone's layer '{name}' is a dropout layer, and metarun cannot repeat its draws; set its p to 0.")

    @cached_property
    def norms(self) -> list[Norm]:
        """The normalisation layers, in order."""
        return [layer for layer in self.module.modules() if isinstance(layer, Norm)]

    @cached_property
    def norm_params(self) -> set[str]:
        """Names of the scales and shifts of normalisation layers."""
        return {f"{layer.name}.{name}" for layer in self.norms for name, _ in layer.named_parameters()}

    @cached_property
    def names(self) -> list[str]:
        """Names of the module's parameters, in order. An algorithm may have further parameters."""
        return [name for name, _ in self.module.named_parameters()]

    def init(self) -> tuple[Params, State]:
        """Return the initial parameters, and a state of running statistics with mean 0 and variance 1."""
        params = {name: value.detach().clone() for name, value in self.module.named_parameters()}
        state = {}
        for layer in self.norms:
            state[f"{RUNNING}{layer.name}.mean"] = torch.zeros(layer.features)
            state[f"{RUNNING}{layer.name}.var"] = torch.ones(layer.features)
        return params, state

    def forward(self, params: Params, x: Tensor, now: NormPass) -> Tensor:
        """Run the module on x (B, ...).

        params: the module's parameters; `forward` ignores other names. now: says how to normalise, and collects the statistics of the pass.
        """
        for layer in self.norms:
            layer.current = now
        out: Tensor = functional_call(self.module, {name: params[name] for name in self.names}, (x,))
        return out

    def on_support(self, params: Params, state: State, support: Examples, classes: Tensor | None = None, *, training: bool) -> Tensor:
        """Return the outputs of the inner loop's pass over a support set, with the logits of absent classes at -1e9."""
        return hide_absent(self.forward(params, support.x, self._support_pass(state, support.mask, training)), classes)

    def on_support_seen(self, params: Params, state: State, support: Examples, classes: Tensor | None = None) -> tuple[Tensor, Statistics]:
        """Return the outputs of `on_support` in training, and the statistics of this pass."""
        now = self._support_pass(state, support.mask, training=True)
        now.mask, now.collect = support.mask, True
        outputs = hide_absent(self.forward(params, support.x, now), classes)
        return outputs, {name: value.detach() for name, value in now.collected.items()}

    def fit(self, params: Params, state: State, support: Examples, classes: Tensor | None = None, *, training: bool) -> Fitted:
        """Return the network with these adapted parameters, ready for queries: the statistics that normalise queries are fixed here."""
        if self.norm == "support":
            now = NormPass("own", support.mask, collect=True, differentiable=True)
            self.forward(params, support.x, now)
            return Fitted(params, now.collected, None, classes)
        if self.norm == "running" and not training:
            return Fitted(params, running_statistics(state), None, classes)
        return Fitted(params, {}, support if self.norm == "reptile" and self.norms else None, classes)

    def fit_path(
        self, path: Sequence[Params], state: State, support: Examples, classes: Tensor | None = None, *, training: bool
    ) -> list[Fitted]:
        """Return `fit` for each entry of an inner loop's path; in training for the last entry alone, since nothing reads the others."""
        return [self.fit(params, state, support, classes, training=training) for params in (path[-1:] if training else path)]

    def on_query(self, fitted: Fitted, x: Tensor, mask: Tensor | None = None, *, collect: bool = False) -> tuple[Tensor, Statistics]:
        """Return the outputs on queries x (B, ...) with absent classes at -1e9, and the statistics of this pass if `collect`."""
        if fitted.support is not None:
            outputs, statistics = self._each_with_support(fitted, x, mask, collect)
        else:
            how = self.norm if self.norm in PER_EXAMPLE else "given" if fitted.statistics else "own"
            now = NormPass(how, mask, fitted.statistics, collect)
            outputs, statistics = self.forward(fitted.params, x, now), now.collected
        return hide_absent(outputs, fitted.classes), {name: value.detach() for name, value in statistics.items()}

    def on_episode(self, params: Params, state: State, episode: Episode) -> tuple[Tensor, Tensor, Statistics]:
        """Return a training episode's outputs on support and on query, and the statistics, for methods that embed both sets alike.

        With norm=batch and norm=running both sets go through the network in one pass, and their joint statistics normalise the pass. The
        released code of these methods does the same. With any other norm there are two passes.
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
        """Pass each query through the network together with the whole support set, as Reptile's released code does."""
        support = fitted.support
        assert support is not None
        real = None if support.mask is None else torch.cat([support.mask, support.mask.new_ones(1)])

        def one(query: Tensor) -> tuple[Tensor, Statistics]:
            now = NormPass("own", real, collect=collect)
            outputs = self.forward(fitted.params, torch.cat([support.x, query[None]]), now)
            return outputs[-1], now.collected

        outputs, statistics = vmap(one)(x)
        weight = x.new_full((len(x),), 1 / len(x)) if mask is None else mask.to(x.dtype) / mask.sum().clamp(min=1)
        return outputs, {name: weight @ value for name, value in statistics.items()}


def network_of(algorithm: object) -> Network | None:
    """Return the network of an algorithm; None where it has none."""
    network = getattr(algorithm, "network", None)
    return network if isinstance(network, Network) else None


def running_statistics(state: State) -> Statistics:
    """Return the running statistics of a state under the names of their layers."""
    return part_of(state, RUNNING)


def query_loss(objective: Objective, outputs: Tensor, statistics: Statistics, query: Examples) -> tuple[Tensor, Aux]:
    """Return the query loss of these outputs (B, N) or (B, D), and the report of loss, score and the query pass's statistics.

    Most algorithms end their `loss` with this function.
    """
    loss = objective.loss(outputs, query.y, query.mask)
    score = objective.score(outputs, query.y, query.mask)
    return loss, Aux.of({"loss": loss, objective.metric: score}, statistics)


def present_classes(support: Examples, objective: Objective = CLASSIFICATION) -> Tensor | None:
    """Return which ways have a support example, (N,) bool. None in regression, and without padding.

    Without padding, every way has a support example.
    """
    if support.mask is None or objective.kind != "classification":
        return None
    return (support.y * support.mask[:, None]).sum(dim=0) > 0


def hide_absent(logits: Tensor, classes: Tensor | None) -> Tensor:
    """Return logits (B, N) with the absent classes at -1e9, which is probability 0 and gradient 0."""
    return logits if classes is None else logits.masked_fill(~classes, -1e9)


def joint_mask(support: Examples, query: Examples) -> Tensor | None:
    """Return the mask of the support rows followed by the query rows; None where neither set has padding."""
    if support.mask is None and query.mask is None:
        return None
    parts = [
        torch.ones(len(part.x), dtype=torch.bool, device=part.x.device) if part.mask is None else part.mask for part in (support, query)
    ]
    return torch.cat(parts)
