"""Learning from a stream, one example after the other: the inner loop of meta-training, and the learner of meta-test.

The output layer is linear, and the layers below it may learn too. For a step on example i with features z_i, the gradient of the
weights W (N, F) is the outer product s_i z_iᵀ, where s_i (N,) is the gradient of the loss by the outputs. After k steps of plain gradient
descent with rate α,

    W_k = W_0 - α Σ_{i<k} s_i z_iᵀ,    b_k = b_0 - α Σ_{i<k} s_i,    outputs at z = W_0 z + b_0 - α Σ_{i<k} s_i (z_i · z + 1)

`Layer` holds W_0 and the pairs (s_i, z_i). The formula is exact, so all derivatives are. An inner step then needs no copy of W, which has
a row for each of about a thousand classes.
"""

from __future__ import annotations

import functools
import math
from collections.abc import Callable, Sequence
from dataclasses import dataclass
from typing import Any, Literal, NamedTuple

import torch
import torch.nn.functional as F
from torch import Tensor
from torch.func import grad
from torch.utils._pytree import tree_map

from metarun import draws
from metarun.errors import UserError
from metarun.functional import Moments, adam
from metarun.network import Fitted, Network, hide_absent
from metarun.objectives import Objective
from metarun.types import Examples, Params, State, constant

HEAD, PREDICTION = "head.", "prediction."
"""Prefixes of the parameters of the output layer, and of the hidden layers before it that learn from the stream."""
LR = "test_inner_lr"
"""Name of the rate of the stream in the state."""
PLAIN = "test_sgd"
"""Name of the choice of plain gradient descent in the state: 1, or 0 for Adam. Only with "best" as the optimizer."""
Optimizer = Literal["adam", "sgd", "best"]
"""Of a stream: Adam, plain gradient descent, or the one with the best validation score."""
FirstHead = Literal["zero", "random"]
"""The weights of a new output layer before the first example of a stream: all 0, or the rows of `new_head`."""
Outputs = Callable[[Params, Tensor], Tensor]
"""The outputs (B, N) or (B, D) of parameters at features (B, F)."""
Learn = Callable[[Any, Tensor, Tensor, Tensor], Any]
"""The learner after a step: learner, features (B, F), y (B, N), key -> learner."""


class Layer(NamedTuple):
    """A linear layer after some steps of gradient descent. weight: W_0. bias: b_0. inputs: z_i (S, F). slopes: α s_i (S, N)."""

    weight: Tensor
    bias: Tensor
    inputs: Tensor
    slopes: Tensor

    @classmethod
    def of(cls, head: Params) -> Layer:
        """Return the layer before the first step."""
        weight = head["weight"]
        return cls(weight, head["bias"], weight.new_zeros(0, weight.shape[1]), weight.new_zeros(0, weight.shape[0]))

    def outputs(self, z: Tensor) -> Tensor:
        """Return the outputs (B, N) at z (B, F)."""
        return F.linear(z, self.weight, self.bias) - (z @ self.inputs.T + 1.0) @ self.slopes

    def after(self, z: Tensor, slopes: Tensor) -> Layer:
        """Return the layer after a step on examples z (B, F). slopes: α times the gradient of the loss by their outputs, (B, N)."""
        return self._replace(inputs=torch.cat([self.inputs, z]), slopes=torch.cat([self.slopes, slopes]))


