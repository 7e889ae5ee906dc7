"""Weights of one task in closed form, from few examples and a prior: prototypes in classification, linear heads in regression.

Each kind has one row of weights for each column of y: a prototype for each class, or a head for each target.
"""

from __future__ import annotations

from typing import Protocol

import torch
from torch import Tensor

from metarun.algorithms.parts.vectors import with_ones
from metarun.functional import prototypes, squared_distances
from metarun.layers.precision import full_precision
from metarun.network import hide_absent, present_classes
from metarun.types import Examples, Params


class TaskWeights(Protocol):
    """A kind of weights (U, V) of a task, for U columns of y and embeddings z (B, D)."""

    def size(self, features: int) -> int:
        """Return V, the size of one row."""

    def init(self, features: int) -> Params:
        """Return the parameters of the prior that the outer loop learns."""

    def shares(self, y: Tensor) -> Tensor:
        """Return how much each example counts for each column, (B, U)."""

    def prior(self, params: Params, z: Tensor, examples: Examples) -> Tensor:
        """Return the mean of the prior without a memory, (U, V)."""

    def fit(self, params: Params, z: Tensor, examples: Examples, prior: Tensor) -> Tensor:
        """Return the weights fitted to the examples, from this prior."""

    def evidence(self, examples: Examples) -> Tensor | None:
        """Return ln of the number of examples of each column, (U, 1), by which they outweigh a prior; None where `fit` does that."""

    def outputs(self, z: Tensor, weights: Tensor, classes: Tensor | None) -> Tensor:
        """Return the outputs (B, U) of embeddings z; classes: (U,) bool, the present ones, or None for all."""

    def classes(self, examples: Examples) -> Tensor | None:
        """Return which columns have an example, (U,) bool, or None for all."""


class Prototypes:
    """Mean embeddings of the classes; the outputs are minus the squared distances to them."""

    def size(self, features: int) -> int:
        return features

    def init(self, features: int) -> Params:
        return {}

    def shares(self, y: Tensor) -> Tensor:
        return y

    def prior(self, params: Params, z: Tensor, examples: Examples) -> Tensor:
        return prototypes(z, examples.y, examples.mask)

    def fit(self, params: Params, z: Tensor, examples: Examples, prior: Tensor) -> Tensor:
        return prior  # a mean of examples and a Gaussian prior is a weighted mean of the two, which the gate computes

    def evidence(self, examples: Examples) -> Tensor | None:
        counts = (examples.y if examples.mask is None else examples.y * examples.mask[:, None]).sum(dim=0)
        return counts.clamp(min=1).log()[:, None]

    def outputs(self, z: Tensor, weights: Tensor, classes: Tensor | None) -> Tensor:
        return hide_absent(-squared_distances(z, weights), classes)

    def classes(self, examples: Examples) -> Tensor | None:
        return present_classes(examples)


class RidgeHeads:
    """Linear heads with a bias: ridge regression from a learned prior mean with a learned strength."""

    def size(self, features: int) -> int:
        return features + 1

    def init(self, features: int) -> Params:
        return {"prior": torch.zeros(features + 1), "log_strength": torch.zeros(())}

    def shares(self, y: Tensor) -> Tensor:
        return torch.ones_like(y)

    def prior(self, params: Params, z: Tensor, examples: Examples) -> Tensor:
        return params["prior"].expand(examples.y.shape[1], -1)

    def fit(self, params: Params, z: Tensor, examples: Examples, prior: Tensor) -> Tensor:
        return ridge(with_ones(z), examples.y, examples.mask, prior, params["log_strength"].exp())

    def evidence(self, examples: Examples) -> Tensor | None:
        return None

    def outputs(self, z: Tensor, weights: Tensor, classes: Tensor | None) -> Tensor:
        with full_precision(z):
            return with_ones(z) @ weights.T

    def classes(self, examples: Examples) -> Tensor | None:
        return None


KINDS: dict[str, TaskWeights] = {"classification": Prototypes(), "regression": RidgeHeads()}
"""The weights of a task, by the kind of its objective."""


def ridge(z: Tensor, y: Tensor, mask: Tensor | None, prior: Tensor, strength: Tensor) -> Tensor:
    """Return the heads (U, V) that minimise |y - z wᵀ|² + strength |w - prior|², from z (B, V), y (B, U) and prior (U, V)."""
    if mask is not None:
        z, y = torch.where(mask[:, None], z, 0.0), torch.where(mask[:, None], y, 0.0)
    with full_precision(z):  # bfloat16 has no solver, and is too coarse for the system
        gram = z @ z.T + strength * torch.eye(len(z), dtype=z.dtype, device=z.device)
        return prior + torch.linalg.solve(gram, y - z @ prior.T).T @ z
