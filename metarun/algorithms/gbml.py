"""GBML: gradient-based meta-learning with a learnable optimiser in the inner loop, chosen by `algo/update`.

    θ_{i+1}, m_{i+1} = U_ω(θ_i, ∇L(θ_i, support), L(θ_i, support), m_i)          inner step of the update rule U with memory m
    minimise over θ_0 and ω the mean over tasks of L(θ_S, query)

With gradient descent as rule this is MAML; the rules that learn something, ω, each cite their paper in `updates/`. All meta-gradients are
exact: second order runs through every input of the rule. First order takes ∇L and L for constants, and still runs through the rule itself
and its memory, so that ω is learned either way.
"""

from __future__ import annotations

from collections.abc import Sequence
from dataclasses import dataclass
from functools import cached_property
from typing import Any

from torch import Tensor

from metarun import draws
from metarun.algorithms.parts.inner_loop import InnerLoop, Slope, check_steps
from metarun.algorithms.updates.rule import UpdateRule
from metarun.functional import recomputed
from metarun.network import Fitted, Network
from metarun.objectives import Objective
from metarun.types import Aux, Episode, Examples, Params, State

UPDATE = "update."
"""Prefix of what the update rule learns among the parameters."""


@dataclass(frozen=True)
class Gbml:
    """Meta-learning of an initialisation and an update rule.

    update: the rule. inner_steps: in training; test_inner_steps: at validation and test, None for as many. first_order: drop the second
    derivatives of the network. inner_loss, adapts, adapt_norm, recompute: as in MAML.
    """

    network: Network
    objective: Objective
    update: UpdateRule
    inner_steps: int = 1
    test_inner_steps: int | None = None
    first_order: bool = False
    inner_loss: str = "mean"
    adapts: Sequence[str] = ("*",)
    adapt_norm: bool = False
    recompute: bool = False

    def __post_init__(self) -> None:
        check_steps(self.inner_steps, self.test_inner_steps)
        self.inner.check()

    @cached_property
    def inner(self) -> InnerLoop:
        """The support loss and its gradient."""
        return InnerLoop(self.network, self.objective, self.inner_loss, self.adapts, self.adapt_norm)

    def init(self, key: Tensor) -> tuple[Params, State]:
        """Return the network's initial parameters and running statistics, and what the rule learns."""
        params, state = self.network.init()
        learned = self.update.init(self.inner.chosen(params), draws.fold(key, UPDATE))
        return params | {UPDATE + name: value for name, value in learned.items()}, state

    def adapt(self, params: Params, state: State, support: Examples, key: Tensor, *, training: bool = False) -> Fitted:
        """Return the network after the inner loop."""
        return self.trajectory(params, state, support, key, training=training)[-1]

    def trajectory(self, params: Params, state: State, support: Examples, key: Tensor, *, training: bool = False) -> list[Fitted]:
        """Return the network before adaptation and after each inner step; in training after the last alone."""
        steps = self.inner_steps if training or self.test_inner_steps is None else self.test_inner_steps
        inner_step = recomputed(self._inner_step) if self.recompute and training else self._inner_step
        learned = {name.removeprefix(UPDATE): value for name, value in params.items() if name.startswith(UPDATE)}
        path = [{name: params[name] for name in self.network.names}]
        memory = self.update.start(self.inner.chosen(path[0]))
        for number in range(steps):
            changed, memory = inner_step(path[-1], learned, memory, state, support, number, training)
            path.append({**path[-1], **changed})
        classes = self.inner.classes(support)
        return [self.network.fit(fast, state, support, classes, training=training) for fast in (path[-1:] if training else path)]

    def predict(self, adapted: Fitted, x: Tensor, mask: Tensor | None = None) -> Tensor:
        """Return the adapted network's outputs."""
        return self.network.on_query(adapted, x, mask)[0]

    def loss(self, params: Params, state: State, episode: Episode, key: Tensor, step: Tensor) -> tuple[Tensor, Aux]:
        """Return the query loss after adaptation."""
        query = episode.query
        adapted = self.adapt(params, state, episode.support, key, training=True)
        outputs, statistics = self.network.on_query(adapted, query.x, query.mask, collect=True)
        loss = self.objective.loss(outputs, query.y, query.mask)
        score = self.objective.score(outputs, query.y, query.mask)
        return loss, Aux({"loss": loss.detach(), self.objective.metric: score.detach()}, statistics)

    def update_state(self, state: State, aux: dict[str, Tensor]) -> State:
        """Track the running statistics of the query passes."""
        return self.network.update_running(state, aux)

    def _inner_step(
        self, params: Params, learned: Params, memory: Any, state: State, support: Examples, number: int, training: bool
    ) -> tuple[Params, Any]:
        """Return those parameters that change, and the rule's memory."""
        slope: Slope = self.inner.slope(params, state, support, training=training, first_order=self.first_order)
        return self.update.step(learned, self.inner.chosen(params), slope, memory, number)
