"""The outputs of a network as a mixture of Gaussians for each example, and the members of algorithms that return such a mixture.

Bishop, "Mixture density networks", 1994. For K components and D targets, a network has K (1 + 2 D) outputs for each example:

    w_k = softmax over k of the first K,    m_kd = the next K D,    √v_kd = s + (1 - s) softplus(the last K D)

s is the least standard deviation. This form of √v is that of the released code of conditional neural processes.
"""

from __future__ import annotations

from typing import Any, Protocol

import torch
import torch.nn.functional as F
from torch import Tensor

from metarun.objectives import Objective
from metarun.predictive import Predictive, mean, nll
from metarun.types import Aux, Examples


class _HasDistribution(Protocol):
    @property
    def objective(self) -> Objective: ...

    def distribution(self, adapted: Any, x: Tensor, mask: Tensor | None = None) -> Predictive: ...


def density_size(components: int, targets: int) -> int:
    """Return the number of outputs that a network needs."""
    return components * (1 + 2 * targets)


def densities(outputs: Tensor, components: int, min_std: float) -> Predictive:
    """Return the mixtures of outputs (B, K (1 + 2 D)): one hypothesis, K components."""
    logits, parts = outputs[:, :components], outputs[:, components:].unflatten(1, (2, components, -1))
    means, raw = parts.movedim(0, 2).unbind(0)  # (K, B, D) each
    std = min_std + (1.0 - min_std) * F.softplus(raw)
    return Predictive(means[None], std.square()[None], logits.log_softmax(dim=1).T[None])


def mean_of_distribution(self: _HasDistribution, adapted: Any, x: Tensor, mask: Tensor | None = None) -> Tensor:
    """Return the mean of the distribution, (B, D). For `predict`."""
    return mean(self.distribution(adapted, x, mask))


def distribution_loss(algorithm: _HasDistribution, adapted: Any, query: Examples) -> tuple[Tensor, Aux]:
    """Return the mean negative log-likelihood of the queries, in nats, and the report of loss and score."""
    predicted = algorithm.distribution(adapted, query.x, query.mask)
    loss = nll(predicted, query.y, query.mask)
    objective = algorithm.objective
    return loss, Aux.of({"loss": loss, objective.metric: objective.score(mean(predicted), query.y, query.mask)}, {})


def points(x: Tensor, y: Tensor | None, targets: int, mask: Tensor | None) -> Tensor:
    """Return the rows [x, y] (B, D + targets) of examples x (B, ...), with zeros for y None; padding rows are zeros."""
    flat = x.flatten(1)
    rows = torch.cat([flat, flat.new_zeros(len(flat), targets) if y is None else y], dim=1)
    return rows if mask is None else torch.where(mask[:, None], rows, 0.0)
