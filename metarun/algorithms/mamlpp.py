"""MAML++: MAML with four changes that make its training more stable. An option turns each of them on or off.

Antreas Antoniou, Harrison Edwards, Amos Storkey. "How to train your MAML", ICLR 2019. https://arxiv.org/abs/1810.09502
Details as in the released code, https://github.com/AntreasAntoniou/HowToTrainYourMAMLPytorch.

    learned rates           θ_{i+1} = θ_i - α_{l,i} ∇_{θ_l} L(θ_i, support)      an α for each tensor l and step i = 0 … S-1 (LSLR)
    multi-step loss         minimise Σ_i w_i L(θ_{i+1}, query)                   w moves to the last step during training (MSL)
    order of derivatives    ∇L is a constant in the first outer steps, and is differentiated afterwards (DA)
    normalisation per step  step i has its own scales, shifts and running statistics (BNWB, BNRS): for the support pass at θ_i and
                            for the query pass at θ_{i+1}

The fifth change, a cosine schedule of the outer rate, belongs to the outer optimizer. A test may take more steps than training did; the
additional steps use the last learned rate and normalisation. The released network has leaky ReLUs, `backbone=conv4` has ReLUs.
"""

from __future__ import annotations

from collections.abc import Collection, Sequence
from dataclasses import dataclass
from functools import cached_property

import torch
from torch import Tensor

from metarun.algorithms.parts.inner_loop import InnerLoop, InnerLoss
from metarun.algorithms.parts.members import (
    check_not_negative,
    check_share,
    check_steps,
    fitted_outputs,
    last_of_trajectory,
    steps_of,
    track_running,
)
from metarun.errors import UserError
from metarun.functional import recomputed
from metarun.layers.norm import Statistics
from metarun.network import RUNNING, Fitted, Network, present_classes
from metarun.objectives import Objective
from metarun.types import Aux, Episode, Examples, Params, State, part_of, prefixed
from metarun.values import CountOrZero, FewOrZero, Names, NotNegative, Share

INNER_LR = "inner_lr."
"""Prefix of the learned rates among the parameters."""

LEAST_SHARE = 0.03
"""While the multi-step loss is on, no step weighs less than this part of an even share."""


@dataclass(frozen=True)
class MamlPlusPlus:
    """MAML++.

    inner_lr: α, or with `learn_inner_lr` the start of all α_{l,i}. inner_steps: S, in training. test_inner_steps: at validation and
        test; None for as many as in training.
    learn_inner_lr: learn an α for each parameter tensor and inner step.
    multi_step_loss_share: the share of the outer steps, in [0, 1], over which the loss moves from the mean over all inner steps to the last
        inner step. Every outer step of the run then has a query pass for each inner step. 0: the last inner step alone from the start.
    first_order_share: the share of the outer steps, from the start, that drop the second derivatives. They take as long as the others.
    train_steps: the number of outer steps to which the two shares refer; each share is rounded to whole steps.
    per_step_norm: each inner step has its own scales, shifts and running statistics of normalisation.
    first_order, inner_loss, adapts, adapt_norm, recompute: as in `metarun.algorithms.maml`.
    """

    network: Network
    objective: Objective
    inner_lr: NotNegative = 0.1
    inner_steps: FewOrZero = 5
    test_inner_steps: FewOrZero | None = None
    learn_inner_lr: bool = True
    multi_step_loss_share: Share = 0.1
    first_order_share: Share = 0.0
    train_steps: CountOrZero = 1000
    per_step_norm: bool = True
    first_order: bool = False
    inner_loss: InnerLoss = "mean"
    adapts: Names = ("*",)
    adapt_norm: bool = False
    recompute: bool = False

    def __post_init__(self) -> None:
        check_steps(self)
        check_share(self, "multi_step_loss_share", "first_order_share")
        check_not_negative(self, "train_steps")
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
        """Return the network's initial parameters and running statistics, with a row for each step where they are per step, and the α."""
        params, state = self.network.init()
        learned = self.inner.chosen(params) if self.learn_inner_lr else {}
        rates = {name: torch.full((self.inner_steps,), self.inner_lr) for name in learned}
        params = one_per_step(params, self._per_step, self.inner_steps)
        return params | prefixed(INNER_LR, rates), one_per_step(state, self._per_step, self.inner_steps)

    def trajectory(self, params: Params, state: State, support: Examples, key: Tensor, *, training: bool = False) -> list[Fitted]:
        """Return the network before adaptation and after each inner step; in training after the last alone."""
        path, _ = self._inner_loop(params, state, support, None, training)
        return self._fit(path, len(path) - 1 if training else 0, state, support, training)

    def loss(self, params: Params, state: State, episode: Episode, key: Tensor, step: Tensor) -> tuple[Tensor, Aux]:
        """Return the query loss after the last inner step, or with the multi-step loss Σ_i w_i L(θ_{i+1}, query)."""
        support, query = episode
        path, on_support = self._inner_loop(params, state, support, step, training=True)
        first = 1 if self._multi_step_loss_steps and self.inner_steps else len(path) - 1
        adapted = self._fit(path, first, state, support, training=True)
        passes = [self.network.on_query(fitted, query.x, query.mask, collect=True) for fitted in adapted]
        losses = [self.objective.loss(outputs, query.y, query.mask) for outputs, _ in passes]
        loss = losses[-1]
        if len(losses) > 1:
            loss = (torch.stack(losses) * step_weights(step, len(losses), self._multi_step_loss_steps)).sum().to(losses[-1].dtype)
        outputs, statistics = passes[-1]
        if self.per_step_norm:
            statistics = statistics_per_step(on_support, [on_query for _, on_query in passes])
        score = self.objective.score(outputs, query.y, query.mask)
        return loss, Aux.of({"loss": losses[-1], self.objective.metric: score}, statistics)

    @property
    def _multi_step_loss_steps(self) -> int:
        """The outer step from which the last inner step has all the weight."""
        return round(self.multi_step_loss_share * self.train_steps)

    @cached_property
    def _per_step(self) -> set[str]:
        """Names of the parameters and statistics that have a row for each inner step."""
        running = {name for name in self.network.init()[1] if name.startswith(RUNNING)}
        return self.network.norm_params | running if self.per_step_norm else set()

    def _inner_loop(
        self, params: Params, state: State, support: Examples, step: Tensor | None, training: bool
    ) -> tuple[list[Params], list[Statistics]]:
        """Return θ before and after each inner step, and with `per_step_norm` the statistics of the support passes.

        step: the outer step, which decides the order of derivatives; None where no outer gradient follows.
        """
        inner_step = recomputed(self._inner_step) if self.recompute and training else self._inner_step
        first_order_steps = round(self.first_order_share * self.train_steps)
        second_order = step >= first_order_steps if step is not None and first_order_steps else None
        rates = part_of(params, INNER_LR)
        path, seen = self.inner.start(params), []
        for number in range(steps_of(self, training=training)):
            changed, statistics = inner_step(path[-1], rates, state, support, second_order, number, training)
            path.append({**path[-1], **changed})
            seen.append(statistics)
        return path, seen

    def _inner_step(
        self, theta: Params, rates: Params, state: State, support: Examples, second_order: Tensor | None, number: int, training: bool
    ) -> tuple[Params, Statistics]:
        """Return the parameters that inner step `number` changes, and the statistics of its support pass."""
        weights, running = (at_step(tensors, self._per_step, number) for tensors in (theta, state))
        gradients, _, statistics = self.inner.slope(
            weights, running, support, training=training, first_order=self.first_order, collect=self.per_step_norm
        )
        if second_order is not None:
            gradients = annealed(gradients, second_order)
        lrs = at_step(rates, rates, number)
        return {name: theta[name] - lrs.get(name, self.inner_lr) * gradient for name, gradient in gradients.items()}, statistics

    def _fit(self, path: list[Params], first: int, state: State, support: Examples, training: bool) -> list[Fitted]:
        """Return the networks of a path from its entry `first` on, ready for queries."""
        classes, names = present_classes(support, self.objective), self._per_step
        return [
            self.network.fit(at_step(path[n], names, n - 1), at_step(state, names, n - 1), support, classes, training=training)
            for n in range(first, len(path))
        ]

    adapt = last_of_trajectory
    predict = fitted_outputs
    update_state = track_running


