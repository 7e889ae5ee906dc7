"""The i.i.d. oracle of a stream: all examples at once, in random order, pass after pass.

Khurram Javed, Martha White. "Meta-Learning Representations for Continual Learning", NeurIPS 2019, section 4.
https://arxiv.org/abs/1905.12588

    pre-training:  minimise over θ and V the cross entropy of V f_θ(x) over mini-batches of all training classes
    test:          a new W by `passes` passes over shuffled mini-batches of all examples so far; θ fixed

The oracle breaks the rules of a stream, so its score is no result of online learning. The difference to an online learner shows how much
accuracy the order of the stream costs. With `init_from=RUN` and `steps=0`, θ comes from another run, such as a run of `oml`; the oracle
then shows how much of this run's loss is forgetting.
"""

from __future__ import annotations

from dataclasses import dataclass
from functools import partial
from typing import ClassVar

from torch import Tensor

from metarun import draws
from metarun.algorithms.parts.members import track_running
from metarun.algorithms.parts.online import (
    HEAD,
    AnyLearner,
    FirstHead,
    InPlace,
    Learner,
    Ready,
    choose_rate,
    head_of_stream,
    head_outputs,
    network_and_head,
    where,
)
from metarun.algorithms.parts.orders import random_order
from metarun.algorithms.parts.pretraining import supervised_loss
from metarun.algorithms.parts.rates import Optimizer, check_rates
from metarun.network import Network, present_classes
from metarun.objectives import Objective
from metarun.types import Aux, Episode, Examples, Params, State, Traits
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

    def loss(self, params: Params, state: State, episode: Episode, key: Tensor, step: Tensor) -> tuple[Tensor, Aux]:
        """Return the loss of pre-training on a mini-batch: all examples of the episode."""
        return supervised_loss(self.network, self.objective, params, state, episode)

    def adapt(self, params: Params, state: State, support: Examples, key: Tensor, *, training: bool = False) -> Ready:
        """Return the network with a W trained on the whole support set. In classification W is new."""
        return self._trained(self._first(params, state, support, key), params, state, support, key, training)

    def adapt_in_place(self, params: Params, state: State, support: Examples, key: Tensor) -> Ready:
        """Return what `adapt` returns outside of training, up to rounding. The steps overwrite W, which saves most of their time."""
        return self._trained(InPlace(self._first(params, state, support, key)), params, state, support, key, False)

    def _first(self, params: Params, state: State, support: Examples, key: Tensor) -> Learner:
        return Learner.start(self.test_optimizer, head_of_stream(self, params, support.y.shape[1], key), state)

    def _trained(self, learner: AnyLearner, params: Params, state: State, support: Examples, key: Tensor, training: bool) -> Ready:
        classes = present_classes(support, self.objective)
        z = self.network.on_support(params, state, support, training=training)
        for number in range(self.passes):
            for rows in random_order(z, support.mask, draws.fold(key, number)).split(self.batch):
                mask = None if support.mask is None else support.mask[rows]
                after = learner.after(self.objective, partial(head_outputs, classes=classes), z[rows], support.y[rows], mask)
                learner = after if mask is None else where(mask.any(), after, learner)
        return Ready(self.network.fit(params, state, support, training=training), learner, classes)

    def predict(self, adapted: Ready, x: Tensor, mask: Tensor | None = None) -> Tensor:
        """Return the outputs (B, N) or (B, D), with absent classes at -1e9."""
        z, _ = self.network.on_query(adapted.network, x, mask)
        return head_outputs(adapted.learner.params, z, adapted.classes)

    init = network_and_head
    choose = choose_rate
    update_state = track_running
