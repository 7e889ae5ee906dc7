"""Scores on numbered episodes, with their uncertainty. Evaluation never changes a parameter or a state."""

from __future__ import annotations

from collections.abc import Callable
from dataclasses import dataclass
from typing import Any

import torch
from torch import Tensor

from metarun import draws
from metarun.compute.plan import Plan
from metarun.compute.running import Runner
from metarun.engine.likelihood import has_fitted_variance, regression_figures, samples_of
from metarun.engine.report import Report, summarise
from metarun.engine.units import errors_by_target, units_of
from metarun.episodes import deal
from metarun.errors import UserError
from metarun.functional import map_tasks
from metarun.objectives import Objective
from metarun.predictive import fit_variance
from metarun.types import (
    Adapted,
    Episode,
    Examples,
    Learner,
    Params,
    State,
    TaskSource,
    WithPresentations,
    WithTrajectory,
)

BY_STEP = ("all", "thin", "last")
"""The inner steps to score. "all": every step. "thin": 0, 1, 2, 5, 10, 20, … and the last, to save time. "last": the last alone."""
BLOCK = 4
"""The number of chunks of episodes to deal at once, for each worker."""


def evaluate(
    algorithm: Learner,
    params: Params,
    state: State,
    source: TaskSource,
    *,
    split: str,
    episodes: int,
    seed: int = 0,
    runner: Runner | None = None,
    by_step: str = "all",
    inner_step: int | None = None,
    variance: float | None = None,
    device: torch.device | str = "cpu",
    runs: int = 1,
    progress: Callable[[int], None] | None = None,
) -> Report:
    """Adapt to and score the first `episodes` episodes of a split.

    runner: runs chunks of episodes; the default maps a few at a time. by_step: one of `BY_STEP`. inner_step: another inner step to score;
    UserError where the algorithm takes fewer steps. variance: of a regression's observations, from `observation_variance`. Without it, a
    regression has a likelihood only if the algorithm returns a distribution. runs: about how many evaluations the caller makes with this
    runner. progress: `evaluate` calls it with the number of episodes done.
    """
    observations = None if variance is None else torch.tensor(variance, device=device)
    episodes_of = Episodes(source, split, episodes, seed, device)
    units = units_of(source)
    score = TaskScores(algorithm, by_step, inner_step, units is not None)
    scored = episodes_of.map(score, (params, state, observations), runner or Runner(Plan()), runs, progress)
    return summarise(algorithm.objective, scored, variance, units)


def observation_variance(
    algorithm: Learner,
    params: Params,
    state: State,
    source: TaskSource,
    *,
    split: str = "val",
    episodes: int,
    seed: int = 0,
    runner: Runner | None = None,
    device: torch.device | str = "cpu",
    runs: int = 1,
) -> float | None:
    """Return the maximum-likelihood variance of the observations around the predictions on these episodes.

    None in classification, for an algorithm that returns a distribution instead, and without a usable query. The fit uses the predictions
    after the last inner step, so another number of steps needs another call. runs: about how many fits the caller makes with this runner.
    """
    if algorithm.objective.kind != "regression" or not has_fitted_variance(algorithm):
        return None
    episodes_of = Episodes(source, split, episodes, seed, device)
    results = episodes_of.map(SquaredErrors(algorithm), (params, state), runner or Runner(Plan()), runs)
    squared = results["squared"].double().movedim(1, 2).flatten(0, 1)  # every query of every episode, (M, S, D)
    usable = (results["real"].flatten() > 0) & squared.isfinite().all(dim=(1, 2))
    return float(fit_variance(squared[usable])) if usable.any() else None


class SquaredErrors:
    """The squared errors of each query of a chunk of episodes. Objects with the same algorithm are equal, so a runner records one."""

    def __init__(self, algorithm: Learner) -> None:
        self.algorithm = algorithm

    def __call__(self, shared: tuple[Params, State], chunk: tuple[Episode, Tensor]) -> dict[str, Tensor]:
        """Return the errors (T, S, Q, D) of the S samples of the algorithm, and which queries are real (T, Q)."""

        def one(episode: Episode, key: Tensor) -> dict[str, Tensor]:
            support, query = episode
            samples = samples_of(self.algorithm, self.algorithm.adapt(*shared, support, key), query)
            return {"squared": (query.y - samples).square(), "real": _real(query)}

        errors: dict[str, Tensor] = map_tasks(one, *chunk)
        return errors

    def __eq__(self, other: object) -> bool:
        return isinstance(other, SquaredErrors) and self.algorithm is other.algorithm

    def __hash__(self) -> int:
        return hash((SquaredErrors, id(self.algorithm)))


class TaskScores:
    """`score_episode` over a chunk of episodes. Objects with the same algorithm and steps are equal, so a runner records one."""

    def __init__(self, algorithm: Learner, by_step: str, inner_step: int | None = None, by_target: bool = False) -> None:
        self.algorithm = algorithm
        self.asked: dict[str, Any] = {"by_step": by_step, "inner_step": inner_step, "by_target": by_target}

    def __call__(self, shared: tuple[Params, State, Tensor | None], chunk: tuple[Episode, Tensor]) -> dict[str, Tensor]:
        """Return the scores of a chunk. shared: params, state and the variance of the observations. chunk: episodes and keys."""
        params, state, variance = shared

        def one(episode: Episode, key: Tensor) -> dict[str, Tensor]:
            return score_episode(self.algorithm, params, state, episode, key, **self.asked, variance=variance)

        scores: dict[str, Tensor] = map_tasks(one, *chunk)
        return scores

    def __eq__(self, other: object) -> bool:
        return isinstance(other, TaskScores) and self.algorithm is other.algorithm and self.asked == other.asked

    def __hash__(self) -> int:
        return hash((id(self.algorithm), *self.asked.values()))


