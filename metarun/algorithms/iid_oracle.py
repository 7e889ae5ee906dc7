"""The i.i.d. oracle of a stream: all examples at once, in random order, pass after pass. What the order of the stream costs.

Khurram Javed, Martha White. "Meta-Learning Representations for Continual Learning", NeurIPS 2019, section 4.
https://arxiv.org/abs/1905.12588

    pre-training:  minimise over θ and V the cross entropy of V f_θ(x) over mini-batches of all training classes
    test:          a new W by `passes` passes over shuffled mini-batches of all examples so far; θ fixed

The oracle breaks the rules of a stream, so its score is no result of online learning. With `init_from=RUN` and `steps=0` θ is that of
another run, such as one of `oml`; the oracle then says how much of this run's loss is forgetting.
"""

from __future__ import annotations

from collections.abc import Callable
from dataclasses import dataclass
from functools import partial
from typing import ClassVar

from torch import Tensor

from metarun import draws
from metarun.algorithms.parts.members import track_running
from metarun.algorithms.parts.online import (
    HEAD,
    FirstHead,
    Online,
    Optimizer,
    Ready,
    best_choice,
    check_rates,
    first_choice,
    first_head,
    head_outputs,
    new_head,
    where,
)
from metarun.algorithms.parts.orders import random_order
from metarun.algorithms.parts.pretraining import supervised_loss
from metarun.network import Network, present_classes
from metarun.objectives import Objective
from metarun.types import Aux, Episode, Examples, Params, State, Traits, part_of, prefixed
from metarun.values import Few, Rates


@dataclass(frozen=True)
class IidOracle:
    """The i.i.d. oracle.

    train_classes: the number of training classes; metarun fills it in. passes: over the examples. batch: examples in a step.
    test_optimizer: of the steps. test_head: the weights of W before the first step. test_inner_lrs: its rates; each validation chooses
    one of them, and the first one holds until then.
    """

    network: Network
    objective: Objective
    train_classes: int
    passes: Few = 5
    batch: Few = 15
    test_optimizer: Optimizer = "adam"
    test_head: FirstHead = "zero"
    test_inner_lrs: Rates = (0.001,)
    traits: ClassVar[Traits] = Traits(head=False, adapts_backbone=False, learns_all_classes=True, training_only=(HEAD,))

    def __post_init__(self) -> None:
        check_rates(self.test_inner_lrs)

    def init(self, key: Tensor) -> tuple[Params, State]:
        """Return θ and V; running statistics and the first rate."""
        params, state = self.network.init()
        width = int(self.network.module.out_features)  # type: ignore[arg-type]
        head = new_head(draws.fold(key, HEAD), self.train_classes, width)
        return params | prefixed(HEAD, head), state | first_choice(self.test_optimizer, self.test_inner_lrs)

    def loss(self, params: Params, state: State, episode: Episode, key: Tensor, step: Tensor) -> tuple[Tensor, Aux]:
        """Return the loss of pre-training on a mini-batch: all examples of the episode."""
        return supervised_loss(self.network, self.objective, params, state, episode)

    def adapt(self, params: Params, state: State, support: Examples, key: Tensor, *, training: bool = False) -> Ready:
        """Return the network with a W trained on the whole support set. In classification W is new."""
        classes = present_classes(support, self.objective)
        z = self.network.on_support(params, state, support, training=training)
        head = part_of(params, HEAD)
        if self.objective.kind == "classification":
            head = first_head(self.test_head, draws.fold(key, HEAD), support.y.shape[1], z)
        online = Online(self.objective, self.test_optimizer)
        learner = online.start(head, state)
        for number in range(self.passes):
            for rows in random_order(z, support.mask, draws.fold(key, number)).split(self.batch):
                mask = None if support.mask is None else support.mask[rows]
                after = online.step(learner, partial(head_outputs, classes=classes), z[rows], support.y[rows], mask)
                learner = after if mask is None else where(mask.any(), after, learner)
        return Ready(self.network.fit(params, state, support, training=training), learner, classes)

    def predict(self, adapted: Ready, x: Tensor, mask: Tensor | None = None) -> Tensor:
        """Return the outputs (B, N) or (B, D), with absent classes at -1e9."""
        z, _ = self.network.on_query(adapted.network, x, mask)
        return head_outputs(adapted.learner.params, z, adapted.classes)

    def choose(self, params: Params, state: State, score: Callable[[State], dict[int, float]]) -> State:
        """Return the state with the rate and the optimizer of the best validation score."""
        return best_choice(self.test_optimizer, self.test_inner_lrs, state, score)

    update_state = track_running
