"""Fine-tuning: learn all training classes at once, then a new head on each support set. Transfer learning as it is done elsewhere.

Wei-Yu Chen, Yen-Cheng Liu, Zsolt Kira, Yu-Chiang Frank Wang, Jia-Bin Huang. "A Closer Look at Few-shot Classification", ICLR 2019.
https://arxiv.org/abs/1904.04232

    training:  minimise over f and W the cross entropy of C(f(x), W) over mini-batches of all training classes
    test:      f fixed, a new W for the classes of the task by 100 steps of SGD on mini-batches of 4 of the support set

    Baseline:    C(z, W)_n = w_n · z + b_n
    Baseline++:  C(z, W)_n = s g_n cos(w_n, z)                                                     (`cosine_head`)

The engine deals episodes: with `task.train_labels=global` each is a mini-batch whose labels number all training classes, and the head over
these is a part of the parameters that no test reads. Its classes are drawn first and some images of each then, so that every class is
equally likely, where the paper draws images. g_n is the norm of the released code
(https://github.com/wyharveychen/CloserLookFewShot), learned for each class, and s its scale, 2 for up to 200 classes and 10 for more. At
test that code takes 100 passes where the paper says 100 iterations; ours are iterations, which cycle through the reshuffled support set.
"""

from __future__ import annotations

import math
from collections.abc import Callable, Sequence
from dataclasses import dataclass
from typing import ClassVar, NamedTuple

import torch
from torch import Tensor
from torch.func import grad

from metarun import draws
from metarun.algorithms.parts.orders import mini_batches
from metarun.errors import UserError
from metarun.network import Fitted, Network, hide_absent, joint_mask, present_classes
from metarun.objectives import Objective
from metarun.types import Aux, Episode, Examples, Params, State

HEAD = "head."
LR = "test_inner_lr"


class Tuned(NamedTuple):
    """network: the backbone, ready for queries. head: of this task's classes. classes: (N,) bool, those present, or None."""

    network: Fitted
    head: Params
    classes: Tensor | None


