"""MAML: learn an initialisation from which a few gradient steps suffice.

Chelsea Finn, Pieter Abbeel, Sergey Levine. "Model-Agnostic Meta-Learning for Fast Adaptation of Deep Networks", ICML 2017.
https://arxiv.org/abs/1703.03400

    inner:  θ' = θ - α ∇_θ L(θ, support)            repeated `inner_steps` times           (section 2.2)
    outer:  minimise over θ the mean over tasks of L(θ', query)                            (equation 1)

The outer gradient runs through the inner steps, (I - α H) ∇L(θ', query) for one step. First-order MAML (section 5.2 of the paper)
takes ∇L(θ', query) as it stands: the inner gradients are constants, while θ' still depends on θ by the identity.

Three relatives are options of this file: ANIL and BOIL restrict what adapts, and MAML++ makes training more stable (`mamlpp.py`).
"""

from __future__ import annotations

from collections.abc import Sequence
from dataclasses import dataclass
from functools import cached_property

import torch
from torch import Tensor

from metarun.algorithms.mamlpp import annealed, at_step, one_per_step, statistics_per_step, step_weights
from metarun.algorithms.parts.inner_loop import InnerLoop, check_steps
from metarun.errors import UserError
from metarun.functional import recomputed
from metarun.layers.norm import Statistics
from metarun.network import Fitted, Network
from metarun.objectives import Objective
from metarun.types import Aux, Episode, Examples, Params, State

INNER_LR = "inner_lr."
"""Prefix of the learned rates among the parameters."""