@dataclass(frozen=True)
class Episodes:
    """The first `count` episodes of a split, with the random draws of evaluation seed `seed`."""

    source: TaskSource
    split: str
    count: int
    seed: int
    device: torch.device | str

    def map(
        self,
        function: Callable[[Any, Any], dict[str, Tensor]],
        shared: Any,
        runner: Runner,
        runs: int = 1,
        progress: Callable[[int], None] | None = None,
    ) -> dict[str, Tensor]:
        """Return the results of `function(shared, (episodes, keys))` for all episodes, with a leading axis T, on the CPU."""
        parts: list[dict[str, Tensor]] = []
        blocks = torch.arange(self.count).split(runner.plan.chunk * runner.plan.workers * BLOCK)
        dealt = ((deal(self.source, self.split, block, self.device), self._keys(block)) for block in blocks)
        done = 0
        with torch.no_grad():
            for results in runner.map(function, shared, dealt, runs=len(blocks) * runs):
                parts.append({name: value.cpu() for name, value in results.items()})
                done += len(next(iter(results.values())))
                if progress is not None:
                    progress(done)
        return {name: torch.cat([part[name] for part in parts]) for name in parts[0]}

    def _keys(self, indices: Tensor) -> Tensor:
        return draws.key(self.seed, "evaluate", self.split, indices).to(self.device)


def score_episode(
    algorithm: Learner,
    params: Params,
    state: State,
    episode: Episode,
    key: Tensor,
    *,
    by_step: str = "all",
    inner_step: int | None = None,
    variance: Tensor | None = None,
    by_target: bool = False,
) -> dict[str, Tensor]:
    """Return, by name, the tensors of one episode that `summarise` combines.

    "by_step": the scores after the scored inner steps (S,). "steps": the numbers of these steps (S,). The other names depend on the kind
    of task and of algorithm.
    """
    support, query = episode
    path = path_of(algorithm, params, state, support, key)
    steps = scored_steps(len(path) - 1, by_step, inner_step)
    outputs = [algorithm.predict(path[step], query.x, query.mask) for step in steps]
    scored = {
        "by_step": torch.stack([algorithm.objective.score(output, query.y, query.mask) for output in outputs]),
        "steps": torch.tensor(steps, device=query.x.device),
        "finite": (_finite_rows(outputs[-1]) | (_real(query) == 0)).all().to(query.y.dtype),
    }
    if isinstance(algorithm, WithPresentations):
        right, presented = algorithm.by_presentation(params, state, episode, key)
        scored |= {"right_by_presentation": right, "presented": presented}
    if algorithm.objective.kind == "classification":
        return scored | _of_classification(algorithm.objective, outputs[-1], query)
    scored["baseline"] = _baseline(algorithm.objective, support, query)
    scored |= errors_by_target(outputs[-1], query) if by_target else {}
    return scored | regression_figures(algorithm, path[-1], query, outputs[-1], variance)


def path_of(algorithm: Learner, params: Params, state: State, support: Examples, key: Tensor) -> list[Adapted]:
    """Return the results before adaptation and after each inner step; for an algorithm without a trajectory, the final result alone."""
    if isinstance(algorithm, WithTrajectory):
        return list(algorithm.trajectory(params, state, support, key))
    return [algorithm.adapt(params, state, support, key)]


def _of_classification(objective: Objective, logits: Tensor, query: Examples) -> dict[str, Tensor]:
    """Return the negative log-likelihood, the entropy of the predictions, and the figures of each query for the calibration error.

    A query with a logit that is not finite is a wrong answer of confidence 1.
    """
    probabilities = logits.softmax(dim=-1)
    confidence, guess = probabilities.max(dim=-1)
    finite = _finite_rows(logits)
    right = torch.where(finite, query.y.gather(-1, guess[:, None])[:, 0], 0.0)
    confidence = torch.where(finite, confidence, 1.0)
    real = _real(query)
    entropy = torch.special.entr(probabilities).sum(dim=-1)
    spread = torch.where(real > 0, entropy, 0.0).sum() / real.sum().clamp(min=1)
    return {"nll": objective.loss(logits, query.y, query.mask), "spread": spread, "confidence": confidence, "right": right, "real": real}


def _baseline(objective: Objective, support: Examples, query: Examples) -> Tensor:
    """Return the score of predicting the mean support target for each query."""
    weight = _real(support)[:, None]
    mean = (support.y * weight).sum(dim=0) / weight.sum().clamp(min=1)
    return objective.score(mean.expand_as(query.y), query.y, query.mask)


def _finite_rows(outputs: Tensor) -> Tensor:
    """Return which rows of outputs (B, N) or (B, D) are finite, (B,) bool."""
    return outputs.isfinite().all(dim=-1)


def _real(examples: Examples) -> Tensor:
    """Return 1 for each real row and 0 for padding, (B,)."""
    return torch.ones_like(examples.y[:, 0]) if examples.mask is None else examples.mask.to(examples.y.dtype)


def scored_steps(last: int, by_step: str, inner_step: int | None = None) -> list[int]:
    """Return the numbers of the inner steps to score, out of 0 … last.

    by_step: one of `BY_STEP`. inner_step: a step to score besides; UserError where it is above `last`.
    """
    if inner_step is not None and inner_step > last:
        raise UserError(f"the score after {inner_step} inner steps is asked for, but the algorithm takes {last} at validation and test.")
    if by_step == "all":
        return list(range(last + 1))
    round_numbers = {0} | {digit * 10**power for power in range(6) for digit in (1, 2, 5)} if by_step == "thin" else set()
    return sorted(step for step in round_numbers | {last, last if inner_step is None else inner_step} if step <= last)
