"""Scores from the outputs of a learner: which inner steps are scored, and the figures of each query."""

from __future__ import annotations

from typing import Any

import torch
from torch import Tensor

from metarun.errors import UserError, counted
from metarun.objectives import Objective
from metarun.types import Adapted, Examples, Learner, Params, State, WithTrajectory

BY_STEP = ("all", "thin", "last")
"""The inner steps to score. "all": every step. "thin": 0, 1, 2, 5, 10, 20, … and the last, to save time. "last": the last alone."""


class OfChunks:
    """A function of chunks of episodes. A runner records equal functions once: those of one class, algorithm and choice of figures."""

    what = "the evaluation"

    def __init__(self, algorithm: Learner, **asked: Any) -> None:
        self.algorithm, self.asked = algorithm, asked

    def __eq__(self, other: object) -> bool:
        if not isinstance(other, OfChunks) or type(other) is not type(self):
            return False
        return self.algorithm is other.algorithm and self.asked == other.asked

    def __hash__(self) -> int:
        return hash((type(self), id(self.algorithm), *self.asked.values()))


def path_of(algorithm: Learner, params: Params, state: State, support: Examples, key: Tensor) -> list[Adapted]:
    """Return the results before adaptation and after each inner step; for an algorithm without a trajectory, the final result alone."""
    if isinstance(algorithm, WithTrajectory):
        return list(algorithm.trajectory(params, state, support, key))
    return [algorithm.adapt(params, state, support, key)]


def figures_of_steps(objective: Objective, outputs: list[Tensor], steps: list[int], query: Examples) -> dict[str, Tensor]:
    """Return the scores of the outputs after the scored inner steps, with the figures of the last in classification."""
    last = outputs[-1]
    scored = {
        "by_step": torch.stack([objective.score(output, query.y, query.mask) for output in outputs]),
        "steps": torch.tensor(steps, device=query.x.device),
        "finite": (finite_rows(last) | (real_rows(query) == 0)).all().to(query.y.dtype),
    }
    return scored | (classification_figures(objective, last, query) if objective.kind == "classification" else {})


def classification_figures(objective: Objective, logits: Tensor, query: Examples) -> dict[str, Tensor]:
    """Return the negative log-likelihood, the entropy of the predictions, and the figures of each query for the calibration error.

    A query with a logit that is not finite is a wrong answer of confidence 1.
    """
    probabilities = logits.softmax(dim=-1)
    confidence, guess = probabilities.max(dim=-1)
    finite = finite_rows(logits)
    right = torch.where(finite, query.y.gather(-1, guess[:, None])[:, 0], 0.0)
    confidence = torch.where(finite, confidence, 1.0)
    real = real_rows(query)
    entropy = torch.special.entr(probabilities).sum(dim=-1)
    spread = torch.where(real > 0, entropy, 0.0).sum() / real.sum().clamp(min=1)
    return {"nll": objective.loss(logits, query.y, query.mask), "spread": spread, "confidence": confidence, "right": right, "real": real}


def baseline_of(objective: Objective, support: Examples, query: Examples) -> Tensor:
    """Return the score of predicting the mean support target for each query."""
    weight = real_rows(support)[:, None]
    mean = (support.y * weight).sum(dim=0) / weight.sum().clamp(min=1)
    return objective.score(mean.expand_as(query.y), query.y, query.mask)


def finite_rows(outputs: Tensor) -> Tensor:
    """Return which rows of outputs (B, N) or (B, D) are finite, (B,) bool."""
    return outputs.isfinite().all(dim=-1)


def real_rows(examples: Examples) -> Tensor:
    """Return 1 for each real row and 0 for padding, (B,)."""
    return torch.ones_like(examples.y[:, 0]) if examples.mask is None else examples.mask.to(examples.y.dtype)


def scored_steps(last: int, by_step: str, inner_step: int | None = None) -> list[int]:
    """Return the numbers of the inner steps to score, out of 0 … last.

    by_step: one of `BY_STEP`. inner_step: a step to score besides; UserError where it is above `last`.
    """
    if inner_step is not None and inner_step > last:
        asked = counted(inner_step, "inner step")
        raise UserError(f"the score after {asked} is asked for, but the algorithm takes {last} at validation and test.")
    if by_step == "all":
        return list(range(last + 1))
    round_numbers = {0} | {digit * 10**power for power in range(6) for digit in (1, 2, 5)} if by_step == "thin" else set()
    return sorted(step for step in round_numbers | {last, last if inner_step is None else inner_step} if step <= last)
