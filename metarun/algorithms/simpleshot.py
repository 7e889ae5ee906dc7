"""SimpleShot: the nearest centroid of centred and normalised embeddings. A strong baseline without meta-learning.

Yan Wang, Wei-Lun Chao, Kilian Q. Weinberger, Laurens van der Maaten. "SimpleShot: Revisiting Nearest-Neighbor Classification for Few-Shot
Learning", 2019. https://arxiv.org/abs/1911.04623

    training:  minimise over f and W the cross entropy of W f(x) over mini-batches of all training classes
    UN:        z = f(x)
    L2N:       z = f(x) / |f(x)|
    CL2N:      z = (f(x) - m) / |f(x) - m|,  m = the mean of f(x) over the training classes
    test:      the class n whose centroid c_n, the mean of z over its support examples, has the smallest |z - c_n|

A backbone without learned parameters (frozen, or `backbone=identity` on `task=features`) is not trained, and neither is W. The training
steps then only compute m.

Differences from the paper: m is a running mean over the training episodes in place of one pass over all training images. While the
embedding stays fixed, m is the exact mean over the images seen. If the embedding learns, m follows it (`WINDOW`). A mini-batch draws
classes first and then images, so every class has the same weight in m. With batch normalisation m comes from the statistics of the
training batches. Without a training step m is 0. The logits are -|z - c_n|²; the paper takes the nearest centroid and has no
probabilities.
"""

from __future__ import annotations

import math
from dataclasses import dataclass
from typing import ClassVar, Literal, NamedTuple

import torch
from torch import Tensor

from metarun import draws
from metarun.algorithms.parts.vectors import unit
from metarun.functional import prototypes, squared_distances
from metarun.network import Fitted, Network, hide_absent, joint_mask, present_classes, query_loss
from metarun.objectives import Objective
from metarun.types import Aux, Episode, Examples, Params, State, Traits, part_of, prefixed

HEAD = "head."
MEAN, COUNT, SEEN = "base_mean", "base_steps", "embedding"
WINDOW = 100
"""Steps over which the mean fades while the embedding learns."""


class Centroids(NamedTuple):
    """centres: (N, D), one per class. mean: (D,), m. network: the embedding, ready for queries. classes: (N,) bool; None for all."""

    centres: Tensor
    mean: Tensor
    network: Fitted
    classes: Tensor | None


@dataclass(frozen=True)
class SimpleShot:
    """Nearest centroid after a transformation of the embedding.

    train_classes: the number of training classes; metarun fills it in. transform: "un", "l2n" or "cl2n".
    """

    network: Network
    objective: Objective
    train_classes: int
    transform: Literal["un", "l2n", "cl2n"] = "cl2n"
    traits: ClassVar[Traits] = Traits(
        head=False, adapts_backbone=False, learns_all_classes=True, training_only=(HEAD,), objectives=("classification",)
    )

    def init(self, key: Tensor) -> tuple[Params, State]:
        """Return the parameters of the embedding and of W, if the embedding learns; running statistics, and a mean of 0."""
        params, state = self.network.init()
        width = int(self.network.module.out_features)  # type: ignore[arg-type]
        if self._learns:
            limit = 1.0 / math.sqrt(width)
            weight = draws.uniform(draws.fold(key, HEAD), self.train_classes, width, low=-limit, high=limit)
            params |= prefixed(HEAD, {"weight": weight, "bias": torch.zeros(self.train_classes)})
        return params, state | {MEAN: torch.zeros(width), COUNT: torch.zeros(())}

    def adapt(self, params: Params, state: State, support: Examples, key: Tensor, *, training: bool = False) -> Centroids:
        """Return the centroids of a support set."""
        z = self._transformed(self.network.on_support(params, state, support, training=training), state[MEAN])
        fitted = self.network.fit(params, state, support, training=training)
        return Centroids(prototypes(z, support.y, support.mask), state[MEAN], fitted, present_classes(support))

    def predict(self, adapted: Centroids, x: Tensor, mask: Tensor | None = None) -> Tensor:
        """Return the logits (B, N): minus the squared distances to the centroids."""
        embeddings, _ = self.network.on_query(adapted.network, x, mask)
        distances = squared_distances(self._transformed(embeddings, adapted.mean), adapted.centres)
        return hide_absent(-distances, adapted.classes)

    def loss(self, params: Params, state: State, episode: Episode, key: Tensor, step: Tensor) -> tuple[Tensor, Aux]:
        """Return the cross entropy over the training classes of all examples of a mini-batch; that of the centroids if nothing learns."""
        support, query = episode
        known, asked, statistics = self.network.on_episode(params, state, episode)
        batch = Examples(torch.cat([known, asked]), torch.cat([support.y, query.y]), joint_mask(support, query))
        seen = statistics | {SEEN: _mean(batch.x, batch.mask)}
        if self._learns:
            head = part_of(params, HEAD)
            return query_loss(self.objective, batch.x @ head["weight"].T + head["bias"], seen, batch)
        centres = prototypes(self._transformed(known, state[MEAN]), support.y, support.mask)
        logits = -squared_distances(self._transformed(asked, state[MEAN]), centres)
        weights = support.y if support.mask is None else support.y * support.mask[:, None]
        return query_loss(self.objective, hide_absent(logits, weights.sum(dim=0) > 0), seen, query)

    def update_state(self, state: State, aux: dict[str, Tensor]) -> State:
        """Move the running statistics and the mean of the embeddings."""
        count = state[COUNT] + 1.0
        share = 1.0 / (count.clamp(max=WINDOW) if self._learns else count)
        mean = state[MEAN] + share * (aux[SEEN].mean(dim=0) - state[MEAN])
        return self.network.update_running(state, aux) | {MEAN: mean, COUNT: count}

    @property
    def _learns(self) -> bool:
        """Whether the embedding has a parameter to learn."""
        return bool(self.network.names)

    def _transformed(self, embeddings: Tensor, mean: Tensor) -> Tensor:
        """Return z (B, D) for embeddings f(x) (B, D)."""
        if self.transform == "un":
            return embeddings
        return unit(embeddings - mean if self.transform == "cl2n" else embeddings)


def _mean(embeddings: Tensor, mask: Tensor | None) -> Tensor:
    """Return the mean (D,) over the real rows of embeddings (B, D)."""
    if mask is None:
        return embeddings.mean(dim=0)
    return torch.where(mask[:, None], embeddings, 0.0).sum(dim=0) / mask.sum().clamp(min=1)
