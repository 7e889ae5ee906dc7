"""GBML: gradient-based meta-learning with a learnable optimiser in the inner loop, chosen by `algo/update`.

    θ_{i+1}, m_{i+1} = U_ω(θ_i, ∇L(θ_i, support), L(θ_i, support), m_i)          inner step of the update rule U with memory m
    minimise over θ_0 and ω the mean over tasks of L(θ_S, query)

With gradient descent as the rule this is MAML. Some rules learn parameters ω; each rule in `updates/` cites its paper. All meta-gradients
are exact: second order runs through every input of the rule. First order takes ∇L and L as constants. Gradients still run through the
rule and its memory, so both orders learn ω.
"""

from __future__ import annotations

from dataclasses import dataclass
from functools import cached_property
from typing import Annotated, Any

from torch import Tensor

from metarun import draws
from metarun.algorithms.parts.inner_loop import InnerLoop, InnerLoss, Slope
from metarun.algorithms.parts.members import check_steps, fitted_outputs, last_of_trajectory, steps_of, track_running
from metarun.algorithms.updates.rule import UpdateRule
from metarun.functional import recomputed
from metarun.network import Fitted, Network, query_loss
from metarun.objectives import Objective
from metarun.types import Aux, Episode, Examples, Params, State, part_of, prefixed
from metarun.values import Built, FewOrZero, Names

UPDATE = "update."
"""Prefix of the update rule's parameters ω among all parameters."""


@dataclass(frozen=True)
class Gbml:
    """Meta-learning of an initialisation and an update rule.

    update: the rule U. inner_steps: S, in training. test_inner_steps: at validation and test; None for as many as in training.
    first_order: drop the second derivatives of the network. inner_loss, adapts, adapt_norm, recompute: as in `metarun.algorithms.maml`.
    """

    network: Network
    objective: Objective
    update: Annotated[UpdateRule, Built("an option of algo/update, such as algo/update=sgd")]
    inner_steps: FewOrZero = 1
    test_inner_steps: FewOrZero | None = None
    first_order: bool = False
    inner_loss: InnerLoss = "mean"
    adapts: Names = ("*",)
    adapt_norm: bool = False
    recompute: bool = False

    def __post_init__(self) -> None:
        check_steps(self)
        self.inner.check()

    @cached_property
    def inner(self) -> InnerLoop:
        """The support loss and its gradient."""
        return InnerLoop(self.network, self.objective, self.inner_loss, self.adapts, self.adapt_norm)

    def init(self, key: Tensor) -> tuple[Params, State]:
        """Return the network's initial parameters with the rule's ω, and running statistics."""
        params, state = self.network.init()
        learned = self.update.init(self.inner.chosen(params), draws.fold(key, UPDATE))
        return params | prefixed(UPDATE, learned), state

    def trajectory(self, params: Params, state: State, support: Examples, key: Tensor, *, training: bool = False) -> list[Fitted]:
        """Return the network before adaptation and after each inner step; in training after the last alone."""
        inner_step = recomputed(self._inner_step) if self.recompute and training else self._inner_step
        learned, path = part_of(params, UPDATE), self.inner.start(params)
        memory = self.update.start(self.inner.chosen(path[0]))
        for number in range(steps_of(self, training=training)):
            changed, memory = inner_step(path[-1], learned, memory, state, support, number, training)
            path.append({**path[-1], **changed})
        return self.inner.fit(path, state, support, training=training)

    def loss(self, params: Params, state: State, episode: Episode, key: Tensor, step: Tensor) -> tuple[Tensor, Aux]:
        """Return L(θ_S, query)."""
        support, query = episode
        adapted = self.adapt(params, state, support, key, training=True)
        return query_loss(self.objective, *self.network.on_query(adapted, query.x, query.mask, collect=True), query)

    def _inner_step(
        self, theta: Params, learned: Params, memory: Any, state: State, support: Examples, number: int, training: bool
    ) -> tuple[Params, Any]:
        """Return the parameters that change, and the rule's memory."""
        slope: Slope = self.inner.slope(theta, state, support, training=training, first_order=self.first_order)
        return self.update.step(learned, self.inner.chosen(theta), slope, memory, number)

    adapt = last_of_trajectory
    predict = fitted_outputs
    update_state = track_running