@dataclass(frozen=True)
class Descent:
    """The inner loop: gradient descent through the examples in their order, in differentiable steps.

    lr: α. batch: examples in a step. first_order: treat the steps as constants in the outer gradient.
    """

    objective: Objective
    lr: float
    batch: int = 1
    first_order: bool = False

    def run(self, embed: Callable[..., Tensor], below: Params, layer: Layer, y: Tensor, mask: Tensor | None) -> tuple[Params, Layer]:
        """Return the parameters below the layer and the layer, after a step on each example, y (S, N).

        embed: called with parameters below the layer and `rows`, returns the inputs of the layer for these rows of the examples. There may
        be no parameters below, {}.
        """
        for first in range(0, len(y), self.batch):
            rows = slice(first, first + self.batch)
            known = None if mask is None else mask[rows]
            below, layer = self._step(functools.partial(embed, rows=rows), below, layer, y[rows], known)
        return below, layer

    def _step(self, embed: Callable[[Params], Tensor], below: Params, layer: Layer, y: Tensor, mask: Tensor | None) -> tuple[Params, Layer]:
        def loss_of(outputs: Tensor) -> Tensor:
            return self.objective.loss(outputs, y, mask)

        def loss(chosen: Params) -> tuple[Tensor, tuple[Tensor, Tensor]]:
            z = embed(chosen)
            outputs = layer.outputs(z)
            return loss_of(outputs), (z, outputs)

        gradients, (z, outputs) = grad(loss, has_aux=True)(below) if below else ({}, loss(below)[1])
        slopes = grad(loss_of)(outputs)
        if self.first_order:
            gradients, z, slopes = constant(gradients), z.detach(), slopes.detach()
        below = {name: value - self.lr * gradients[name] for name, value in below.items()}
        return below, layer.after(z, self.lr * slopes)


class Learner(NamedTuple):
    """A learner between two examples of a stream: its parameters, Adam's moments (None with plain gradient descent), and its rate ().

    plain: (), above 0 for plain gradient descent in spite of the moments; None where there is no choice.
    """

    params: Params
    moments: Moments | None
    lr: Tensor
    plain: Tensor | None = None


@dataclass(frozen=True)
class Online:
    """One step of Adam or of plain gradient descent on the next example or examples. optimizer "best": as the state says."""

    objective: Objective
    optimizer: Optimizer

    def start(self, params: Params, state: State) -> Learner:
        """Return the learner before the first example. state: of the algorithm, with the entries of `first_choice`."""
        plain = state[PLAIN] if self.optimizer == "best" else None
        return Learner(params, None if self.optimizer == "sgd" else Moments.zero(params), state[LR], plain)

    def step(self, learner: Learner, outputs: Outputs, features: Tensor, y: Tensor, mask: Tensor | None = None) -> Learner:
        """Return the learner after a step on the mean loss of examples (B, F) with y (B, N); mask: (B,)."""

        def loss(params: Params) -> Tensor:
            return self.objective.loss(outputs(params, features), y, mask)

        gradients = grad(loss)(learner.params)
        descended = {name: value - learner.lr * gradients[name] for name, value in learner.params.items()}
        if learner.moments is None:
            return learner._replace(params=descended)
        stepped, moments = adam(learner.params, gradients, learner.moments, learner.lr)
        if learner.plain is not None:
            stepped = where(learner.plain > 0, descended, stepped)
        return learner._replace(params=stepped, moments=moments)


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
            f"backbone.norm={network.norm} normalises an example by others, and in a stream there is one at a time; "
            "set backbone.norm=instance, layer, running or none."
        )


def first_choice(optimizer: Optimizer, rates: Sequence[float]) -> State:
    """Return the entries of the state that hold the rate, and the optimizer where it is a choice, before the first validation."""
    return {LR: torch.tensor(rates[0])} | ({PLAIN: torch.tensor(0.0)} if optimizer == "best" else {})


def best_choice(optimizer: Optimizer, rates: Sequence[float], state: State, score: Callable[[State], dict[int, float]]) -> State:
    """Return the state with the rate, and with the optimizer where it is a choice, of the best validation score. For `choose`.

    Where there is one rate alone it holds, whatever rate the state has, such as that of the run of `init_from`.
    """
    plain = [{PLAIN: torch.tensor(value)} for value in (0.0, 1.0)] if optimizer == "best" else [{}]
    tried = [state | {LR: torch.tensor(lr)} | chosen for chosen in plain for lr in rates]
    if len(tried) == 1:
        return tried[0]
    scores = [by_step[max(by_step)] for by_step in map(score, tried)]
    return tried[max(range(len(tried)), key=lambda i: scores[i] if math.isfinite(scores[i]) else -math.inf)]


def check_rates(rates: Sequence[float]) -> None:
    """Raise UserError where there is no rate, or one that is not above 0."""
    if not rates or min(rates) <= 0:
        raise UserError(f"algo.test_inner_lrs={list(rates)} must be one or more rates above 0.")
