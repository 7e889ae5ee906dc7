"""Learning from a stream, one example after the other: the learner of meta-test, its output layer, and one pass over a support set."""

from __future__ import annotations

import functools
import math
from collections.abc import Callable, Sequence
from typing import Any, Literal, NamedTuple, Protocol

import torch
import torch.nn.functional as F
from torch import Tensor
from torch.func import grad
from torch.utils._pytree import tree_map

from metarun import draws
from metarun.algorithms.parts.rates import LR, PLAIN, Optimizer, best_choice, first_choice
from metarun.errors import UserError
from metarun.functional import BETAS, EPS, Moments, adam
from metarun.network import Fitted, Network, hide_absent, present_classes
from metarun.objectives import Objective
from metarun.types import Examples, Params, State, part_of, prefixed

HEAD, PREDICTION = "head.", "prediction."
"""Prefixes of the parameters of the output layer, and of the hidden layers before it that learn from the stream."""
FirstHead = Literal["zero", "random"]
"""The weights of a new output layer before the first example of a stream: all 0, or the rows of `new_head`."""
Outputs = Callable[[Params, Tensor], Tensor]
"""The outputs (B, N) or (B, D) of parameters at features (B, F)."""
Learn = Callable[[Any, Tensor, Tensor, Tensor], Any]
"""The learner after a step: learner, features (B, F), y (B, N), key -> learner."""


class Learner(NamedTuple):
    """A learner between two examples of a stream: its parameters, Adam's moments (None with plain gradient descent), and its rate ().

    plain: (), above 0 for plain gradient descent in spite of the moments; None where there is no choice.
    """

    params: Params
    moments: Moments | None
    lr: Tensor
    plain: Tensor | None = None

    @classmethod
    def start(cls, optimizer: Optimizer, params: Params, state: State) -> Learner:
        """Return the learner before the first example. state: of the algorithm, with the entries of `first_choice`."""
        plain = state[PLAIN] if optimizer == "best" else None
        return cls(params, None if optimizer == "sgd" else Moments.zero(params), state[LR], plain)

    def after(self, objective: Objective, outputs: Outputs, features: Tensor, y: Tensor, mask: Tensor | None = None) -> Learner:
        """Return the learner after a step on the mean loss of examples (B, F) with y (B, N); mask: (B,)."""
        gradients = _gradients(self.params, objective, outputs, features, y, mask)
        descended = {name: value - self.lr * gradients[name] for name, value in self.params.items()}
        if self.moments is None:
            return self._replace(params=descended)
        stepped, moments = adam(self.params, gradients, self.moments, self.lr)
        if self.plain is not None:
            stepped = where(self.plain > 0, descended, stepped)
        return self._replace(params=stepped, moments=moments)


class InPlace:
    """A learner whose steps overwrite its parameters and its moments.

    The steps give the values of the steps of a `Learner`, up to rounding. With a large output layer and Adam, a step takes an eighth of the
    time. The steps read the values of tensors, so they cannot be recorded or mapped over tasks, and they have no derivatives. The
    parameters are copies of those of the given learner.
    """

    def __init__(self, learner: Learner) -> None:
        self.params: Params = {name: value.clone() for name, value in learner.params.items()}
        self.lr = float(learner.lr)
        plain = learner.moments is None or (learner.plain is not None and float(learner.plain) > 0)
        self._adam = None if plain else torch.optim.Adam(list(self.params.values()), self.lr, BETAS, EPS, fused=True)
        self._updates = 0

    def after(self, objective: Objective, outputs: Outputs, features: Tensor, y: Tensor, mask: Tensor | None = None) -> InPlace:
        """Take a step, as `Learner.after` does, and return the learner."""
        gradients = _gradients_in_place(self.params, objective, outputs, features, y, mask)
        if self._adam is None:
            for name, value in self.params.items():
                value.sub_(gradients[name], alpha=self.lr)
            return self
        self._updates += 1
        # torch adds eps to the corrected root. `metarun.functional.adam` adds it to the root that is not corrected yet.
        self._adam.param_groups[0]["eps"] = EPS / math.sqrt(1.0 - BETAS[1] ** self._updates)
        for name, value in self.params.items():
            value.grad = gradients[name]
        self._adam.step()
        return self


