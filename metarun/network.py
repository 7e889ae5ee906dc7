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

from metarun.errors import UserError, nearest
from metarun.functional import mapped
from metarun.layers.adopt import adopt_layers
from metarun.layers.attention import plain_attention
from metarun.layers.calling import call_with, places_of
from metarun.layers.norm import MODES, PER_EXAMPLE, Norm, NormPass, Statistics, normalised_as, use_of
from metarun.layers.precision import at_least_float32, full_precision
from metarun.objectives import CLASSIFICATION, Objective
from metarun.types import Aux, Episode, Examples, Params, State, part_of
from metarun.values import NormMode

RUNNING = "running."
"""Prefix of the running statistics in a `State`."""
FROZEN, BUFFER = "frozen.", "buffer."
"""Prefixes in a `State` of the parameters with `requires_grad=False`, and of the module's buffers. No step changes them."""


class Fitted(NamedTuple):
    """A network that is ready for queries: its parameters, and the statistics that normalise queries.

    params: the (adapted) parameters, and the network's fixed tensors. statistics: the support set's or the running ones, which normalise
    queries; empty where the query pass uses its own. support: the support set, for norm=reptile only. classes: (N,) bool, True for each
    way in the episode; None where all are in it.
    """

    params: Params
    statistics: Statistics
    support: Examples | None
    classes: Tensor | None


