"""Reptile: move the initialisation towards the weights that training on a task arrives at.

Alex Nichol, Joshua Achiam, John Schulman. "On First-Order Meta-Learning Algorithms", 2018. https://arxiv.org/abs/1803.02999

    φ̃ = k steps of Adam on mini-batches of one task, from φ
    φ ← φ + ε · mean over tasks of (φ̃ - φ)                                        (algorithms 1 and 2)

The update is a step of plain SGD at rate ε on the surrogate ½ |φ - stopgrad(φ̃)|², which `loss` returns. So `optimizer=reptile` (SGD,
ε from 1 to 0 linearly) is part of the method. Training uses no query set.

As in the released code (https://github.com/openai/supervised-reptile), the inner Adam has β1 = 0. In training its second moments go on
from task to task; evaluation starts from them and keeps no change. With one task a step, each task starts from the moments at the end of
the task before, as in the paper. With several tasks a step, all start from the same moments, and the mean of their last moments goes to
the next step. The released code passes the moments through the tasks of a step in turn instead. It takes the drawings of Omniglot as they
are, ink 0 on paper 1 (`task.ink=0`), and normalises with an epsilon of 1e-3 (`backbone.norm_eps=1e-3`).
"""

from __future__ import annotations

from dataclasses import dataclass

import torch
from torch import Tensor
from torch.func import grad_and_value

from metarun.algorithms.parts.members import check_least, check_not_negative, fitted_outputs, last_of_trajectory
from metarun.algorithms.parts.orders import mini_batches
from metarun.functional import Moments, adam
from metarun.network import Fitted, Network, present_classes
from metarun.objectives import Objective
from metarun.types import Aux, Episode, Examples, Metrics, Params, State, constant, prefixed
from metarun.values import BelowOne, Few, FewOrZero, NotNegative

SECOND, UPDATES = "inner_second.", "inner_updates"


@dataclass(frozen=True)
class Reptile:
    """Reptile.

    inner_lr, beta2: of the inner Adam (β1 is 0). inner_steps, inner_batch: mini-batches of a task in training, and examples in each.
    test_inner_steps, test_inner_batch: the same at validation and test. Mini-batches go through the examples in a random order, pass
    after pass; one mini-batch may span two passes.
    """

    network: Network
    objective: Objective
    inner_lr: NotNegative = 1e-3
    inner_steps: Few = 5
    inner_batch: Few = 10
    test_inner_steps: FewOrZero = 50
    test_inner_batch: Few = 5
    beta2: BelowOne = 0.999

    def __post_init__(self) -> None:
        check_least(self, 1, "inner_steps", "inner_batch", "test_inner_batch")
        check_not_negative(self, "test_inner_steps")

    def init(self, key: Tensor) -> tuple[Params, State]:
        """Return the network's parameters, and zero moments in the state."""
        params, state = self.network.init()
        return params, state | _as_state(Moments.zero(params))

    def trajectory(self, params: Params, state: State, support: Examples, key: Tensor, *, training: bool = False) -> list[Fitted]:
        """Return the network before adaptation and after each inner step, from the moments in the state."""
        path, classes = self._inner_loop(params, state, support, key, training)[0], present_classes(support, self.objective)
        return [self.network.fit(fast, state, support, classes, training=training) for fast in path]

    def loss(self, params: Params, state: State, episode: Episode, key: Tensor, step: Tensor) -> tuple[Tensor, Aux]:
        """Return ½ |φ - stopgrad(φ̃)|². The logged loss is that of the last mini-batch, before its update."""
        path, moments, metrics, statistics = self._inner_loop(constant(params), state, episode.support, key, training=True)
        surrogate = sum((params[name] - path[-1][name].detach()).square().sum() for name in params) / 2
        assert isinstance(surrogate, Tensor)
        return surrogate, Aux(metrics, statistics | _as_state(moments))

    def update_state(self, state: State, aux: dict[str, Tensor]) -> State:
        """Track the running statistics of the last mini-batches, and merge the inner moments into their mean over tasks."""
        state = self.network.update_running(state, aux)
        moments = {name: value.mean(dim=0) for name, value in aux.items() if name.startswith(SECOND) or name == UPDATES}
        return state | moments

    def _inner_loop(
        self, params: Params, state: State, support: Examples, key: Tensor, training: bool
    ) -> tuple[list[Params], Moments, Metrics, State]:
        """Return the parameters before and after each inner step, the last moments, and metrics and statistics of the last mini-batch."""
        steps, size = (self.inner_steps, self.inner_batch) if training else (self.test_inner_steps, self.test_inner_batch)
        batches = mini_batches(support, key, steps, size)
        second = {name: state[SECOND + name] for name in params}
        moments = Moments({name: torch.zeros_like(value) for name, value in params.items()}, second, state[UPDATES])
        classes, path = present_classes(support, self.objective), [params]
        metrics: Metrics = {}
        statistics: State = {}

        def batch_loss(fast: Params, batch: Examples) -> tuple[Tensor, tuple[Tensor, State]]:
            if training:
                outputs, seen = self.network.on_query(Fitted(self.network.complete(fast, state), {}, None, classes), batch.x, collect=True)
            else:
                outputs, seen = self.network.on_support(fast, state, batch, classes, training=False), {}
            return self.objective.loss(outputs, batch.y), (self.objective.score(outputs, batch.y), seen)

        for rows in batches:
            batch = Examples(support.x[rows], support.y[rows])
            gradients, (loss, (score, statistics)) = grad_and_value(batch_loss, has_aux=True)(path[-1], batch)
            fast, moments = adam(path[-1], gradients, moments, self.inner_lr, beta1=0.0, beta2=self.beta2)
            path.append(fast)
            metrics = {"loss": loss, self.objective.metric: score}
        return path, moments, constant(metrics), statistics

    adapt = last_of_trajectory
    predict = fitted_outputs


def _as_state(moments: Moments) -> State:
    """Return the moments that go on to the next task. With β1 = 0 the first moments are the gradient itself and need no memory."""
    return prefixed(SECOND, moments.second) | {UPDATES: moments.updates}