def _gradients(params: Params, objective: Objective, outputs: Outputs, features: Tensor, y: Tensor, mask: Tensor | None) -> Params:
    """Return the gradients of the mean loss of examples."""

    def loss(params: Params) -> Tensor:
        return objective.loss(outputs(params, features), y, mask)

    return grad(loss)(params)


def _gradients_in_place(params: Params, objective: Objective, outputs: Outputs, features: Tensor, y: Tensor, mask: Tensor | None) -> Params:
    """Return what `_gradients` returns, bit for bit, in half the time where the backbone learns. It has no derivative."""
    leaves = {name: value.detach().requires_grad_() for name, value in params.items()}
    with torch.enable_grad():
        loss = objective.loss(outputs(leaves, features), y, mask)
    return dict(zip(leaves, torch.autograd.grad(loss, list(leaves.values()), materialize_grads=True), strict=True))


AnyLearner = Learner | InPlace
"""A learner of either kind. `adapt` needs a `Learner`; a stream may use an `InPlace`."""


def head_outputs(head: Params, z: Tensor, classes: Tensor | None = None) -> Tensor:
    """Return the outputs (B, N) of a linear layer at z (B, F), with absent classes at -1e9. classes: (N,) bool; None for all."""
    return hide_absent(F.linear(z, head["weight"], head["bias"]), classes)


def new_rows(key: Tensor, width: int, dtype: torch.dtype = torch.float32) -> Tensor:
    """Return a new row (…, width) of weights for each key (…): normal with variance 2 / width, as both released codes have them.

    He et al. 2015, "Delving deep into rectifiers", https://arxiv.org/abs/1502.01852.
    """
    return draws.noise(key, width, dtype=dtype) * math.sqrt(2.0 / width)


def new_head(key: Tensor, outputs: int, width: int, like: Tensor | None = None) -> Params:
    """Return a linear layer with new rows and zero biases. Row n does not depend on the number of rows. like: gives type and device."""
    rows = torch.arange(outputs, device=key.device if like is None else like.device)
    weight = new_rows(draws.fold(key, rows), width, torch.float32 if like is None else like.dtype)
    return {"weight": weight, "bias": torch.zeros_like(weight[:, 0])}


def first_head(start: FirstHead, key: Tensor, outputs: int, like: Tensor) -> Params:
    """Return the output layer before the first example of a stream. like: weights (N, width), which give width, type and device.

    With weights of 0 the outputs say nothing about classes that have not come, and each step is evidence. Random rows give random outputs,
    which the small steps of a stream cannot undo.
    """
    if start == "random":
        return new_head(key, outputs, like.shape[1], like=like)
    return {"weight": like.new_zeros(outputs, like.shape[1]), "bias": like.new_zeros(outputs)}


def renewed(head: Params, support: Examples, key: Tensor) -> Params:
    """Return the linear layer with new rows and zero biases for the classes of a support set."""
    weights = support.y if support.mask is None else support.y * support.mask[:, None]
    present, first = weights.sum(dim=0) > 0, weights.argmax(dim=0)
    # One draw for each example, not for each of a thousand classes. Padding rows take no number, so that they change no draw.
    number = torch.arange(len(weights), device=weights.device) if support.mask is None else support.mask.cumsum(0) - 1
    fresh = new_rows(draws.fold(key, number), head["weight"].shape[1], head["weight"].dtype)
    return {
        "weight": torch.where(present[:, None], fresh[first], head["weight"]),
        "bias": torch.where(present, 0.0, head["bias"]),
    }


class Ready(NamedTuple):
    """A learner after a support set. network: the embedding, ready for queries. classes: (N,) bool, the present ones; None for all."""

    network: Fitted
    learner: Any
    classes: Tensor | None


def one_pass(learner: Any, learn: Learn, features: Tensor, support: Examples, key: Tensor) -> Any:
    """Return the learner after one pass over a support set, one example a step. features: (B, F), of its examples."""
    mask = support.mask
    for number in range(len(support.y)):
        # A padding row changes nothing, and it takes no number, so that it changes no draw.
        place = number if mask is None else mask[: number + 1].sum() - 1
        rows = slice(number, number + 1)
        after = learn(learner, features[rows], support.y[rows], draws.fold(key, place))
        learner = after if mask is None else where(mask[number], after, learner)
    return learner


