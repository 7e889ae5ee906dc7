"""Scratch: the same network trained on the support set alone, from random weights. The baseline that meta-learning must beat.

No paper. Adam fits the support set for up to `max_inner_steps` full-batch steps. Validation episodes choose the learning rate (of
`inner_lrs`) and the number of steps, so the baseline is as strong as its form allows. The run's seed determines
the random weights, one set for all tasks.
"""

from __future__ import annotations

from collections.abc import Callable
from dataclasses import dataclass

import torch
from torch import Tensor
from torch.func import grad

from metarun.algorithms.parts.members import fitted_outputs, last_of_trajectory, same_state
from metarun.errors import UserError
from metarun.functional import Moments, adam
from metarun.network import Fitted, Network, present_classes
from metarun.objectives import Objective
from metarun.types import Aux, Episode, Examples, Params, State
from metarun.values import Few, Rates


@dataclass(frozen=True)
class Scratch:
    """The network trained from random weights.

    inner_lrs: Adam's learning rates to choose from. max_inner_steps: the most steps; 0, 1, 2, 5, 10, … up to it are tried.
    """

    network: Network
    objective: Objective
    inner_lrs: Rates = (1e-3, 3e-3, 1e-2, 3e-2)
    max_inner_steps: Few = 100

    def __post_init__(self) -> None:
        if not self.inner_lrs or self.max_inner_steps < 1:
            raise UserError(
                f"algo.inner_lrs={list(self.inner_lrs)} and algo.max_inner_steps={self.max_inner_steps} leave nothing to choose from."
            )

    def init(self, key: Tensor) -> tuple[Params, State]:
        """Return the random weights; the state has the first learning rate and all steps until `choose` has chosen."""
        params, state = self.network.init()
        return params, state | self._choice(self.inner_lrs[0], self.max_inner_steps)

    def choose(self, params: Params, state: State, score: Callable[[State], dict[int, float]]) -> State:
        """Return the state with the learning rate and the number of steps of the best validation score."""
        best, choice = -float("inf"), state
        for lr in self.inner_lrs:
            by_step = score(state | self._choice(lr, self.max_inner_steps))
            steps = max(by_step, key=by_step.__getitem__)
            if by_step[steps] > best:
                best, choice = by_step[steps], state | self._choice(lr, steps)
        return choice

    def trajectory(self, params: Params, state: State, support: Examples, key: Tensor, *, training: bool = False) -> list[Fitted]:
        """Return the network before training and after each step; for `training` after the last alone."""
        classes = present_classes(support, self.objective)

        def support_loss(fast: Params) -> Tensor:
            outputs = self.network.on_support(fast, state, support, classes, training=training)
            return self.objective.loss(outputs, support.y, support.mask)

        path, moments = [params], Moments.zero(params)
        for _ in range(int(state["inner_steps"])):
            fast, moments = adam(path[-1], grad(support_loss)(path[-1]), moments, state["inner_lr"])
            path.append(fast)
        return self.network.fit_path(path, state, support, classes, training=training)

    def loss(self, params: Params, state: State, episode: Episode, key: Tensor, step: Tensor) -> tuple[Tensor, Aux]:
        """Return a constant: the outer loop has nothing to learn."""
        zero = sum((value.sum() * 0.0 for value in params.values()), torch.zeros(()))
        return zero, Aux.of({"loss": zero}, {})

    @staticmethod
    def _choice(lr: float, steps: int) -> State:
        return {"inner_lr": torch.tensor(lr), "inner_steps": torch.tensor(steps)}

    adapt = last_of_trajectory
    predict = fitted_outputs
    update_state = same_state
