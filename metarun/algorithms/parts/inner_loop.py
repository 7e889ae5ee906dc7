"""What gradient-based algorithms share of their inner loop: which parameters adapt, the support loss, and its gradient.

What is done with the gradient is each algorithm's own.
"""

from __future__ import annotations

from collections.abc import Sequence
from dataclasses import dataclass
from fnmatch import fnmatchcase
from typing import NamedTuple

from torch import Tensor
from torch.func import grad_and_value

from metarun.errors import UserError
from metarun.layers.norm import Statistics
from metarun.network import Network, present_classes
from metarun.objectives import Objective
from metarun.types import Examples, Params, State

INNER_LOSSES = ("mean", "sum_over_shot")


class Slope(NamedTuple):
    """gradients: by name, of those parameters that adapt. loss: scalar. statistics: of the pass, where they were asked for."""

    gradients: Params
    loss: Tensor
    statistics: Statistics


@dataclass(frozen=True)
class InnerLoop:
    """The support loss as a function of the parameters that adapt.

    inner_loss: "mean" over the support examples, or "sum_over_shot", the sum divided by the shots. adapts: patterns of the parameters
    that change. adapt_norm: whether scales and shifts of normalisation may be among them.
    """

    network: Network
    objective: Objective
    inner_loss: str = "mean"
    adapts: Sequence[str] = ("*",)
    adapt_norm: bool = False

    def check(self) -> None:
        """Raise UserError where the options do not suit the network."""
        if self.inner_loss not in INNER_LOSSES:
            raise UserError(f"algo.inner_loss={self.inner_loss} is unknown; it must be one of {', '.join(INNER_LOSSES)}.")
        params, _ = self.network.init()
        if not self.chosen(params):
            raise UserError(f"algo.adapts={list(self.adapts)} matches none of the parameters {', '.join(params)}.")

    def chosen(self, params: Params) -> Params:
        """Return those of the network's parameters that adapt."""
        held = set() if self.adapt_norm else self.network.norm_params
        return {
            name: value for name, value in params.items() if name not in held and any(fnmatchcase(name, pattern) for pattern in self.adapts)
        }

    def classes(self, support: Examples) -> Tensor | None:
        """Return which ways the episode has, (N,) bool; None where it has all, and in regression."""
        return present_classes(support) if self.objective.kind == "classification" else None

    def loss(self, params: Params, state: State, support: Examples, *, training: bool, collect: bool = False) -> tuple[Tensor, Statistics]:
        """Return the support loss at the network's parameters, and where `collect` asks, in training, what normalisation saw."""
        classes = self.classes(support)
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
        """Return the gradient of the support loss by the parameters that adapt.

        first_order: as a constant, so that an outer gradient stops here.
        """
        chosen = self.chosen(params)
        rest = {name: value for name, value in params.items() if name not in chosen}
        if first_order:
            chosen, rest = constant(chosen), constant(rest)

        def loss(chosen: Params) -> tuple[Tensor, Statistics]:
            return self.loss({**rest, **chosen}, state, support, training=training, collect=collect)

        gradients, (value, statistics) = grad_and_value(loss, has_aux=True)(chosen)
        return Slope(gradients, value, statistics)


def constant(params: Params) -> Params:
    """Return parameters through which no gradient flows."""
    return {name: value.detach() for name, value in params.items()}


def check_steps(inner_steps: int, test_inner_steps: int | None) -> None:
    """Raise UserError where a number of inner steps is negative."""
    if inner_steps < 0 or (test_inner_steps or 0) < 0:
        raise UserError(f"algo.inner_steps={inner_steps} and algo.test_inner_steps={test_inner_steps} must not be negative.")
