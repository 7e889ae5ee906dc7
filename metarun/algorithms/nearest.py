"""Nearest neighbour on raw inputs: the class of the support example with the closest pixels. A lower bound that learns nothing.

Cover and Hart. "Nearest Neighbor Pattern Classification", IEEE Transactions on Information Theory 13(1), 1967, on pixels.

    logit of class n = - min over the support examples of class n of |x - x_i|²
"""

from __future__ import annotations

from dataclasses import dataclass
from typing import ClassVar

import torch
from torch import Tensor

from metarun.algorithms.parts.members import same_state
from metarun.functional import squared_distances
from metarun.network import hide_absent, present_classes
from metarun.objectives import Objective
from metarun.types import Aux, Episode, Examples, Params, State, Traits


@dataclass(frozen=True)
class Nearest:
    """Nearest neighbour on raw inputs; no parameter, no hyperparameter."""

    objective: Objective
    traits: ClassVar[Traits] = Traits(objectives=("classification",))

    def init(self, key: Tensor) -> tuple[Params, State]:
        """Return nothing to learn and nothing to carry."""
        return {}, {}

    def adapt(self, params: Params, state: State, support: Examples, key: Tensor, *, training: bool = False) -> Examples:
        """Return the support set itself."""
        return support

    def predict(self, adapted: Examples, x: Tensor, mask: Tensor | None = None) -> Tensor:
        """Return minus the squared distance to the nearest support example of each class, (B, N)."""
        distances = squared_distances(x.flatten(1), adapted.x.flatten(1))
        usable = adapted.y > 0 if adapted.mask is None else (adapted.y > 0) & adapted.mask[:, None]
        by_class = torch.where(usable[None], distances[:, :, None], torch.inf).amin(dim=1)
        return hide_absent(-by_class, present_classes(adapted))

    def loss(self, params: Params, state: State, episode: Episode, key: Tensor, step: Tensor) -> tuple[Tensor, Aux]:
        """Return the query loss, which depends on no parameter."""
        outputs = self.predict(episode.support, episode.query.x)
        loss = self.objective.loss(outputs, episode.query.y, episode.query.mask)
        return loss, Aux.of({"loss": loss}, {})

    update_state = same_state