def step_weights(step: Tensor, inner_steps: int, annealing_steps: int) -> Tensor:
    """Return the weights w, (S,), of the query losses after each inner step, at outer step `step` (scalar, from 0).

    All start at 1/S. Those before the last fall linearly and would reach 0 at `annealing_steps`, but they stay at 0.03/S or above; the
    last step has the rest. From `annealing_steps` on the last step has all. The released code follows the same line in stairs, one
    each epoch of 500 outer steps.
    """
    done = step.double() / annealing_steps
    earlier = (1.0 - done).clamp(min=LEAST_SHARE) / inner_steps
    earlier = torch.where(done < 1.0, earlier, 0.0).expand(inner_steps - 1)
    return torch.cat([earlier, (1.0 - earlier.sum())[None]])


def annealed(gradients: Params, second_order: Tensor) -> Params:
    """Return the gradients; as constants where `second_order` (bool, scalar) is False.

    A recorded program cannot branch, so this selects between two tensors of equal value. Second derivatives are computed either way,
    and first-order steps cost as much as second-order ones.
    """
    return {name: torch.where(second_order, gradient, gradient.detach()) for name, gradient in gradients.items()}


def one_per_step(tensors: Params, names: Collection[str], steps: int) -> Params:
    """Return the tensors; a tensor with one of these names gets a row for each step, (steps, ...)."""
    return {name: value.expand(steps, *value.shape).clone() if name in names else value for name, value in tensors.items()}


def at_step(tensors: Params, names: Collection[str], step: int) -> Params:
    """Return the tensors; of a tensor with one of these names the row of inner step `step`, or the nearest row."""
    return {name: value[max(0, min(step, len(value) - 1))] if name in names else value for name, value in tensors.items()}


def statistics_per_step(support: Sequence[Statistics], query: Sequence[Statistics]) -> Statistics:
    """Return the statistics of each step, (S, C) by name: the mean of its support pass and, where it has one, its query pass.

    support: of all S steps. query: of the last ones.
    """
    without = len(support) - len(query)
    seen = [*support[:without], *(mean_of(*both) for both in zip(support[without:], query, strict=True))]
    return {name: torch.stack([each[name] for each in seen]) for name in seen[0]}


def mean_of(one: Statistics, other: Statistics) -> Statistics:
    """Return the mean of two sets of statistics."""
    return {name: (value + other[name]) / 2 for name, value in one.items()}
