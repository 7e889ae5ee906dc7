"""Scratch: the same network trained on the support set alone, from random weights. What meta-learning must beat.

No paper. The support set is fitted by Adam for up to `max_inner_steps` full-batch steps; the learning rate (of `inner_lrs`) and the
number of steps are those that score best on validation episodes, so the baseline is as strong as its form allows. One set of random
weights is drawn per run, from the run's seed.
"""

from __future__ import annotations

from collections.abc import Callable, Sequence
from dataclasses import dataclass

import torch
from torch import Tensor
from torch.func import grad

from metarun.errors import UserError
from metarun.functional import Moments, adam
from metarun.network import Fitted, Network, present_classes
from metarun.objectives import Objective
from metarun.types import Aux, Episode, Examples, Params, State


@dataclass(frozen=True)
class Scratch:
    """The network trained from random weights.

    inner_lrs: Adam's learning rates to choose from. max_inner_steps: at most so many steps, of which 0, 1, 2, 5, 10, … are tried.
    """

    network: Network
    objective: Objective
    inner_lrs: Sequence[float] = (1e-3, 3e-3, 1e-2, 3e-2)
    max_inner_steps: int = 100

    def __post_init__(self) -> None:
        if not self.inner_lrs or self.max_inner_steps < 1:
            raise UserError(
                f"algo.inner_lrs={list(self.inner_lrs)} and algo.max_inner_steps={self.max_inner_steps} leave nothing to choose from."
            )

    def init(self, key: Tensor) -> tuple[Params, State]:
        """Return the random weights, and the first learning rate with all steps until `choose` has chosen."""
        params, state = self.network.init()
        return params, state | self._choice(self.inner_lrs[0], self.max_inner_steps)

    def choose(self, params: Params, state: State, score: Callable[[State], dict[int, float]]) -> State:
        """Return the state with the learning rate and the number of steps that score best on validation."""
        best, choice = -float("inf"), state
        for lr in self.inner_lrs:
            by_step = score(state | self._choice(lr, self.max_inner_steps))
            steps = max(by_step, key=by_step.__getitem__)
            if by_step[steps] > best:
                best, choice = by_step[steps], state | self._choice(lr, steps)
        return choice

    def adapt(self, params: Params, state: State, support: Examples, key: Tensor, *, training: bool = False) -> Fitted:
        """Return the network trained on the support set."""
        return self.trajectory(params, state, support, key, training=training)[-1]

    def trajectory(self, params: Params, state: State, support: Examples, key: Tensor, *, training: bool = False) -> list[Fitted]:
        """Return the network before training and after each step."""
        classes = present_classes(support) if self.objective.kind == "classification" else None

        def support_loss(fast: Params) -> Tensor:
            outputs = self.network.on_support(fast, state, support, classes, training=training)
            return self.objective.loss(outputs, support.y, support.mask)

        path, moments = [params], Moments.zero(params)
        for _ in range(int(state["inner_steps"])):
            fast, moments = adam(path[-1], grad(support_loss)(path[-1]), moments, state["inner_lr"])
            path.append(fast)
        return [self.network.fit(fast, state, support, classes, training=training) for fast in path]

    def predict(self, adapted: Fitted, x: Tensor, mask: Tensor | None = None) -> Tensor:
        """Return the trained network's outputs."""
        return self.network.on_query(adapted, x, mask)[0]

    def loss(self, params: Params, state: State, episode: Episode, key: Tensor, step: Tensor) -> tuple[Tensor, Aux]:
        """Return a constant: the outer loop has nothing to learn."""
        zero = sum((value.sum() * 0.0 for value in params.values()), torch.zeros(()))
        return zero, Aux({"loss": zero.detach()}, {})

    def update_state(self, state: State, aux: dict[str, Tensor]) -> State:
        """Return the state as it is."""
        return state

    @staticmethod
    def _choice(lr: float, steps: int) -> State:
        return {"inner_lr": torch.tensor(lr), "inner_steps": torch.tensor(steps)}
