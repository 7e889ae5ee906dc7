"""Objectives of a task, classification or regression: loss and score from outputs and targets.

Every function takes one task and works inside `torch.func.vmap` and `torch.func.grad` to any order. It leaves out the rows where `mask`
is False: the content of such a row changes neither value nor gradient.
"""

from __future__ import annotations

import math
from dataclasses import dataclass
from typing import Protocol

import torch
import torch.nn.functional as F
from torch import Tensor

from metarun.errors import UserError, nearest
from metarun.layers.precision import at_least_float32


class Objective(Protocol):
    """The loss and the score of a kind of task.

    kind: "classification" or "regression". metric: the name of the score, "accuracy" or "mse".
    higher_is_better: True where a larger score is better.
    """

    @property
    def kind(self) -> str: ...

    @property
    def metric(self) -> str: ...

    @property
    def higher_is_better(self) -> bool: ...

    def loss(self, outputs: Tensor, y: Tensor, mask: Tensor | None = None) -> Tensor:
        """Return the mean loss over the real rows, a scalar. outputs and y: (B, N) or (B, D); mask: (B,) bool."""

    def score(self, outputs: Tensor, y: Tensor, mask: Tensor | None = None) -> Tensor:
        """Return the metric over the real rows, a scalar. An output that is not finite never looks good.

        In classification a row with such an output is a wrong answer. In regression the score of its task is not finite.
        """

    def shot_scale(self, y: Tensor, mask: Tensor | None = None) -> Tensor:
        """Return the factor from the mean loss to "sum over examples / shots", the scale of MAML's released code.

        Its cross entropy divides a vector of N*K losses by K and sums it (`cbfinn/maml` utils.py `xent`), so the factor is the
        number of classes present. Its mean squared error is a mean already, so the factor is 1.
        """


@dataclass(frozen=True)
class Classification:
    """Cross entropy of logits (B, N) with one-hot y (B, N), and accuracy in [0, 1].

    In a padded episode, the logit of an absent class may be as low as -1e9.
    """

    kind: str = "classification"
    metric: str = "accuracy"
    higher_is_better: bool = True

    def loss(self, outputs: Tensor, y: Tensor, mask: Tensor | None = None) -> Tensor:
        """Return the mean over the real rows of -sum(y * log softmax(outputs)), in nats."""
        outputs, y = _real(outputs, y, mask)
        return _mean(-(y * F.log_softmax(outputs, dim=-1)).sum(dim=-1), mask)

    def score(self, outputs: Tensor, y: Tensor, mask: Tensor | None = None) -> Tensor:
        """Return the share of real rows with finite outputs and the largest output at their class."""
        outputs, y = _real(outputs, y, mask)
        hit = (outputs.argmax(dim=-1) == y.argmax(dim=-1)) & outputs.isfinite().all(dim=-1)
        return _mean(hit.to(outputs.dtype), mask)

    def shot_scale(self, y: Tensor, mask: Tensor | None = None) -> Tensor:
        """Return the number of classes that have a real row."""
        present = y if mask is None else torch.where(mask[:, None], y, 0.0)
        return (present.sum(dim=0) > 0).sum().to(y.dtype)


@dataclass(frozen=True)
class Regression:
    """Squared error between outputs (B, D) and targets (B, D), averaged over D and the real rows; loss and score are the same."""

    kind: str = "regression"
    metric: str = "mse"
    higher_is_better: bool = False

    def loss(self, outputs: Tensor, y: Tensor, mask: Tensor | None = None) -> Tensor:
        """Return the mean squared error."""
        outputs, y = _real(outputs, y, mask)
        return _mean((outputs - y).square().mean(dim=-1), mask)

    def score(self, outputs: Tensor, y: Tensor, mask: Tensor | None = None) -> Tensor:
        """Return the mean squared error."""
        return self.loss(outputs, y, mask)

    def shot_scale(self, y: Tensor, mask: Tensor | None = None) -> Tensor:
        """Return 1."""
        return torch.ones((), dtype=y.dtype, device=y.device)


CLASSIFICATION = Classification()
REGRESSION = Regression()


def objective(kind: str) -> Objective:
    """Return the objective of a kind of task; raises `UserError` for an unknown kind."""
    known: dict[str, Objective] = {each.kind: each for each in (CLASSIFICATION, REGRESSION)}
    if kind not in known:
        raise UserError(f"a task's objective is {' or '.join(known)}, not '{kind}'.{nearest(kind, known)}")
    return known[kind]


def _real(outputs: Tensor, y: Tensor, mask: Tensor | None) -> tuple[Tensor, Tensor]:
    """Put zeros into the padding rows before any computation: 0 * inf in a later backward pass is NaN."""
    if outputs.shape != y.shape:
        # Broadcasting (B,) against (B, 1) gives a (B, B) error, which trains badly and silently.
        raise ValueError(f"outputs of shape {tuple(outputs.shape)} do not fit targets of shape {tuple(y.shape)}")
    outputs = at_least_float32(outputs)
    if mask is None:
        return outputs, y
    return torch.where(mask[:, None], outputs, 0.0), torch.where(mask[:, None], y, 0.0)


def _mean(rows: Tensor, mask: Tensor | None) -> Tensor:
    if mask is None:
        return rows.mean()
    return torch.where(mask, rows, 0.0).sum() / mask.sum().clamp(min=1)


def error(metric: str, score: float | None) -> float:
    """Return the error that a sweeper minimises: 1 - accuracy, or a regression's own error; infinity without a finite score."""
    if score is None or not math.isfinite(score):
        return math.inf
    higher_is_better = any(each.higher_is_better for each in (CLASSIFICATION, REGRESSION) if each.metric == metric)
    return 1.0 - score if higher_is_better else score