@dataclass(frozen=True)
class Network:
    """A module that takes its parameters as an argument, and the name of its normalisation.

    The module describes the layers only. `init` copies the values of its parameters and buffers, and no other method reads these values.
    norm: one of `metarun.layers.norm.MODES`. copy_input: give the module a copy of its input, since it changes its input in place.
    Raises UserError for another name, and for a module with dropout.
    """

    module: nn.Module
    norm: NormMode = "batch"
    copy_input: bool = False

    def __post_init__(self) -> None:
        if self.norm not in MODES:
            raise UserError(f"backbone.norm={self.norm} is unknown; it must be one of {', '.join(MODES)}.{nearest(self.norm, MODES)}")
        adopt_layers(self.module)
        for name, layer in self.module.named_modules():
            if isinstance(layer, nn.modules.dropout._DropoutNd) and layer.p > 0 and layer.training:
                raise UserError(f"the backbone's layer '{name}' is a dropout layer, and metarun cannot repeat its draws; set its p to 0.")

    @cached_property
    def norms(self) -> list[Norm]:
        """The normalisation layers, in order."""
        return [layer for layer in self.module.modules() if isinstance(layer, Norm)]

    @cached_property
    def norm_params(self) -> set[str]:
        """Names of the scales and shifts of normalisation layers, among `names`."""
        of_norms = (layer.named_parameters() for layer in self.norms)
        found = {id(value) for values in of_norms for name, value in values if name.split(".")[0] in ("weight", "bias", "parametrizations")}
        return {name for name, value in self.module.named_parameters() if id(value) in found and value.requires_grad}

    @cached_property
    def names(self) -> list[str]:
        """Names of the module's parameters that learn, in order. An algorithm may have further parameters."""
        return [name for name, value in self.module.named_parameters() if value.requires_grad]

    @cached_property
    def fixed(self) -> dict[str, Tensor]:
        """The tensors that no step changes, under their names in a `State`: frozen parameters, and buffers except running statistics."""
        running = {id(value) for layer in self.norms for value in (layer.running_mean, layer.running_var, layer.num_batches_tracked)}
        frozen = {FROZEN + name: value for name, value in self.module.named_parameters() if not value.requires_grad}
        return frozen | {BUFFER + name: value for name, value in self.module.named_buffers() if id(value) not in running}

    def init(self) -> tuple[Params, State]:
        """Return the initial parameters, and a state with the module's running statistics and its fixed tensors.

        A new layer of torch has the running mean 0 and the running variance 1; a layer with loaded weights has its own.
        """
        params = {name: value.detach().clone() for name, value in self.module.named_parameters() if value.requires_grad}
        state: State = {}
        for layer in self._tracked:
            values = {"mean": layer.running_mean, "var": layer.running_var}
            if layer.momentum is None:
                values["count"] = layer.num_batches_tracked
            state |= {f"{RUNNING}{layer.norm_name}.{kind}": value.clone() for kind, value in values.items() if value is not None}
        return params, state | {name: value.detach().clone() for name, value in self.fixed.items()}

    def complete(self, params: Params, state: State) -> Params:
        """Return the parameters with the fixed tensors of the state, as `forward` needs them."""
        return {**params, **part_of(state, FROZEN), **part_of(state, BUFFER)} if self.fixed else params

    def forward(self, params: Params, x: Tensor, now: NormPass) -> Tensor:
        """Run the module on x (B, ...).

        params: the module's parameters and its fixed tensors (`complete`); `forward` ignores other names. now: says how to normalise, and
        collects the statistics of the pass. The outputs are in float32 also where autocast lets the last layer return bfloat16.
        """
        given = {name: params[name] for name in self._given}
        with normalised_as(now, self.norms), plain_attention():
            return at_least_float32(call_with(self.module, self._places, given, x.clone() if self.copy_input else x))

    def on_support(self, params: Params, state: State, support: Examples, classes: Tensor | None = None, *, training: bool) -> Tensor:
        """Return the outputs of the inner loop's pass over a support set, with the logits of absent classes at -1e9."""
        now = self._support_pass(state, support.mask, training)
        return hide_absent(self.forward(self.complete(params, state), support.x, now), classes)

    def on_support_seen(self, params: Params, state: State, support: Examples, classes: Tensor | None = None) -> tuple[Tensor, Statistics]:
        """Return the outputs of `on_support` in training, and the statistics of this pass."""
        now = self._support_pass(state, support.mask, training=True)
        now.mask, now.collect = support.mask, True
        outputs = hide_absent(self.forward(self.complete(params, state), support.x, now), classes)
        return outputs, {name: value.detach() for name, value in now.collected.items()}

    def fit(self, params: Params, state: State, support: Examples, classes: Tensor | None = None, *, training: bool) -> Fitted:
        """Return the network with these adapted parameters, ready for queries: the statistics that normalise queries are fixed here."""
        params = self.complete(params, state)
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

    def on_episode(self, params: Params, state: State, episode: Episode, *, collect: bool = True) -> tuple[Tensor, Tensor, Statistics]:
        """Return a training episode's outputs on support and on query, and the statistics, for methods that embed both sets alike.

        With norm=batch and norm=running both sets go through the network in one pass, and their joint statistics normalise the pass. The
        released code of these methods does the same. With any other norm there are two passes.
        """
        support, query = episode
        if self.norm not in ("batch", "running"):
            outputs = self.on_support(params, state, support, training=True)
            fitted = self.fit(params, state, support, training=True)
            return outputs, *self.on_query(fitted, query.x, query.mask, collect=collect)
        now = NormPass("own", joint_mask(support, query), collect=collect)
        outputs = self.forward(self.complete(params, state), torch.cat([support.x, query.x]), now)
        split = support.x.shape[0]
        return outputs[:split], outputs[split:], {name: value.detach() for name, value in now.collected.items()}

    def update_running(self, state: State, statistics: Statistics) -> State:
        """Move the running statistics towards the mean over tasks of `statistics` (leading axis T), by each layer's momentum."""
        state = dict(state)
        for layer in self._tracked:
            number = 1
            while f"{(use := use_of(layer.norm_name, number))}.mean" in statistics:
                self._move(state, layer, {kind: statistics[f"{use}.{kind}"].mean(dim=0) for kind in ("mean", "var")})
                number += 1
        return state

    def _move(self, state: State, layer: Norm, seen: Statistics) -> None:
        """Move a layer's running statistics in `state` towards those seen; as in torch, by the cumulative average without a momentum."""
        name = RUNNING + layer.norm_name
        share: Tensor | float | None = layer.momentum
        if share is None:
            state[f"{name}.count"] = state[f"{name}.count"] + 1
            share = (1.0 / state[f"{name}.count"])[..., None]
        for kind, value in seen.items():
            state[f"{name}.{kind}"] = state[f"{name}.{kind}"] + share * (value - state[f"{name}.{kind}"])

    @cached_property
    def _tracked(self) -> list[Norm]:
        """The normalisation layers with running statistics."""
        return [layer for layer in self.norms if layer.running_mean is not None]

    @cached_property
    def _given(self) -> list[str]:
        """The module's names of the tensors that each call passes to it."""
        return [*self.names, *(name.split(".", 1)[1] for name in self.fixed)]

    @cached_property
    def _places(self) -> dict[str, str]:
        """The places of the module's tensors, with their names."""
        return places_of(self.module)

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

        outputs, statistics = mapped(one)(x)
        weight = x.new_full((len(x),), 1 / len(x)) if mask is None else mask.to(x.dtype) / mask.sum().clamp(min=1)
        with full_precision(weight):
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
