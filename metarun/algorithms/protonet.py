"""Prototypical Networks: a class is the mean of its support embeddings.

Jake Snell, Kevin Swersky, Richard Zemel. "Prototypical Networks for Few-shot Learning", NeurIPS 2017.
https://arxiv.org/abs/1703.05175

    c_n = mean of f(x) over the support examples of class n                        (equation 1)
    p(n | x) = softmax over n of -|f(x) - c_n|²                                    (equation 2)

Nothing is fitted at test: adaptation is one pass over the support set, so the number of ways is free to differ between training and
test (the paper trains with more). The distance is the squared Euclidean one, without a temperature.
"""

from __future__ import annotations

from dataclasses import dataclass
from typing import ClassVar, NamedTuple

from torch import Tensor

from metarun.functional import prototypes, squared_distances
from metarun.network import Fitted, Network, hide_absent, present_classes
from metarun.objectives import Objective
from metarun.types import Aux, Episode, Examples, Params, State


class Prototypes(NamedTuple):
    """centres: (N, D), one per class. network: the embedding, ready for queries. classes: (N,) bool, those present, or None."""

    centres: Tensor
    network: Fitted
    classes: Tensor | None


@dataclass(frozen=True)
class ProtoNet:
    """Prototypical Networks; no hyperparameter of its own.

    In training, support and query go through the network in one pass where the mode normalises by the batch at hand (`batch` and
    `running`), as in the released code. At test, `batch` normalises each of the two sets by its own statistics.
    """

    network: Network
    objective: Objective
    head: ClassVar[bool] = False
    adapts_backbone: ClassVar[bool] = False
    objectives: ClassVar[tuple[str, ...]] = ("classification",)

    def init(self, key: Tensor) -> tuple[Params, State]:
        """Return the embedding's initial parameters and running statistics."""
        return self.network.init()

    def adapt(self, params: Params, state: State, support: Examples, key: Tensor, *, training: bool = False) -> Prototypes:
        """Return the prototypes of a support set."""
        embeddings = self.network.on_support(params, state, support, training=training)
        centres = prototypes(embeddings, support.y, support.mask)
        return Prototypes(centres, self.network.fit(params, state, support, training=training), present_classes(support))

    def predict(self, adapted: Prototypes, x: Tensor, mask: Tensor | None = None) -> Tensor:
        """Return minus the squared distances to the prototypes, (B, N), which are the logits."""
        embeddings, _ = self.network.on_query(adapted.network, x, mask)
        return _logits(embeddings, adapted.centres, adapted.classes)

    def loss(self, params: Params, state: State, episode: Episode, key: Tensor, step: Tensor) -> tuple[Tensor, Aux]:
        """Return the cross entropy of the query examples."""
        support, query = episode
        known, asked, statistics = self.network.on_episode(params, state, episode)
        logits = _logits(asked, prototypes(known, support.y, support.mask), present_classes(support))
        loss = self.objective.loss(logits, query.y, query.mask)
        score = self.objective.score(logits, query.y, query.mask)
        return loss, Aux({"loss": loss.detach(), self.objective.metric: score.detach()}, statistics)

    def update_state(self, state: State, aux: dict[str, Tensor]) -> State:
        """Track the running statistics of the training passes."""
        return self.network.update_running(state, aux)


def _logits(embeddings: Tensor, centres: Tensor, classes: Tensor | None) -> Tensor:
    return hide_absent(-squared_distances(embeddings, centres), classes)
