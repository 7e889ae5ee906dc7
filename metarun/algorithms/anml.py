"""ANML: learn which weights an example may change. A neuromodulatory network gates the features, and so the changes of the weights.

Shawn Beaulieu, Lapo Frati, Thomas Miconi, Joel Lehman, Kenneth O. Stanley, Jeff Clune, Nick Cheney. "Learning to Continually Learn",
ECAI 2020. https://arxiv.org/abs/2002.09571

    z = f_θ(x) * gate_φ(x),    outputs = W z + b
    inner:  (θ, W) ← (θ, W) - α ∇ L(W z(x_i) + b, y_i)             for each example of one class, in order, once
    outer:  minimise over θ, φ and W the mean loss of the last (θ, W) on these examples and on a random batch of all classes
    test:   θ and φ fixed, a new W learns from one pass

The outer gradient runs through the inner steps. Only the outer loop trains the gate, for the effect of the gate on the inner loop.
`backbone=gated_conv` has both networks. Before the inner loop, the row of W for the coming class is drawn anew, as in OML.

Differences from the released code (https://github.com/uvm-neurobotics-lab/ANML):
- Its inner gradients are constants for the outer gradient (`torch.autograd.grad` without `create_graph`); `first_order: true` does the
  same. The paper differentiates through the inner loop, and so does this file.
- It overwrites the row of the coming class in W for good. Here, the new row and its bias of 0 belong to one episode.
- Its inner rate of 0.1 is for classification. In regression, steps at this rate diverge on most tasks, so the default rate is 0.003.
- It normalises each image by itself (a batch of one), as `norm=instance` does here. It chooses the rate of meta-test on test classes. Here,
  the last validation of a run chooses the rate on validation trajectories.
- At test, its W starts from random weights (He et al. 2015), as with `test_head: random`. The default here is weights of 0.
"""

from __future__ import annotations

from dataclasses import dataclass
from fnmatch import fnmatchcase
from functools import partial
from typing import ClassVar

from torch import Tensor

from metarun import draws
from metarun.algorithms.parts.descent import Descent, Layer
from metarun.algorithms.parts.members import track_running
from metarun.algorithms.parts.online import (
    HEAD,
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
    network_and_head,
    renewed,
)
from metarun.algorithms.parts.rates import Optimizer, check_rates
from metarun.network import Network, query_loss
from metarun.objectives import Objective
from metarun.types import Aux, Episode, Examples, Params, State, Traits, part_of
from metarun.values import Few, Names, NotNegative, Rates

INNER_LR = {"classification": 0.1, "regression": 0.003}
"""The inner rate without `inner_lr`: that of the released code, and ours."""


@dataclass(frozen=True)
class Anml:
    """ANML.

    train_classes: the number of training classes; metarun fills it in. inner_lr: α; None: as `INNER_LR` says. inner_batch: examples in
    an inner step. adapts: name patterns of the network's parameters that the inner loop of meta-training changes, besides W. gates: name
    patterns of φ, which it never changes. first_order: drop the second derivatives. test_optimizer: of W at test. test_head: W before
    the first example. test_inner_lrs: its rates; each validation chooses among them, and the first one holds until then.
    """

    network: Network
    objective: Objective
    train_classes: int
    inner_lr: NotNegative | None = None
    inner_batch: Few = 1
    adapts: Names = ("*",)
    gates: Names = ("modulator.*", "gate.*")
    first_order: bool = False
    test_optimizer: Optimizer = "adam"
    test_head: FirstHead = "zero"
    test_inner_lrs: Rates = (0.001,)
    traits: ClassVar[Traits] = Traits(head=False, learns_all_classes=True, training_only=(HEAD,))

    def __post_init__(self) -> None:
        check_rates(self.test_inner_lrs)

    def loss(self, params: Params, state: State, episode: Episode, key: Tensor, step: Tensor) -> tuple[Tensor, Aux]:
        """Return the loss on the queries after the inner loop on the support set."""
        support, query = episode
        head = part_of(params, HEAD)
        if self.objective.kind == "classification":
            head = renewed(head, support, draws.fold(key, "rows"))
        body = {name: params[name] for name in self.network.names}
        fast = {name: value for name, value in body.items() if _fits(name, self.adapts) and not _fits(name, self.gates)}
        fixed = None if fast else self.network.on_support(body, state, support, training=True)

        def embed(chosen: Params, rows: slice | Tensor) -> Tensor:
            if fixed is not None:
                return fixed[rows]
            mask = None if support.mask is None else support.mask[rows]
            return self.network.on_support({**body, **chosen}, state, Examples(support.x[rows], support.y[rows], mask), training=True)

        fast, layer = Descent(self.objective, self._rate, self.inner_batch, self.first_order).run(
            embed, fast, Layer.of(head), support.y, support.mask
        )
        fitted = self.network.fit({**body, **fast}, state, support, training=True)
        asked, statistics = self.network.on_query(fitted, query.x, query.mask, collect=self.network.norm == "running")
        return query_loss(self.objective, layer.outputs(asked), statistics, query)

    def first(self, params: Params, state: State, outputs: int, key: Tensor) -> Learner:
        """Return W before the first example. In classification W is new."""
        return Learner.start(self.test_optimizer, head_of_stream(self, params, outputs, key), state)

    def features(self, params: Params, state: State, x: Tensor) -> Tensor:
        """Return the gated features z, (B, F)."""
        return features_of(self.network, params, state, x)

    def learn(self, adapted: AnyLearner, features: Tensor, y: Tensor, key: Tensor, classes: Tensor | None = None) -> AnyLearner:
        """Return W after a step on the next example or examples. classes: (N,) bool, those that may come; None for all."""
        return adapted.after(self.objective, partial(head_outputs, classes=classes), features, y)

    def answer(self, adapted: AnyLearner, features: Tensor) -> Tensor:
        """Return the outputs W z + b, (B, N) or (B, D)."""
        return head_outputs(adapted.params, features)

    @property
    def _rate(self) -> float:
        return INNER_LR[self.objective.kind] if self.inner_lr is None else self.inner_lr

    init = network_and_head
    start = first_in_place
    adapt = after_one_pass
    predict = answer_ready
    choose = choose_rate
    update_state = track_running


def _fits(name: str, patterns: Names) -> bool:
    return any(fnmatchcase(name, pattern) for pattern in patterns)
