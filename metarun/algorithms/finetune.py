"""Fine-tuning: learn all training classes at once, then a new head on each support set. This is ordinary transfer learning.

Wei-Yu Chen, Yen-Cheng Liu, Zsolt Kira, Yu-Chiang Frank Wang, Jia-Bin Huang. "A Closer Look at Few-shot Classification", ICLR 2019.
https://arxiv.org/abs/1904.04232

    training:  minimise over f and W the cross entropy of C(f(x), W) over mini-batches of all training classes
    test:      f fixed, a new W for the classes of the task by 100 steps of SGD on mini-batches of 4 of the support set

    Baseline:    C(z, W)_n = w_n · z + b_n
    Baseline++:  C(z, W)_n = s g_n cos(w_n, z)                                                     (`cosine_head`)

The engine deals episodes. With `task.train_labels=global` an episode is a mini-batch whose labels number all training classes, and the
head over these classes is training-only. A mini-batch draws classes first and then images of each, so every class is equally likely; the
paper draws images. g_n is the norm of the released code (https://github.com/wyharveychen/CloserLookFewShot), learned for each class. s is
its scale: 2 for up to 200 classes, 10 for more. At test that code takes 100 passes, and the paper says 100 iterations. Here they are
iterations, which go through the support set in a new random order each pass.
"""

from __future__ import annotations

import math
from collections.abc import Callable
from dataclasses import dataclass
from typing import ClassVar, NamedTuple

import torch
from torch import Tensor
from torch.func import grad

from metarun import draws
from metarun.algorithms.parts.members import track_running
from metarun.algorithms.parts.online import HEAD
from metarun.algorithms.parts.orders import mini_batches
from metarun.algorithms.parts.pretraining import supervised_loss
from metarun.algorithms.parts.rates import LR, best_choice, check_rates, first_choice
from metarun.algorithms.parts.vectors import unit
from metarun.errors import UserError
from metarun.network import Fitted, Network, hide_absent, present_classes
from metarun.objectives import Objective
from metarun.types import Aux, Episode, Examples, Params, State, Traits, part_of, prefixed
from metarun.values import BelowOne, Few, FewOrZero, NotNegative, Rates, Share


class Tuned(NamedTuple):
    """network: the backbone, ready for queries. head: for this task's classes. classes: (N,) bool, the present ones, or None for all."""

    network: Fitted
    head: Params
    classes: Tensor | None


