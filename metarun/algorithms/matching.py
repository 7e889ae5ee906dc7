"""Matching Networks: a query's label is the labels of the support set, weighted by attention.

Oriol Vinyals, Charles Blundell, Timothy Lillicrap, Koray Kavukcuoglu, Daan Wierstra. "Matching Networks for One Shot Learning",
NeurIPS 2016. https://arxiv.org/abs/1606.04080

    p(n | x) = sum over the support examples i of class n of a(x, x_i)                              (equation 1)
    a(x, x_i) = softmax over i of c(f(x), g(x_i)),  c the cosine                                    (section 2.1.1)

Unlike a prototypical network it never averages a class: the loss is -log of the attention that all examples of the right class get
together. With full context embeddings (`fce`, section 2.1.2 and appendix A), a bidirectional LSTM reads the whole support set for g, and
an LSTM with attention looks at it K times for f:

    g(x_i) = h→_i + h←_i + g'(x_i)                                                                  (appendix A.2)
    ĥ_k, c_k = LSTM(f'(x), [h_{k-1}, r_{k-1}], c_{k-1}),  h_k = ĥ_k + f'(x),  f(x) = h_K            (equations 3 and 4)
    r_{k-1} = sum over i of softmax over i of (h_{k-1} · g(x_i)) · g(x_i)                           (equations 5 and 6)

from ĥ_0 = c_0 = 0. f' = g' is the backbone. A set has no order, but an LSTM reads in one, so g depends on the order of the support set.
"""

from __future__ import annotations

import math
from dataclasses import dataclass
from typing import ClassVar, Literal, NamedTuple, get_args

import torch
from torch import Tensor

from metarun import draws
from metarun.algorithms.parts.members import check_not_negative, check_positive, track_running
from metarun.algorithms.parts.orders import random_order
from metarun.algorithms.parts.recurrent import LstmState, lstm_cell, lstm_init, lstm_start
from metarun.algorithms.parts.vectors import unit
from metarun.errors import UserError, nearest
from metarun.functional import squared_distances
from metarun.layers.precision import at_least_float32, full_precision
from metarun.network import Fitted, Network, hide_absent, present_classes, query_loss
from metarun.objectives import Objective
from metarun.types import Aux, Episode, Examples, Params, State, Traits, part_of, prefixed
from metarun.values import FewOrZero, Positive

Similarity = Literal["cosine", "semi_cosine", "l2"]
SIMILARITIES = get_args(Similarity)
LOG_TEMPERATURE, FORWARD, BACKWARD, ATTENTION = "log_temperature", "fce.forward.", "fce.backward.", "fce.attention."


class Attended(NamedTuple):
    """A support set for queries to attend to.

    g: (B, D) support embeddings; with `fce` in context. y: (B, N), their labels. mask: (B,) bool, False on padding, or None.
    network: the backbone, ready for queries, and the algorithm's own parameters. classes: (N,) bool, the present ones, or None for all.
    """

    g: Tensor
    y: Tensor
    mask: Tensor | None
    network: Fitted
    classes: Tensor | None