def where(condition: Tensor, chosen: Any, other: Any) -> Any:
    """Return a pytree where the condition () holds, and another one of the same structure where it does not."""
    return tree_map(lambda a, b: torch.where(condition, a, b) if isinstance(a, Tensor) else a, chosen, other)


def features_of(network: Network, params: Params, state: State, x: Tensor) -> Tensor:
    """Return the embeddings (B, F) of x (B, ...). UserError where the normalisation makes a row depend on others."""
    check_alone(network)
    return network.on_support(params, state, Examples(x, x), training=False)


def check_alone(network: Network) -> None:
    """Raise UserError where the normalisation of an example needs others."""
    if network.norms and network.norm in ("batch", "support", "reptile"):
        raise UserError(
            f"backbone.norm={network.norm} normalises several examples together, and a stream gives one at a time; "
            "set backbone.norm=instance, layer, running or none."
        )


class _OfStreams(Protocol):
    @property
    def network(self) -> Network: ...

    @property
    def objective(self) -> Objective: ...

    @property
    def train_classes(self) -> int: ...

    @property
    def test_optimizer(self) -> Optimizer: ...

    @property
    def test_head(self) -> FirstHead: ...

    @property
    def test_inner_lrs(self) -> Sequence[float]: ...


class _Streams(_OfStreams, Protocol):
    def first(self, params: Params, state: State, outputs: int, key: Tensor) -> Any: ...

    def learn(self, adapted: Any, features: Tensor, y: Tensor, key: Tensor, classes: Tensor | None = None) -> Any: ...

    def answer(self, adapted: Any, features: Tensor) -> Tensor: ...


def network_and_head(self: _OfStreams, key: Tensor) -> tuple[Params, State]:
    """Return the network with an output layer for all training classes; running statistics and the first rate. For `init`."""
    params, state = self.network.init()
    width = int(self.network.module.out_features)  # type: ignore[arg-type]
    head = new_head(draws.fold(key, HEAD), self.train_classes, width)
    return params | prefixed(HEAD, head), state | first_choice(self.test_optimizer, self.test_inner_lrs)


def head_of_stream(algorithm: _OfStreams, params: Params, outputs: int, key: Tensor) -> Params:
    """Return the output layer before the first example: a new one in classification, that of the parameters in regression."""
    head = part_of(params, HEAD)
    if algorithm.objective.kind != "classification":
        return head
    return first_head(algorithm.test_head, draws.fold(key, HEAD), outputs, head["weight"])


def first_in_place(self: _Streams, params: Params, state: State, outputs: int, key: Tensor) -> InPlace:
    """Return the learner before the first example of a stream; its steps overwrite it. For `start`."""
    return InPlace(self.first(params, state, outputs, key))


def after_one_pass(self: _Streams, params: Params, state: State, support: Examples, key: Tensor, *, training: bool = False) -> Ready:
    """Return the network after one pass over the support set, one example a step. For `adapt`."""
    classes = present_classes(support, self.objective)
    z = self.network.on_support(params, state, support, training=training)
    first = self.first(params, state, support.y.shape[1], key)
    learner = one_pass(first, functools.partial(self.learn, classes=classes), z, support, key)
    return Ready(self.network.fit(params, state, support, training=training), learner, classes)


def answer_ready(self: _Streams, adapted: Ready, x: Tensor, mask: Tensor | None = None) -> Tensor:
    """Return the answers (B, N) or (B, D) of the learner, with absent classes at -1e9. For `predict`."""
    z, _ = self.network.on_query(adapted.network, x, mask)
    return hide_absent(self.answer(adapted.learner, z), adapted.classes)


def choose_rate(self: _OfStreams, params: Params, state: State, score: Callable[[State], dict[int, float]]) -> State:
    """Return the state with the rate and the optimizer of the best validation score. For `choose`."""
    return best_choice(self.test_optimizer, self.test_inner_lrs, state, score)
