"""Online learning without meta-learning: the baselines in the papers on streams.

Khurram Javed, Martha White. "Meta-Learning Representations for Continual Learning", NeurIPS 2019, section 4.
https://arxiv.org/abs/1905.12588

    pre-training:  minimise over θ and V the cross entropy of V f_θ(x) over mini-batches of all training classes
    stream:        W ← W - α ∇_W L(W f_θ(x_i), y_i) for each example in order, once, from a new W; θ fixed       (`online`)
    from scratch:  the same for θ and W together, from random weights; no pre-training                          (`online_scratch`)
    replay:        the same, where each step also has `replay` random examples of a buffer of past ones         (`replay`)

Chaudhry et al. 2019, "On Tiny Episodic Memories in Continual Learning" (https://arxiv.org/abs/1902.10486), describe replay with a
reservoir. If θ is fixed, the buffer stores features; if θ learns, it stores images. `test_optimizer: sgd` is the equation above. `adam` is
the optimizer of OML's released code at meta-test.
"""

from __future__ import annotations

from dataclasses import dataclass
from functools import partial
from typing import ClassVar, NamedTuple

import torch
from torch import Tensor

from metarun.algorithms.parts.members import track_running
from metarun.algorithms.parts.online import (
    HEAD,
    AnyLearner,
    FirstHead,
    InPlace,
    Learner,
    Ready,
    check_alone,
    choose_rate,
    features_of,
    head_of_stream,
    head_outputs,
    network_and_head,
    one_pass,
)
from metarun.algorithms.parts.pretraining import supervised_loss
from metarun.algorithms.parts.rates import Optimizer, check_rates
from metarun.algorithms.parts.reservoir import Reservoir, empty_reservoir, recalled, stored
from metarun.errors import UserError
from metarun.network import Network, hide_absent, present_classes
from metarun.objectives import Objective
from metarun.types import Aux, Episode, Examples, Params, State, Traits, part_of, prefixed
from metarun.values import Few, FewOrZero, Rates


class Streamed(NamedTuple):
    """learner: of W, and of θ where it learns. buffer: of past examples; None before the first one, and without replay.

    state: the network's statistics and fixed tensors, where θ learns.
    """

    learner: AnyLearner
    buffer: Reservoir | None
    state: State


@dataclass(frozen=True)
class OnlineLearner:
    """Online learning of a new output layer, or of the whole network.

    train_classes: the number of training classes; metarun fills it in. learns_all: learn θ from the stream too. replay: examples of the
    buffer in each step; 0 for no buffer. buffer: its size, in examples. test_optimizer: of the stream. test_head: W before the first
    example. test_inner_lrs: its rates; each validation chooses among them, and the first one holds until then.
    """

    network: Network
    objective: Objective
    train_classes: int
    learns_all: bool = False
    replay: FewOrZero = 0
    buffer: Few = 200
    test_optimizer: Optimizer = "adam"
    test_head: FirstHead = "zero"
    test_inner_lrs: Rates = (0.001,)
    traits: ClassVar[Traits] = Traits(head=False, adapts_backbone="learns_all", learns_all_classes=True, training_only=(HEAD,))

    def __post_init__(self) -> None:
        check_rates(self.test_inner_lrs)
        if self.replay < 0 or self.buffer < 1:
            raise UserError(f"algo.replay={self.replay} must not be negative and algo.buffer={self.buffer} must be at least 1.")

    def loss(self, params: Params, state: State, episode: Episode, key: Tensor, step: Tensor) -> tuple[Tensor, Aux]:
        """Return the loss of pre-training on a mini-batch: all examples of the episode."""
        return supervised_loss(self.network, self.objective, params, state, episode)

    def start(self, params: Params, state: State, outputs: int, key: Tensor) -> Streamed:
        """Return the learner before the first example of a stream; its steps overwrite it."""
        first = self.first(params, state, outputs, key)
        assert isinstance(first.learner, Learner)
        return first._replace(learner=InPlace(first.learner))

    def first(self, params: Params, state: State, outputs: int, key: Tensor) -> Streamed:
        """Return the learner before the first example. In classification W is new."""
        head = prefixed(HEAD, head_of_stream(self, params, outputs, key))
        body = {name: params[name] for name in self.network.names} if self.learns_all else {}
        learner = Learner.start(self.test_optimizer, body | head, state)
        return Streamed(learner, None, state if self.learns_all else {})

    def features(self, params: Params, state: State, x: Tensor) -> Tensor:
        """Return f_θ(x), (B, F), or x itself where θ learns."""
        check_alone(self.network)
        return x if self.learns_all else features_of(self.network, params, state, x)

    def learn(self, adapted: Streamed, features: Tensor, y: Tensor, key: Tensor, classes: Tensor | None = None) -> Streamed:
        """Return the learner after a step on the next example or examples, and on those that the buffer gives.

        classes: (N,) bool, those that may come; None for all.
        """
        rows, targets, mask, buffer = features, y, None, adapted.buffer
        if self.replay:
            buffer = empty_reservoir(self.buffer, features, y) if buffer is None else buffer
            past_x, past_y, real = recalled(buffer, key, self.replay)
            rows, targets = torch.cat([features, past_x]), torch.cat([y, past_y])
            mask = torch.cat([real.new_ones(len(y)), real])
            buffer = stored(buffer, features, y, key)

        def outputs(params: Params, x: Tensor) -> Tensor:
            return hide_absent(self._outputs(adapted, params, x), classes)

        return adapted._replace(learner=adapted.learner.after(self.objective, outputs, rows, targets, mask), buffer=buffer)

    def answer(self, adapted: Streamed, features: Tensor) -> Tensor:
        """Return the outputs (B, N) or (B, D)."""
        return self._outputs(adapted, adapted.learner.params, features)

    def adapt(self, params: Params, state: State, support: Examples, key: Tensor, *, training: bool = False) -> Ready:
        """Return the network after one pass over the support set, one example a step."""
        classes = present_classes(support, self.objective)

        x = support.x if self.learns_all else self.network.on_support(params, state, support, training=training)
        first = self.first(params, state, support.y.shape[1], key)
        if self.replay:
            first = first._replace(buffer=empty_reservoir(self.buffer, x, support.y))
        last = one_pass(first, partial(self.learn, classes=classes), x, support, key)
        body = {name: last.learner.params.get(name, params[name]) for name in self.network.names}
        return Ready(self.network.fit(body, state, support, training=training), last.learner, classes)

    def predict(self, adapted: Ready, x: Tensor, mask: Tensor | None = None) -> Tensor:
        """Return the outputs (B, N) or (B, D), with absent classes at -1e9."""
        z, _ = self.network.on_query(adapted.network, x, mask)
        return head_outputs(part_of(adapted.learner.params, HEAD), z, adapted.classes)

    def _outputs(self, adapted: Streamed, params: Params, x: Tensor) -> Tensor:
        z = self.network.on_support(params, adapted.state, Examples(x, x), training=False) if self.learns_all else x
        return head_outputs(part_of(params, HEAD), z)

    init = network_and_head
    choose = choose_rate
    update_state = track_running