@dataclass(frozen=True)
class Matching:
    """Matching Networks.

    similarity: c. "cosine", the paper's, lies in [-1, 1]. With one shot no class gets a probability above e/(e + (N-1)/e), 0.65 at 5 ways
        and 0.28 at 20, so it learns badly with many ways. "semi_cosine" divides by the length of the support embedding only, as many
        ports do. "l2" is minus the squared Euclidean distance. Neither of the two has a bound.
    temperature: divides c; below 1 it lifts the bound. learn_temperature: the outer loop learns it, from that value on.
    fce: full context embeddings. fce_steps: K; the paper does not give it. fce_shuffle: the LSTM reads the support set in a random order
        instead of class by class, which is the order of a dealt episode.

    In training with norm=batch or norm=running, support and query go through the backbone in one pass.
    """

    network: Network
    objective: Objective
    similarity: Similarity = "cosine"
    temperature: Positive = 1.0
    learn_temperature: bool = False
    fce: bool = False
    fce_steps: FewOrZero = 5
    fce_shuffle: bool = True
    traits: ClassVar[Traits] = Traits(head=False, adapts_backbone=False, objectives=("classification",))

    def __post_init__(self) -> None:
        if self.similarity not in SIMILARITIES:
            known = ", ".join(SIMILARITIES)
            raise UserError(
                f"algo.similarity={self.similarity} is unknown; it must be one of {known}.{nearest(self.similarity, SIMILARITIES)}"
            )
        check_positive(self, "temperature")
        check_not_negative(self, "fce_steps")

    def init(self, key: Tensor) -> tuple[Params, State]:
        """Return the backbone's parameters and running statistics, with `fce` the LSTMs' parameters, and ln of a temperature to learn."""
        params, state = self.network.init()
        if self.learn_temperature:
            params[LOG_TEMPERATURE] = torch.tensor(math.log(self.temperature))
        if self.fce:
            width = int(self.network.module.out_features)  # type: ignore[arg-type]
            for prefix, inputs in ((FORWARD, width), (BACKWARD, width), (ATTENTION, 2 * width)):
                params |= prefixed(prefix, lstm_init(draws.fold(key, prefix), inputs, width))
        return params, state

    def adapt(self, params: Params, state: State, support: Examples, key: Tensor, *, training: bool = False) -> Attended:
        """Return the embedded support set."""
        embeddings = self.network.on_support(params, state, support, training=training)
        return self._attended(embeddings, support, self.network.fit(params, state, support, training=training), key)

    def predict(self, adapted: Attended, x: Tensor, mask: Tensor | None = None) -> Tensor:
        """Return logits (B, N); their softmax is the attention summed by class."""
        return self._logits(adapted, self.network.on_query(adapted.network, x, mask)[0])

    def loss(self, params: Params, state: State, episode: Episode, key: Tensor, step: Tensor) -> tuple[Tensor, Aux]:
        """Return the mean of -log of the attention on the query's class."""
        support, query = episode
        known, asked, statistics = self.network.on_episode(params, state, episode)
        logits = self._logits(self._attended(known, support, Fitted(params, {}, None, None), key), asked)
        return query_loss(self.objective, logits, statistics, query)

    def _attended(self, embeddings: Tensor, support: Examples, network: Fitted, key: Tensor) -> Attended:
        g, y, mask = embeddings, support.y, support.mask
        if self.fce and self.fce_shuffle:
            order = random_order(g, mask, key)
            g, y, mask = g[order], y[order], None if mask is None else mask[order]
        if self.fce:
            g = in_context(part_of(network.params, FORWARD), part_of(network.params, BACKWARD), g, mask)
        return Attended(g, y, mask, network, present_classes(support))

    def _logits(self, adapted: Attended, f: Tensor) -> Tensor:
        params, g = adapted.network.params, adapted.g
        if self.fce:
            f = with_attention(part_of(params, ATTENTION), f, g, adapted.mask, self.fce_steps)
        scores = similarity(f, g, self.similarity) / (params[LOG_TEMPERATURE].exp() if self.learn_temperature else self.temperature)
        usable = adapted.y > 0 if adapted.mask is None else (adapted.y > 0) & adapted.mask[:, None]
        # The sum is one of logarithms, so a probability of 0 needs no clipping. The derivative at -inf would be NaN, so -1e9.
        by_class = torch.where(usable[None], scores[:, :, None], -1e9).logsumexp(dim=1)
        return hide_absent(by_class, adapted.classes)

    update_state = track_running


def similarity(f: Tensor, g: Tensor, kind: str) -> Tensor:
    """Return c(f_i, g_j), (A, B), from f (A, D) and g (B, D)."""
    if kind == "l2":
        return -squared_distances(f, g)
    f, g = at_least_float32(f), at_least_float32(g)
    with full_precision(f):
        return (unit(f) if kind == "cosine" else f) @ unit(g).T


def in_context(forward: Params, backward: Params, z: Tensor, mask: Tensor | None) -> Tensor:
    """Return g (B, D): support embeddings z (B, D) plus the outputs of two LSTMs that read them from both ends."""
    reversed_mask = None if mask is None else mask.flip(0)
    return z + _outputs(forward, z, mask) + _outputs(backward, z.flip(0), reversed_mask).flip(0)


def with_attention(params: Params, z: Tensor, g: Tensor, mask: Tensor | None, steps: int) -> Tensor:
    """Return f (A, D): query embeddings z (A, D) after `steps` looks at the real rows of the support set g (B, D)."""
    hidden, cell = z, torch.zeros_like(z)
    for _ in range(steps):
        scores = hidden @ g.T
        if mask is not None:
            scores = scores.masked_fill(~mask, -torch.inf)
        # The paper's hidden state is [h, r] and the output has the size of h, so r acts as an input.
        inputs = torch.cat([z, scores.softmax(dim=1) @ g], dim=1)
        output, cell = lstm_cell(params, inputs, LstmState(hidden, cell))
        hidden = output + z
    return hidden


def _outputs(params: Params, z: Tensor, mask: Tensor | None) -> Tensor:
    """Return the outputs (B, D) of an LSTM that reads the real rows of z (B, D) from the first to the last."""
    state, outputs = lstm_start(params, z[0]), []
    for row in range(z.shape[0]):
        after = lstm_cell(params, z[row], state)
        if mask is not None:
            after = LstmState(torch.where(mask[row], after.hidden, state.hidden), torch.where(mask[row], after.cell, state.cell))
        state = after
        outputs.append(state.hidden)
    return torch.stack(outputs)
