"""Reptile: move the initialisation towards what training on a task arrives at.

Alex Nichol, Joshua Achiam, John Schulman. "On First-Order Meta-Learning Algorithms", 2018. https://arxiv.org/abs/1803.02999

    φ̃ = k steps of Adam on mini-batches of one task, from φ
    φ ← φ + ε · mean over tasks of (φ̃ - φ)                                        (algorithms 1 and 2)

The update is the gradient step, with plain SGD at rate ε, of the surrogate ½ |φ - stopgrad(φ̃)|², which is what `loss` returns; so
`optimizer=reptile` (SGD, ε from 1 to 0 linearly) is part of the method. There is no query set in training.

As in the released code (https://github.com/openai/supervised-reptile), the inner Adam has β1 = 0, its second moments are carried over
from task to task in training, and evaluation starts from them and keeps no change. With one task a step that is the paper's serial
chain. With more, each task of a step starts from the same moments and they are merged by their mean: a deviation of ours, since the
released code passes them through the tasks of a step in turn.
"""

from __future__ import annotations

from dataclasses import dataclass

import torch
from torch import Tensor
from torch.func import grad_and_value

from metarun.algorithms.parts.orders import mini_batches
from metarun.errors import UserError
from metarun.functional import Moments, adam
from metarun.network import Fitted, Network, present_classes
from metarun.objectives import Objective
from metarun.types import Aux, Episode, Examples, Params, State

SECOND, UPDATES = "inner_second.", "inner_updates"


@dataclass(frozen=True)
class Reptile:
    """Reptile.

    inner_lr, beta2: of the inner Adam (β1 is 0). inner_steps, inner_batch: mini-batches a task in training and examples in each;
    test_inner_steps, test_inner_batch: the same at validation and test. Mini-batches cycle through reshuffled examples without
    replacement, and one may span two passes.
    """

    network: Network
    objective: Objective
    inner_lr: float = 1e-3
    inner_steps: int = 5
    inner_batch: int = 10
    test_inner_steps: int = 50
    test_inner_batch: int = 5
    beta2: float = 0.999

    def __post_init__(self) -> None:
        for name in ("inner_steps", "inner_batch", "test_inner_batch"):
            if getattr(self, name) < 1:
                raise UserError(f"algo.{name}={getattr(self, name)} must be at least 1.")
        if self.test_inner_steps < 0:
            raise UserError(f"algo.test_inner_steps={self.test_inner_steps} must not be negative.")

    def init(self, key: Tensor) -> tuple[Params, State]:
        """Return the network's parameters, and zero moments in the state."""
        params, state = self.network.init()
        return params, state | _as_state(Moments.zero(params))

    def adapt(self, params: Params, state: State, support: Examples, key: Tensor, *, training: bool = False) -> Fitted:
        """Return φ̃, from the moments that the state holds."""
        return self.trajectory(params, state, support, key, training=training)[-1]

    def trajectory(self, params: Params, state: State, support: Examples, key: Tensor, *, training: bool = False) -> list[Fitted]:
        """Return the network before adaptation and after each inner step."""
        classes = self._classes(support)
        path = self._inner_loop(params, state, support, key, training)[0]
        return [self.network.fit(fast, state, support, classes, training=training) for fast in path]

    def predict(self, adapted: Fitted, x: Tensor, mask: Tensor | None = None) -> Tensor:
        """Return the adapted network's outputs."""
        return self.network.on_query(adapted, x, mask)[0]

    def loss(self, params: Params, state: State, episode: Episode, key: Tensor, step: Tensor) -> tuple[Tensor, Aux]:
        """Return ½ |φ - stopgrad(φ̃)|²; the logged loss is that of the last mini-batch, before its update."""
        start = {name: value.detach() for name, value in params.items()}
        path, moments, metrics, statistics = self._inner_loop(start, state, episode.support, key, training=True)
        surrogate = sum((params[name] - path[-1][name].detach()).square().sum() for name in params) / 2
        assert isinstance(surrogate, Tensor)
        return surrogate, Aux(metrics, statistics | _as_state(moments))

    def update_state(self, state: State, aux: dict[str, Tensor]) -> State:
        """Track the running statistics of the last mini-batches, and merge the inner moments by their mean over tasks."""
        state = self.network.update_running(state, aux)
        moments = {name: value.mean(dim=0) for name, value in aux.items() if name.startswith(SECOND) or name == UPDATES}
        return state | moments

    def _inner_loop(
        self, params: Params, state: State, support: Examples, key: Tensor, training: bool
    ) -> tuple[list[Params], Moments, dict[str, Tensor], State]:
        steps, size = (self.inner_steps, self.inner_batch) if training else (self.test_inner_steps, self.test_inner_batch)
        batches = mini_batches(support, key, steps, size)
        second = {name: state[SECOND + name] for name in params}
        moments = Moments({name: torch.zeros_like(value) for name, value in params.items()}, second, state[UPDATES])
        classes, path = self._classes(support), [params]
        metrics: dict[str, Tensor] = {}
        statistics: State = {}

        def batch_loss(fast: Params, batch: Examples) -> tuple[Tensor, tuple[Tensor, State]]:
            if training:
                outputs, seen = self.network.on_query(Fitted(fast, {}, None, classes), batch.x, collect=True)
            else:
                outputs, seen = self.network.on_support(fast, state, batch, classes, training=False), {}
            return self.objective.loss(outputs, batch.y), (self.objective.score(outputs, batch.y), seen)

        for rows in batches:
            batch = Examples(support.x[rows], support.y[rows])
            gradients, (loss, (score, statistics)) = grad_and_value(batch_loss, has_aux=True)(path[-1], batch)
            fast, moments = adam(path[-1], gradients, moments, self.inner_lr, beta1=0.0, beta2=self.beta2)
            path.append(fast)
            metrics = {"loss": loss.detach(), self.objective.metric: score.detach()}
        return path, moments, metrics, statistics

    def _classes(self, support: Examples) -> Tensor | None:
        return present_classes(support) if self.objective.kind == "classification" else None


def _as_state(moments: Moments) -> State:
    """Return what of the moments is carried over: with β1 = 0 the first ones are the gradient itself and need no memory."""
    return {SECOND + name: value for name, value in moments.second.items()} | {UPDATES: moments.updates}
