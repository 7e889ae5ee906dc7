"""Prototypical Networks: a class is the mean of its support embeddings.

Jake Snell, Kevin Swersky, Richard Zemel. "Prototypical Networks for Few-shot Learning", NeurIPS 2017.
https://arxiv.org/abs/1703.05175

    c_n = mean of f(x) over the support examples of class n                        (equation 1)
    p(n | x) = softmax over n of -|f(x) - c_n|²                                    (equation 2)

Adaptation is one pass over the support set and trains nothing. So training and test may differ in the number of ways, and the paper
trains with more ways than it tests. The distance is the squared Euclidean one, without a temperature.

The released code (https://github.com/jakesnell/prototypical-networks) starts from PyTorch's default weights (`backbone.init=torch`) and
halves its learning rate every 2,000 episodes. metarun's conv4 starts from Glorot's weights by default.
"""

from __future__ import annotations

from dataclasses import dataclass
from typing import ClassVar, NamedTuple

from torch import Tensor

from metarun.algorithms.parts.members import track_running
from metarun.functional import prototypes, squared_distances
from metarun.network import Fitted, Network, hide_absent, present_classes, query_loss
from metarun.objectives import Objective
from metarun.types import Aux, Episode, Examples, Params, State, Traits


class Prototypes(NamedTuple):
    """centres: (N, D), one per class. network: the embedding, ready for queries. classes: (N,) bool, True if present; None for all."""

    centres: Tensor
    network: Fitted
    classes: Tensor | None


@dataclass(frozen=True)
class ProtoNet:
    """Prototypical Networks; no hyperparameter of its own.

    In training with norm=batch or norm=running, support and query go through the network in one pass, as in the released code. At test,
    norm=batch normalises each of the two sets by its own statistics.
    """

    network: Network
    objective: Objective
    traits: ClassVar[Traits] = Traits(head=False, adapts_backbone=False, objectives=("classification",))

    def init(self, key: Tensor) -> tuple[Params, State]:
        """Return the embedding's initial parameters and running statistics."""
        return self.network.init()

    def adapt(self, params: Params, state: State, support: Examples, key: Tensor, *, training: bool = False) -> Prototypes:
        """Return the prototypes of a support set."""
        embeddings = self.network.on_support(params, state, support, training=training)
        centres = prototypes(embeddings, support.y, support.mask)
        return Prototypes(centres, self.network.fit(params, state, support, training=training), present_classes(support))

    def predict(self, adapted: Prototypes, x: Tensor, mask: Tensor | None = None) -> Tensor:
        """Return the logits (B, N): minus the squared distances to the prototypes."""
        embeddings, _ = self.network.on_query(adapted.network, x, mask)
        return _logits(embeddings, adapted.centres, adapted.classes)

    def loss(self, params: Params, state: State, episode: Episode, key: Tensor, step: Tensor) -> tuple[Tensor, Aux]:
        """Return the cross entropy of the query examples."""
        support, query = episode
        known, asked, statistics = self.network.on_episode(params, state, episode)
        logits = _logits(asked, prototypes(known, support.y, support.mask), present_classes(support))
        return query_loss(self.objective, logits, statistics, query)

    update_state = track_running


def _logits(embeddings: Tensor, centres: Tensor, classes: Tensor | None) -> Tensor:
    return hide_absent(-squared_distances(embeddings, centres), classes)
