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

import torch
from torch import Tensor

from metarun.functional import prototypes, squared_distances
from metarun.network import Fitted, Network, hide_absent, present_classes
from metarun.norm import NormPass
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
        return self._logits(adapted, self.network.on_query(adapted.network, x, mask)[0])

    def loss(self, params: Params, state: State, episode: Episode, key: Tensor, step: Tensor) -> tuple[Tensor, Aux]:
        """Return the cross entropy of the query examples."""
        support, query = episode
        if self.network.norm in ("batch", "running"):
            adapted, embeddings, statistics = self._joint_pass(params, support, query)
        else:
            adapted = self.adapt(params, state, support, key, training=True)
            embeddings, statistics = self.network.on_query(adapted.network, query.x, query.mask, collect=True)
        logits = self._logits(adapted, embeddings)
        loss = self.objective.loss(logits, query.y, query.mask)
        score = self.objective.score(logits, query.y, query.mask)
        return loss, Aux({"loss": loss.detach(), self.objective.metric: score.detach()}, statistics)

    def update_state(self, state: State, aux: dict[str, Tensor]) -> State:
        """Track the running statistics of the training passes."""
        return self.network.update_running(state, aux)

    def _joint_pass(self, params: Params, support: Examples, query: Examples) -> tuple[Prototypes, Tensor, dict[str, Tensor]]:
        now = NormPass("own", _joint_mask(support, query), collect=True)
        embeddings = self.network.forward(params, torch.cat([support.x, query.x]), now)
        split = support.x.shape[0]
        centres = prototypes(embeddings[:split], support.y, support.mask)
        statistics = {name: value.detach() for name, value in now.collected.items()}
        return Prototypes(centres, Fitted(params, {}, None, None), present_classes(support)), embeddings[split:], statistics

    def _logits(self, adapted: Prototypes, embeddings: Tensor) -> Tensor:
        return hide_absent(-squared_distances(embeddings, adapted.centres), adapted.classes)


def _joint_mask(support: Examples, query: Examples) -> Tensor | None:
    """Return the mask of support and query behind each other, None where nothing in either is padded."""
    if support.mask is None and query.mask is None:
        return None
    parts = [
        torch.ones(len(part.x), dtype=torch.bool, device=part.x.device) if part.mask is None else part.mask for part in (support, query)
    ]
    return torch.cat(parts)
