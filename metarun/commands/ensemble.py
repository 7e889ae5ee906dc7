"""An ensemble: several runs of one algorithm with averaged predictions.

Lakshminarayanan, Pritzel and Blundell, "Simple and scalable predictive uncertainty estimation using deep ensembles", NeurIPS 2017,
https://arxiv.org/abs/1612.01474: networks trained alike from different seeds disagree where the data leave them free. Here each member
adapts to the support set on its own. The prediction is the mean of the outputs in regression, and of the probabilities in
classification. Members that return a distribution give the mixture of their distributions.
"""

from __future__ import annotations

import math
from collections.abc import Sequence
from dataclasses import dataclass

import torch
from torch import Tensor

from metarun.engine.outputs import path_of
from metarun.functional import map_tasks
from metarun.network import Network, network_of
from metarun.objectives import Objective
from metarun.predictive import Predictive, averaged
from metarun.types import Adapted, Examples, Learner, Params, State, Traits, WithDistribution, WithSamples, traits_of


@dataclass(frozen=True)
class Members:
    """Members that differ only in their parameters and state, both with a leading axis M (see `stacked`). For evaluation only.

    The results of adaptation have the leading axis M too.
    """

    member: Learner

    @property
    def objective(self) -> Objective:
        """The objective of the members."""
        return self.member.objective

    @property
    def traits(self) -> Traits:
        """The traits of the members."""
        return traits_of(self.member)

    @property
    def network(self) -> Network | None:
        """The network of the members; None where they have none."""
        return network_of(self.member)

    def adapt(self, params: Params, state: State, support: Examples, key: Tensor, *, training: bool = False) -> Adapted:
        """Return the results of all members; each adapts by itself, with the same noise."""
        return self.trajectory(params, state, support, key)[-1]

    def trajectory(self, params: Params, state: State, support: Examples, key: Tensor) -> list[Adapted]:
        """Return the results of all members before adaptation and after each inner step."""

        def path(params: Params, state: State) -> list[Adapted]:
            return path_of(self.member, params, state, support, key)

        adapted: list[Adapted] = map_tasks(path, params, state)
        return adapted

    def predict(self, adapted: Adapted, x: Tensor, mask: Tensor | None = None) -> Tensor:
        """Return the average over the members."""
        return averaged(self._outputs(adapted, x, mask), self.objective.kind)

    def _outputs(self, adapted: Adapted, x: Tensor, mask: Tensor | None) -> Tensor:
        """Return the outputs of each member (M, B, N), or (M * S, B, N) where one member has S samples."""

        def one(fitted: Adapted) -> Tensor:
            if isinstance(self.member, WithSamples):
                return self.member.sampled(fitted, x, mask)
            return self.member.predict(fitted, x, mask)[None]

        outputs: Tensor = map_tasks(one, adapted)
        return outputs.flatten(0, 1)


class Ensemble(Members):
    """An ensemble of members that predict values or samples; the outputs of all are samples of the ensemble."""

    def sampled(self, adapted: Adapted, x: Tensor, mask: Tensor | None = None) -> Tensor:
        """Return the outputs of each member (M, B, N), or (M * S, B, N) where one member has S samples."""
        return self._outputs(adapted, x, mask)


class DistributionEnsemble(Members):
    """An ensemble of members that return a distribution."""

    def distribution(self, adapted: Adapted, x: Tensor, mask: Tensor | None = None) -> Predictive:
        """Return the equal mixture of the members' distributions, with the hypotheses of all members."""

        def one(fitted: Adapted) -> Predictive:
            assert isinstance(self.member, WithDistribution)
            own = self.member.distribution(fitted, x, mask)
            return own._replace(variance=own.variance.expand_as(own.means))

        every: Predictive = map_tasks(one, adapted)
        priors, members = every.log_priors, len(every.means)
        joined = [None if each is None else each.flatten(0, 1) for each in (*every[:3], priors)]
        mixture = Predictive(*joined)  # type: ignore[arg-type]
        return mixture if priors is None else mixture._replace(log_priors=priors.flatten() - math.log(members))


class SampledDistributionEnsemble(Ensemble, DistributionEnsemble):
    """An ensemble of members that sample networks and know the noise of the observations."""


def ensemble_of(member: Learner) -> Members:
    """Return the ensemble of such members, with the optional methods that they allow."""
    if not isinstance(member, WithDistribution):
        return Ensemble(member)
    return SampledDistributionEnsemble(member) if isinstance(member, WithSamples) else DistributionEnsemble(member)


def stacked(parts: Sequence[dict[str, Tensor]]) -> dict[str, Tensor]:
    """Return the members' tensors by name with a leading axis M."""
    return {name: torch.stack([part[name] for part in parts]) for name in parts[0]}