@dataclass(frozen=True)
class Finetune:
    """Supervised pre-training, then a new head for each task.

    train_classes: how many classes the head is trained on; given by metarun. cosine_head: Baseline++.
    test_inner_steps, test_inner_batch: steps of SGD on the support set and examples in each. test_inner_lrs: its learning rates to choose
        from, by the last validation of a run; until then, and where it is the only one, the first. momentum, dampening, weight_decay: of
        that SGD, as in `torch.optim.SGD`. adapt_all: tune the backbone too, scales and shifts of normalisation included.
    """

    network: Network
    objective: Objective
    train_classes: int
    cosine_head: bool = False
    test_inner_steps: int = 100
    test_inner_batch: int = 4
    test_inner_lrs: Sequence[float] = (0.01,)
    momentum: float = 0.9
    dampening: float = 0.9
    weight_decay: float = 1e-3
    adapt_all: bool = False
    head: ClassVar[bool] = False
    training_only: ClassVar[tuple[str, ...]] = (HEAD,)
    objectives: ClassVar[tuple[str, ...]] = ("classification",)

    def __post_init__(self) -> None:
        if self.test_inner_steps < 0 or self.test_inner_batch < 1:
            raise UserError(
                f"algo.test_inner_steps={self.test_inner_steps} must be at least 0 and algo.test_inner_batch={self.test_inner_batch} at least 1."
            )
        if not self.test_inner_lrs or min(self.test_inner_lrs) <= 0:
            raise UserError(f"algo.test_inner_lrs={list(self.test_inner_lrs)} must be one or more rates above 0.")

    @property
    def adapts_backbone(self) -> bool:
        """Whether a task gets weights of its own beside those of its head."""
        return self.adapt_all

    def init(self, key: Tensor) -> tuple[Params, State]:
        """Return the backbone's parameters and those of the head over all training classes; running statistics and the first rate."""
        params, state = self.network.init()
        head = self._new_head(draws.fold(key, HEAD), self.train_classes)
        return params | {HEAD + name: value for name, value in head.items()}, state | {LR: torch.tensor(self.test_inner_lrs[0])}

    def choose(self, params: Params, state: State, score: Callable[[State], dict[int, float]]) -> State:
        """Return the state with the learning rate whose heads score best on validation."""
        if len(self.test_inner_lrs) == 1:
            return state
        tried = [state | {LR: torch.tensor(lr)} for lr in self.test_inner_lrs]
        scores = [by_step[max(by_step)] for by_step in map(score, tried)]
        return tried[max(range(len(tried)), key=lambda i: scores[i] if math.isfinite(scores[i]) else -math.inf)]

    def adapt(self, params: Params, state: State, support: Examples, key: Tensor, *, training: bool = False) -> Tuned:
        """Return the network with a head trained on the support set; the head over the training classes plays no part."""
        classes = present_classes(support)
        body = {name: params[name] for name in self.network.names}
        head = self._new_head(draws.fold(key, "head"), support.y.shape[1], like=support.y)
        fixed = None if self.adapt_all else self.network.on_support(body, state, support, training=training)

        def batch_loss(chosen: Params, rows: Tensor) -> Tensor:
            x, y = support.x[rows], support.y[rows]
            z = self.network.on_support(chosen, state, Examples(x, y), training=training) if fixed is None else fixed[rows]
            return self.objective.loss(hide_absent(self._outputs(z, _head_of(chosen)), classes), y)

        chosen = {HEAD + name: value for name, value in head.items()} | (body if self.adapt_all else {})
        velocity: Params = {}
        for rows in mini_batches(support, draws.fold(key, "batches"), self.test_inner_steps, self.test_inner_batch):
            chosen, velocity = self._sgd(chosen, grad(batch_loss)(chosen, rows), velocity, state[LR])
        tuned = {**body, **chosen}
        return Tuned(self.network.fit(tuned, state, support, training=training), _head_of(chosen), classes)

    def predict(self, adapted: Tuned, x: Tensor, mask: Tensor | None = None) -> Tensor:
        """Return the logits of the new head, (B, N)."""
        return hide_absent(self._outputs(self.network.on_query(adapted.network, x, mask)[0], adapted.head), adapted.classes)

    def loss(self, params: Params, state: State, episode: Episode, key: Tensor, step: Tensor) -> tuple[Tensor, Aux]:
        """Return the cross entropy of all examples of a mini-batch, support and query alike, over the training classes."""
        *embeddings, statistics = self.network.on_episode(params, state, episode)
        outputs = self._outputs(torch.cat(embeddings), _head_of(params))
        y, mask = torch.cat([part.y for part in episode]), joint_mask(*episode)
        loss, score = self.objective.loss(outputs, y, mask), self.objective.score(outputs, y, mask)
        return loss, Aux({"loss": loss.detach(), self.objective.metric: score.detach()}, statistics)

    def update_state(self, state: State, aux: dict[str, Tensor]) -> State:
        """Track the running statistics of the mini-batches."""
        return self.network.update_running(state, aux)

    def _new_head(self, key: Tensor, classes: int, like: Tensor | None = None) -> Params:
        """Return a head as torch initialises a linear layer, with biases of 0; with `cosine_head` norms that leave its weights as they are."""
        width = int(self.network.module.out_features)  # type: ignore[arg-type]
        limit = 1.0 / math.sqrt(width)
        weight = draws.uniform(key, classes, width, low=-limit, high=limit, dtype=torch.float32 if like is None else like.dtype)
        return {"weight": weight} | ({"norm": weight.norm(dim=1)} if self.cosine_head else {"bias": torch.zeros_like(weight[:, 0])})

    def _outputs(self, z: Tensor, head: Params) -> Tensor:
        """Return C(z, W), (B, N)."""
        if not self.cosine_head:
            return z @ head["weight"].T + head["bias"]
        scale = 2.0 if len(head["weight"]) <= 200 else 10.0
        return scale * head["norm"] * (_unit(z) @ _unit(head["weight"]).T)

    def _sgd(self, params: Params, gradients: Params, velocity: Params, lr: Tensor) -> tuple[Params, Params]:
        """Return parameters and velocity after a step of SGD; the first velocity is the gradient, not dampened, as in torch."""
        slopes = {name: gradient + self.weight_decay * params[name] for name, gradient in gradients.items()}
        if velocity:
            slopes = {name: self.momentum * velocity[name] + (1.0 - self.dampening) * slope for name, slope in slopes.items()}
        return {name: params[name] - lr * slope for name, slope in slopes.items()}, slopes


def _head_of(params: Params) -> Params:
    return {name.removeprefix(HEAD): value for name, value in params.items() if name.startswith(HEAD)}


def _unit(z: Tensor) -> Tensor:
    """Return the rows of z (B, D) at length 1; a row of zeros stays one."""
    return z * (z.square().sum(dim=1, keepdim=True) + 1e-12).rsqrt()
