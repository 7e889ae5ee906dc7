"""An ensemble: several runs of one algorithm, whose predictions for a task are averaged.

Lakshminarayanan, Pritzel and Blundell, "Simple and scalable predictive uncertainty estimation using deep ensembles", NeurIPS 2017,
https://arxiv.org/abs/1612.01474: networks trained alike from different seeds disagree where the data leave them free. Here each member
adapts to the support set on its own; the prediction is the mean of the outputs in regression, of the probabilities in classification.
"""

from __future__ import annotations

from collections.abc import Sequence
from dataclasses import dataclass
from typing import Any

import torch
from torch import Tensor

from metarun.functional import map_tasks
from metarun.objectives import Objective
from metarun.predictive import averaged
from metarun.types import Adapted, Examples, Learner, Params, State


@dataclass(frozen=True)
class Ensemble:
    """Members that differ in their parameters and state alone, both with a leading axis M (see `stacked`). For evaluation only.

    What a member makes of a support set has that leading axis too.
    """

    member: Learner

    @property
    def objective(self) -> Objective:
        """The members' own."""
        return self.member.objective

    @property
    def network(self) -> Any:
        """The members' own, None where they have none."""
        return getattr(self.member, "network", None)

    def adapt(self, params: Params, state: State, support: Examples, key: Tensor, *, training: bool = False) -> Adapted:
        """Return what the members made of the support set, each by itself and with the same noise."""
        return self.trajectory(params, state, support, key)[-1]

    def trajectory(self, params: Params, state: State, support: Examples, key: Tensor) -> list[Adapted]:
        """Return the same before adaptation and after each inner step."""

        def path(params: Params, state: State) -> list[Adapted]:
            if hasattr(self.member, "trajectory"):
                return list(self.member.trajectory(params, state, support, key))
            return [self.member.adapt(params, state, support, key)]

        adapted: list[Adapted] = map_tasks(path, params, state)
        return adapted

    def sampled(self, adapted: Adapted, x: Tensor, mask: Tensor | None = None) -> Tensor:
        """Return the outputs of each member (M, B, N), or (M * S, B, N) where one member has S samples."""

        def one(fitted: Adapted) -> Tensor:
            if hasattr(self.member, "sampled"):
                samples: Tensor = self.member.sampled(fitted, x, mask)
                return samples
            return self.member.predict(fitted, x, mask)[None]

        outputs: Tensor = map_tasks(one, adapted)
        return outputs.flatten(0, 1)

    def predict(self, adapted: Adapted, x: Tensor, mask: Tensor | None = None) -> Tensor:
        """Return the average over the members."""
        return averaged(self.sampled(adapted, x, mask), self.objective.kind)


def stacked(parts: Sequence[dict[str, Tensor]]) -> dict[str, Tensor]:
    """Return the members' tensors by name with a leading axis M."""
    return {name: torch.stack([part[name] for part in parts]) for name in parts[0]}
