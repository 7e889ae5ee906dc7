"""R2-D2: ridge regression on embeddings, solved for each task in closed form. The outer gradient runs through the solution.

Luca Bertinetto, João F. Henriques, Philip H. S. Torr, Andrea Vedaldi. "Meta-learning with differentiable closed-form solvers", ICLR 2019.
https://arxiv.org/abs/1805.08136

    W = argmin over W of |Z W - Y|²/B + λ |W|²  =  (ZᵀZ + BλI)⁻¹ ZᵀY  =  Zᵀ (ZZᵀ + BλI)⁻¹ Y        (section 3.2)
    p(n | x) = softmax over n of α (z(x) W)_n + β                                                   (section 3.2, last paragraph)

Z (B, D+1) holds the B support embeddings with a column of ones, Y (B, N) their one-hot labels. The second form is the Woodbury identity:
with few examples it inverts a matrix of B rows instead of D+1. The outer loop learns λ (as its logarithm), α and β with the backbone. As
in the released code (https://github.com/bertinetto/r2d2), the squared error is a mean, not a sum, and λ weighs the bias too; by default
that code keeps λ at 50. Its outer rate is 5e-3 and halves every 2,000 episodes. MAML takes steps towards a good head, ProtoNet computes
one without fitting, and R2-D2 solves for the best one.
"""

from __future__ import annotations

import math
from dataclasses import dataclass
from typing import ClassVar, NamedTuple

import torch
from torch import Tensor

from metarun.algorithms.parts.members import check_positive, track_running
from metarun.algorithms.parts.vectors import with_ones
from metarun.layers.precision import full_precision
from metarun.network import Fitted, Network, hide_absent, present_classes, query_loss
from metarun.objectives import Objective
from metarun.types import Aux, Episode, Examples, Params, State, Traits
from metarun.values import Positive

LOG_STRENGTH, SCALE, BIAS = "ridge.log_strength", "ridge.scale", "ridge.bias"


class Solved(NamedTuple):
    """weights: W (D+1, N). network: the embedding and the head's own parameters. classes: (N,) bool, the present ones, or None for all."""

    weights: Tensor
    network: Fitted
    classes: Tensor | None


@dataclass(frozen=True)
class R2D2:
    """R2-D2.

    strength: λ at the start. learn_strength: learn λ. scale: α at the start. β starts at 0. All classes share β, as in the paper, so it
        changes no probability.

    In training with norm=batch or norm=running, support and query go through the backbone in one pass.
    """

    network: Network
    objective: Objective
    strength: Positive = 50.0
    learn_strength: bool = True
    scale: Positive = 10.0
    traits: ClassVar[Traits] = Traits(head=False, adapts_backbone=False, objectives=("classification",))

    def __post_init__(self) -> None:
        check_positive(self, "strength")

    def init(self, key: Tensor) -> tuple[Params, State]:
        """Return the backbone's parameters and running statistics, and λ (as its logarithm), α and β."""
        params, state = self.network.init()
        if self.learn_strength:
            params[LOG_STRENGTH] = torch.tensor(math.log(self.strength))
        return params | {SCALE: torch.tensor(self.scale), BIAS: torch.tensor(0.0)}, state

    def adapt(self, params: Params, state: State, support: Examples, key: Tensor, *, training: bool = False) -> Solved:
        """Return the ridge regression of a support set."""
        embeddings = self.network.on_support(params, state, support, training=training)
        return self._solve(embeddings, support, self.network.fit(params, state, support, training=training))

    def predict(self, adapted: Solved, x: Tensor, mask: Tensor | None = None) -> Tensor:
        """Return the logits (B, N): the scaled outputs of the regression."""
        return _logits(adapted, self.network.on_query(adapted.network, x, mask)[0])

    def loss(self, params: Params, state: State, episode: Episode, key: Tensor, step: Tensor) -> tuple[Tensor, Aux]:
        """Return the cross entropy of the query examples under the support set's regression."""
        support, query = episode
        known, asked, statistics = self.network.on_episode(params, state, episode)
        logits = _logits(self._solve(known, support, Fitted(params, {}, None, None)), asked)
        return query_loss(self.objective, logits, statistics, query)

    def _solve(self, embeddings: Tensor, support: Examples, network: Fitted) -> Solved:
        strength = network.params[LOG_STRENGTH].exp() if self.learn_strength else self.strength
        return Solved(ridge(with_ones(embeddings), support.y, strength, support.mask), network, present_classes(support))

    update_state = track_running


def ridge(z: Tensor, y: Tensor, strength: Tensor | float, mask: Tensor | None = None) -> Tensor:
    """Return the W (D, N) that minimises |zW - y|²/B + strength |W|² over the B real rows of z (B, D) and y (B, N)."""
    if mask is not None:  # a row of zeros adds nothing to the products, and its own equation is W·0 = 0
        z, y = torch.where(mask[:, None], z, 0.0), torch.where(mask[:, None], y, 0.0)
    rows, width = z.shape
    count = rows if mask is None else mask.sum()
    dual = rows < width
    with full_precision(z):  # bfloat16 has no solver, and is too coarse for the system
        gram = z @ z.T if dual else z.T @ z
        regular = gram + count * strength * torch.eye(len(gram), dtype=y.dtype, device=y.device)
        return z.T @ torch.linalg.solve(regular, y) if dual else torch.linalg.solve(regular, z.T @ y)


def _logits(adapted: Solved, embeddings: Tensor) -> Tensor:
    params = adapted.network.params
    with full_precision(embeddings):
        outputs = with_ones(embeddings) @ adapted.weights
    return hide_absent(params[SCALE] * outputs + params[BIAS], adapted.classes)
