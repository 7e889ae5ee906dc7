"""The inner loop of gradient-based algorithms: the parameters that adapt, the support loss, and its gradient.

Each algorithm says for itself how it moves along the gradient.
"""

from __future__ import annotations

from collections.abc import Sequence
from dataclasses import dataclass
from fnmatch import fnmatchcase
from typing import Literal, NamedTuple, get_args

from torch import Tensor
from torch.func import grad_and_value

from metarun.errors import UserError, nearest
from metarun.layers.norm import Statistics
from metarun.network import Fitted, Network, present_classes
from metarun.objectives import Objective
from metarun.types import Examples, Params, State, constant
from metarun.values import Names

InnerLoss = Literal["mean", "sum_over_shot"]
INNER_LOSSES = get_args(InnerLoss)


class Slope(NamedTuple):
    """gradients: by name, of the parameters that adapt. loss: scalar. statistics: of the pass, where `collect` asked for them."""

    gradients: Params
    loss: Tensor
    statistics: Statistics


@dataclass(frozen=True)
class InnerLoop:
    """The support loss as a function of the parameters that adapt.

    inner_loss: "mean" over the support examples, or "sum_over_shot", their sum divided by the shots. adapts: patterns of the names of
    the parameters that change. adapt_norm: whether scales and shifts of normalisation may change too.
    """

    network: Network
    objective: Objective
    inner_loss: InnerLoss = "mean"
    adapts: Names = ("*",)
    adapt_norm: bool = False

    def check(self) -> None:
        """Raise UserError where the options do not suit the network."""
        if self.inner_loss not in INNER_LOSSES:
            known = ", ".join(INNER_LOSSES)
            raise UserError(
                f"algo.inner_loss={self.inner_loss} is unknown; it must be one of {known}.{nearest(self.inner_loss, INNER_LOSSES)}"
            )
        params, _ = self.network.init()
        if not self.chosen(params):
            raise UserError(f"algo.adapts={list(self.adapts)} matches none of the parameters {', '.join(params)}.")

    def chosen(self, params: Params) -> Params:
        """Return the parameters that adapt."""
        held = set() if self.adapt_norm else self.network.norm_params
        return {
            name: value for name, value in params.items() if name not in held and any(fnmatchcase(name, pattern) for pattern in self.adapts)
        }

    def loss(self, params: Params, state: State, support: Examples, *, training: bool, collect: bool = False) -> tuple[Tensor, Statistics]:
        """Return the support loss at these parameters, and with `collect`, in training, the statistics of normalisation."""
        classes = present_classes(support, self.objective)
        statistics: Statistics = {}
        if collect and training:
            outputs, statistics = self.network.on_support_seen(params, state, support, classes)
        else:
            outputs = self.network.on_support(params, state, support, classes, training=training)
        loss = self.objective.loss(outputs, support.y, support.mask)
        if self.inner_loss == "sum_over_shot":
            loss = loss * self.objective.shot_scale(support.y, support.mask)
        return loss, statistics

    def slope(
        self, params: Params, state: State, support: Examples, *, training: bool, first_order: bool = False, collect: bool = False
    ) -> Slope:
        """Return the gradient of the support loss by the parameters that adapt; with `first_order` as a constant for outer gradients."""
        chosen = self.chosen(params)
        rest = {name: value for name, value in params.items() if name not in chosen}
        if first_order:
            chosen, rest = constant(chosen), constant(rest)

        def loss(chosen: Params) -> tuple[Tensor, Statistics]:
            return self.loss({**rest, **chosen}, state, support, training=training, collect=collect)

        gradients, (value, statistics) = grad_and_value(loss, has_aux=True)(chosen)
        return Slope(gradients, value, statistics)

    def start(self, params: Params) -> list[Params]:
        """Return a path through the inner loop that holds its start alone: the network's own parameters."""
        return [{name: params[name] for name in self.network.names}]

    def fit(self, path: Sequence[Params], state: State, support: Examples, *, training: bool) -> list[Fitted]:
        """Return the networks of a path, ready for queries; in training the last alone."""
        return self.network.fit_path(path, state, support, present_classes(support, self.objective), training=training)