@dataclass(frozen=True)
class Maml:
    """MAML and its relatives.

    inner_lr: α, per inner step. inner_steps: in training; test_inner_steps: at validation and test, None for as many.
    first_order: drop the second derivatives. inner_loss: "mean" over the support examples, or "sum_over_shot", the sum divided by
        the shots, which the released code uses: N times the mean, so that its α of 0.4 at 5 ways is 2.0 on a mean.
    adapts: patterns of the parameters that the inner loop changes ("head.*" is ANIL, "body.*" is BOIL).
    adapt_norm: whether scales and shifts of normalisation are among them; the released code and this default leave them
        to the outer loop. (Its normalisation has a shift only; here, as in every PyTorch port, it has a scale too.)
    recompute: forget the inside of each inner step and compute it again for the outer gradient: the memory of one step instead of all,
        for about a third more time.

    The parts of MAML++, each off by default:
    learn_inner_lr: α is learned with θ, one for each parameter tensor and inner step, from `inner_lr`.
    multi_step_loss_steps: outer steps over which the loss, at first the mean over the query losses after every inner step, moves to the
        last one; a query pass for each inner step, to the end of the run. 0: the last one alone from the start.
    first_order_steps: outer steps that drop the second derivatives, before those that keep them; they take as long.
    per_step_norm: scales, shifts and running statistics of normalisation are each inner step's own.
    """

    network: Network
    objective: Objective
    inner_lr: float = 0.4
    inner_steps: int = 1
    test_inner_steps: int | None = None
    first_order: bool = False
    inner_loss: str = "mean"
    adapts: Sequence[str] = ("*",)
    adapt_norm: bool = False
    recompute: bool = False
    learn_inner_lr: bool = False
    multi_step_loss_steps: int = 0
    first_order_steps: int = 0
    per_step_norm: bool = False

    def __post_init__(self) -> None:
        check_steps(self.inner_steps, self.test_inner_steps)
        for name in ("multi_step_loss_steps", "first_order_steps"):
            if getattr(self, name) < 0:
                raise UserError(f"algo.{name}={getattr(self, name)} must not be negative.")
        if self.inner_steps == 0 and (self.learn_inner_lr or self.per_step_norm):
            raise UserError("algo.inner_steps=0 leaves nothing to learn per step; set algo.learn_inner_lr and algo.per_step_norm to false.")
        if self.per_step_norm and self.adapt_norm:
            raise UserError("algo.per_step_norm leaves scales and shifts to the outer loop; set algo.adapt_norm to false.")
        self.inner.check()

    @cached_property
    def inner(self) -> InnerLoop:
        """The support loss and its gradient."""
        return InnerLoop(self.network, self.objective, self.inner_loss, self.adapts, self.adapt_norm)

    def init(self, key: Tensor) -> tuple[Params, State]:
        """Return the network's initial parameters and running statistics, and what MAML++ learns per step."""
        params, state = self.network.init()
        learned = self.inner.chosen(params) if self.learn_inner_lr else {}
        rates = {INNER_LR + name: torch.full((self.inner_steps,), self.inner_lr) for name in learned}
        params = one_per_step(params, self._per_step, self.inner_steps)
        return params | rates, one_per_step(state, self._per_step, self.inner_steps)

    def adapt(self, params: Params, state: State, support: Examples, key: Tensor, *, training: bool = False) -> Fitted:
        """Return θ' after the inner loop; at test the second derivatives are never needed."""
        return self.trajectory(params, state, support, key, training=training)[-1]

    def trajectory(self, params: Params, state: State, support: Examples, key: Tensor, *, training: bool = False) -> list[Fitted]:
        """Return the network before adaptation and after each inner step."""
        path, _ = self._inner_loop(params, state, support, None, training)
        first = len(path) - 1 if training else 0
        return self._fit(path, first, state, support, training)

    def predict(self, adapted: Fitted, x: Tensor, mask: Tensor | None = None) -> Tensor:
        """Return the adapted network's outputs."""
        return self.network.on_query(adapted, x, mask)[0]

    def loss(self, params: Params, state: State, episode: Episode, key: Tensor, step: Tensor) -> tuple[Tensor, Aux]:
        """Return the query loss after adaptation, or with the multi-step loss its weighted mean over inner steps."""
        support, query = episode
        path, seen = self._inner_loop(params, state, support, step, training=True)
        first = 1 if self.multi_step_loss_steps and self.inner_steps else len(path) - 1
        passes = [
            self.network.on_query(fitted, query.x, query.mask, collect=True) for fitted in self._fit(path, first, state, support, True)
        ]
        losses = [self.objective.loss(outputs, query.y, query.mask) for outputs, _ in passes]
        loss = losses[-1]
        if len(losses) > 1:
            loss = (torch.stack(losses) * step_weights(step, len(losses), self.multi_step_loss_steps)).sum().to(losses[-1].dtype)
        outputs, statistics = passes[-1]
        if self.per_step_norm:
            statistics = statistics_per_step(seen, [statistics for _, statistics in passes])
        score = self.objective.score(outputs, query.y, query.mask)
        return loss, Aux({"loss": losses[-1].detach(), self.objective.metric: score.detach()}, statistics)

    def update_state(self, state: State, aux: dict[str, Tensor]) -> State:
        """Track the running statistics of the query passes, and with `per_step_norm` of the support passes too."""
        return self.network.update_running(state, aux)

    @cached_property
    def _per_step(self) -> set[str]:
        """Names of the parameters and statistics that have a row for each inner step."""
        return self.network.norm_params | set(self.network.init()[1]) if self.per_step_norm else set()

    def _inner_loop(
        self, params: Params, state: State, support: Examples, step: Tensor | None, training: bool
    ) -> tuple[list[Params], list[Statistics]]:
        """Return θ before and after each inner step, and what the support passes saw where `per_step_norm` wants it.

        step: the outer step, by which the order of derivatives is annealed; None where nobody differentiates.
        """
        steps = self.inner_steps if training or self.test_inner_steps is None else self.test_inner_steps
        inner_step = recomputed(self._inner_step) if self.recompute and training else self._inner_step
        second_order = step >= self.first_order_steps if step is not None and self.first_order_steps else None
        rates = {name.removeprefix(INNER_LR): rate for name, rate in params.items() if name.startswith(INNER_LR)}
        path, seen = [{name: params[name] for name in self.network.names}], []
        for number in range(steps):
            changed, statistics = inner_step(path[-1], rates, state, support, second_order, number, training)
            path.append({**path[-1], **changed})
            seen.append(statistics)
        return path, seen

    def _inner_step(
        self, params: Params, rates: Params, state: State, support: Examples, second_order: Tensor | None, number: int, training: bool
    ) -> tuple[Params, Statistics]:
        """Return those parameters that change, and what the pass saw."""
        weights, running = (at_step(tensors, self._per_step, number) for tensors in (params, state))
        gradients, _, statistics = self.inner.slope(
            weights, running, support, training=training, first_order=self.first_order, collect=self.per_step_norm
        )
        if second_order is not None:
            gradients = annealed(gradients, second_order)
        lrs = at_step(rates, rates, number)
        return {name: params[name] - lrs.get(name, self.inner_lr) * gradient for name, gradient in gradients.items()}, statistics

    def _fit(self, path: list[Params], first: int, state: State, support: Examples, training: bool) -> list[Fitted]:
        """Return the networks of a path from its entry `first` on, ready for queries."""
        classes, names = self.inner.classes(support), self._per_step
        return [
            self.network.fit(at_step(path[n], names, n - 1), at_step(state, names, n - 1), support, classes, training=training)
            for n in range(first, len(path))
        ]