@dataclass(frozen=True)
class Finetune:
    """Supervised pre-training, then a new head for each task.

    train_classes: the number of training classes; metarun fills it in. cosine_head: Baseline++.
    test_inner_steps, test_inner_batch: steps of SGD on the support set, and examples in each. test_inner_lrs: its learning rates; the last
        validation of a run chooses one of them, and the first one holds until then. momentum, dampening, weight_decay: of the same SGD,
        as in `torch.optim.SGD`. adapt_all: tune the backbone too, scales and shifts of normalisation included.
    """

    network: Network
    objective: Objective
    train_classes: int
    cosine_head: bool = False
    test_inner_steps: FewOrZero = 100
    test_inner_batch: Few = 4
    test_inner_lrs: Rates = (0.01,)
    momentum: BelowOne = 0.9
    dampening: Share = 0.9
    weight_decay: NotNegative = 1e-3
    adapt_all: bool = False
    traits: ClassVar[Traits] = Traits(
        head=False, adapts_backbone="adapt_all", learns_all_classes=True, training_only=(HEAD,), objectives=("classification",)
    )

    def __post_init__(self) -> None:
        if self.test_inner_steps < 0 or self.test_inner_batch < 1:
            raise UserError(
                f"algo.test_inner_steps={self.test_inner_steps} must be at least 0 "
                f"and algo.test_inner_batch={self.test_inner_batch} at least 1."
            )
        check_rates(self.test_inner_lrs)

    def init(self, key: Tensor) -> tuple[Params, State]:
        """Return the parameters of the backbone and of the head over all training classes; running statistics and the first rate."""
        params, state = self.network.init()
        head = self._new_head(draws.fold(key, HEAD), self.train_classes)
        return params | prefixed(HEAD, head), state | first_choice("sgd", self.test_inner_lrs)

    def choose(self, params: Params, state: State, score: Callable[[State], dict[int, float]]) -> State:
        """Return the state with the learning rate of the best validation score."""
        return best_choice("sgd", self.test_inner_lrs, state, score)

    def adapt(self, params: Params, state: State, support: Examples, key: Tensor, *, training: bool = False) -> Tuned:
        """Return the network with a head trained on the support set; the head over the training classes is not used."""
        classes = present_classes(support)
        body = {name: params[name] for name in self.network.names}
        head = self._new_head(draws.fold(key, "head"), support.y.shape[1], like=support.y)
        fixed = None if self.adapt_all else self.network.on_support(body, state, support, training=training)

        def batch_loss(chosen: Params, rows: Tensor) -> Tensor:
            x, y = support.x[rows], support.y[rows]
            z = self.network.on_support(chosen, state, Examples(x, y), training=training) if fixed is None else fixed[rows]
            return self.objective.loss(hide_absent(self._outputs(part_of(chosen, HEAD), z), classes), y)

        chosen = prefixed(HEAD, head) | (body if self.adapt_all else {})
        velocity: Params = {}
        for rows in mini_batches(support, draws.fold(key, "batches"), self.test_inner_steps, self.test_inner_batch):
            chosen, velocity = self._sgd(chosen, grad(batch_loss)(chosen, rows), velocity, state[LR])
        tuned = {**body, **chosen}
        return Tuned(self.network.fit(tuned, state, support, training=training), part_of(chosen, HEAD), classes)

    def predict(self, adapted: Tuned, x: Tensor, mask: Tensor | None = None) -> Tensor:
        """Return the logits of the new head, (B, N)."""
        return hide_absent(self._outputs(adapted.head, self.network.on_query(adapted.network, x, mask)[0]), adapted.classes)

    def loss(self, params: Params, state: State, episode: Episode, key: Tensor, step: Tensor) -> tuple[Tensor, Aux]:
        """Return the cross entropy over the training classes of all examples of a mini-batch, support and query alike."""
        return supervised_loss(self.network, self.objective, params, state, episode, self._outputs)

    def _new_head(self, key: Tensor, classes: int, like: Tensor | None = None) -> Params:
        """Return a head as torch initialises a linear layer, with biases of 0; with `cosine_head` norms g_n that keep its weights."""
        width = int(self.network.module.out_features)  # type: ignore[arg-type]
        limit = 1.0 / math.sqrt(width)
        weight = draws.uniform(key, classes, width, low=-limit, high=limit, dtype=torch.float32 if like is None else like.dtype)
        return {"weight": weight} | ({"norm": weight.norm(dim=1)} if self.cosine_head else {"bias": torch.zeros_like(weight[:, 0])})

    def _outputs(self, head: Params, z: Tensor) -> Tensor:
        """Return C(z, W), (B, N)."""
        if not self.cosine_head:
            return z @ head["weight"].T + head["bias"]
        scale = 2.0 if len(head["weight"]) <= 200 else 10.0
        return scale * head["norm"] * (unit(z) @ unit(head["weight"]).T)

    def _sgd(self, params: Params, gradients: Params, velocity: Params, lr: Tensor) -> tuple[Params, Params]:
        """Return parameters and velocity after a step of SGD. As in torch, the first velocity is the gradient without dampening."""
        slopes = {name: gradient + self.weight_decay * params[name] for name, gradient in gradients.items()}
        if velocity:
            slopes = {name: self.momentum * velocity[name] + (1.0 - self.dampening) * slope for name, slope in slopes.items()}
        return {name: params[name] - lr * slope for name, slope in slopes.items()}, slopes

    update_state = track_running
