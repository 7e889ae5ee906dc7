"""OML: learn a representation in which a prediction network can learn from a stream without forgetting.

Khurram Javed, Martha White. "Meta-Learning Representations for Continual Learning", NeurIPS 2019. https://arxiv.org/abs/1905.12588

    representation  z = f_θ(x),    prediction  g_W(z)
    inner:  W_{i+1} = W_i - α ∇_W L(g_{W_i}(f_θ(x_i)), y_i)        for each example of a trajectory, in order, once    (algorithm 2)
    outer:  minimise over θ and W_0 the mean loss of g_{W_k}(f_θ(x)) on the trajectory and on a random batch of all classes

The outer gradient runs through the inner steps. The random batch is a sample of the classes that the learner must remember. Before the
inner loop, the rows of the output layer for the trajectory's classes are drawn anew. Otherwise, the outer loop would store these classes in
W_0, and the inner loop would have nothing to learn. The random batches train all rows.

At test, the representation is fixed, and all classes are new. The prediction network gets a new output layer and learns from one pass.

Differences from the released code (https://github.com/khurramjaved96/mrcl):
- Its inner gradients were constants for the outer gradient until July 2020 (its README, "a bug that resulted in incorrect meta-gradients");
  `first_order: true` does the same. Its prediction network had two layers until then, and has had one since (`prediction_widths`).
- It overwrites the trajectory's rows in W_0 for good. Here, the new rows and their biases of 0 belong to one episode.
- It chooses the learning rate of meta-test on test trajectories. Here, the last validation of a run chooses this rate on validation
  trajectories.
- At test, its output layer starts from random weights with the variance of He et al. 2015, as with `test_head: random`. The default here is
  weights of 0, since random outputs are as large as the outputs that a stream teaches (docs/lifelong.md has the numbers).
- At test, it learns by Adam (`test_optimizer: adam`). The paper updates online by gradient descent, as in the inner loop
  (`test_optimizer: sgd`).
"""

from __future__ import annotations

from dataclasses import dataclass
from functools import partial
from typing import ClassVar

import torch
from torch import Tensor

from metarun import draws
from metarun.algorithms.parts.descent import Descent, Layer
from metarun.algorithms.parts.members import track_running
from metarun.algorithms.parts.online import (
    HEAD,
    PREDICTION,
    AnyLearner,
    FirstHead,
    Learner,
    after_one_pass,
    answer_ready,
    choose_rate,
    features_of,
    first_in_place,
    head_of_stream,
    head_outputs,
    new_head,
    renewed,
)
from metarun.algorithms.parts.perceptrons import perceptron, perceptron_init
from metarun.algorithms.parts.rates import Optimizer, check_rates, first_choice
from metarun.network import Network, query_loss
from metarun.objectives import Objective
from metarun.types import Aux, Episode, Params, State, Traits, part_of, prefixed
from metarun.values import Few, NotNegative, Rates, SizesOrNone


@dataclass(frozen=True)
class Oml:
    """OML.

    train_classes: the number of training classes; metarun fills it in. inner_lr: α. inner_batch: examples in an inner step.
    prediction_widths: widths of the hidden layers of the prediction network; [] for a linear one. first_order: drop the second derivatives.
    test_optimizer: the optimizer of the prediction network at test. test_head: how its output layer starts, before the first example.
    test_inner_lrs: learning rates of the optimizer at test. Each validation chooses one of them; before the first validation, the first
    one is used.
    """

    network: Network
    objective: Objective
    train_classes: int
    inner_lr: NotNegative = 0.03
    inner_batch: Few = 1
    prediction_widths: SizesOrNone = ()
    first_order: bool = False
    test_optimizer: Optimizer = "adam"
    test_head: FirstHead = "zero"
    test_inner_lrs: Rates = (0.001,)
    traits: ClassVar[Traits] = Traits(head=False, adapts_backbone=False, learns_all_classes=True, training_only=(HEAD,))

    def __post_init__(self) -> None:
        check_rates(self.test_inner_lrs)

    def init(self, key: Tensor) -> tuple[Params, State]:
        """Return the parameters θ and W_0, and the state: running statistics and the first learning rate."""
        params, state = self.network.init()
        sizes = (int(self.network.module.out_features), *self.prediction_widths)  # type: ignore[arg-type]
        params |= prefixed(PREDICTION, perceptron_init(draws.fold(key, PREDICTION), sizes))
        params |= prefixed(HEAD, new_head(draws.fold(key, HEAD), self.train_classes, sizes[-1]))
        return params, state | first_choice(self.test_optimizer, self.test_inner_lrs)

    def loss(self, params: Params, state: State, episode: Episode, key: Tensor, step: Tensor) -> tuple[Tensor, Aux]:
        """Return the loss on the queries after the inner loop on the support set."""
        support, query = episode
        seen, asked, statistics = self.network.on_episode(params, state, episode, collect=self.network.norm == "running")
        head = part_of(params, HEAD)
        if self.objective.kind == "classification":
            head = renewed(head, support, draws.fold(key, "rows"))
        descent = Descent(self.objective, self.inner_lr, self.inner_batch, self.first_order)
        below, layer = descent.run(
            lambda hidden, rows: _hidden(hidden, seen[rows]), part_of(params, PREDICTION), Layer.of(head), support.y, support.mask
        )
        return query_loss(self.objective, layer.outputs(_hidden(below, asked)), statistics, query)

    def first(self, params: Params, state: State, outputs: int, key: Tensor) -> Learner:
        """Return the prediction network before the first example. In classification its output layer is new."""
        hidden = {name: value for name, value in params.items() if name.startswith(PREDICTION)}
        head = prefixed(HEAD, head_of_stream(self, params, outputs, key))
        return Learner.start(self.test_optimizer, hidden | head, state)

    def features(self, params: Params, state: State, x: Tensor) -> Tensor:
        """Return the representation f_θ(x), (B, F)."""
        return features_of(self.network, params, state, x)

    def learn(self, adapted: AnyLearner, features: Tensor, y: Tensor, key: Tensor, classes: Tensor | None = None) -> AnyLearner:
        """Return the prediction network after a step on examples. classes: (N,) bool, those that may come; None for all."""
        return adapted.after(self.objective, partial(_prediction, classes=classes), features, y)

    def answer(self, adapted: AnyLearner, features: Tensor) -> Tensor:
        """Return the outputs of the prediction network, (B, N) or (B, D)."""
        return _prediction(adapted.params, features)

    start = first_in_place
    adapt = after_one_pass
    predict = answer_ready
    choose = choose_rate
    update_state = track_running


def _hidden(hidden: Params, z: Tensor) -> Tensor:
    """Return the inputs of the output layer: z (B, F) after the hidden layers of the prediction network."""
    return torch.relu(perceptron(hidden, z)) if hidden else z


def _prediction(params: Params, z: Tensor, classes: Tensor | None = None) -> Tensor:
    """Return g_W(z), (B, N) or (B, D), with absent classes at -1e9. classes: (N,) bool; None for all."""
    return head_outputs(part_of(params, HEAD), _hidden(part_of(params, PREDICTION), z), classes)
