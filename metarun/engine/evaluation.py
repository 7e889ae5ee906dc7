"""Scores on numbered episodes, with their uncertainty. Evaluation never changes a parameter or a state."""

from __future__ import annotations

from collections.abc import Callable, Iterator
from dataclasses import dataclass
from typing import Any

import torch
from torch import Tensor

from metarun import draws
from metarun.compute.plan import Plan
from metarun.compute.running import Runner
from metarun.engine.families import families_of
from metarun.engine.likelihood import has_fitted_variance, regression_figures, samples_of
from metarun.engine.outputs import OfChunks, baseline_of, figures_of_steps, path_of, real_rows, scored_steps
from metarun.engine.recommending.report import CatalogueScores, with_ratings
from metarun.engine.report import Report, summarise
from metarun.engine.streams import Model, evaluate_streams
from metarun.engine.units import errors_by_target, units_of
from metarun.episodes import deal
from metarun.functional import map_tasks
from metarun.layers.precision import at_least_float32
from metarun.predictive import fit_variance
from metarun.processes.ranks import ONE
from metarun.processes.shares import chunks_of, placed
from metarun.types import (
    Episode,
    Learner,
    Params,
    State,
    TaskSource,
    WithPresentations,
    WithRatings,
)
from metarun.types.streams import WithTrajectories

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
    rankings: bool = False,
) -> Report:
    """Adapt to and score the first `episodes` episodes of a split, or follow that many trajectories (`metarun.engine.streams`).

    runner: runs chunks of episodes; the default maps a few at a time. by_step: one of `metarun.engine.outputs.BY_STEP`.
    inner_step: another inner step to score; UserError if the algorithm takes fewer steps. variance: of the observations in regression, from
    `observation_variance`. Without it, a regression has a likelihood only if the algorithm returns a distribution. runs: about how many
    evaluations the caller makes with this runner. progress: called with the number of episodes done. rankings: whether to rank all items.
    """
    if isinstance(source, WithTrajectories):
        same: dict[str, Any] = {"by_step": by_step, "inner_step": inner_step, "device": device, "progress": progress}
        same |= {"split": split, "episodes": episodes, "seed": seed, "ranks": ONE if runner is None else runner.ranks}
        return evaluate_streams(Model(algorithm, params, state), source, **same)
    observations = None if variance is None else torch.tensor(variance, device=device)
    episodes_of = Episodes(source, split, episodes, seed, device)
    units = units_of(source)
    score, runner = TaskScores(algorithm, by_step, inner_step, units is not None, isinstance(source, WithRatings)), runner or Runner(Plan())
    scored = episodes_of.map(score, (params, state, observations), runner, runs, progress)
    report = summarise(algorithm.objective, scored, variance, units, families_of(source, split, episodes))
    if isinstance(source, WithRatings):
        shared = (params, state, source.item_inputs().to(device))
        catalogue = episodes_of.map(CatalogueScores(algorithm), shared, runner, runs)["catalogue"] if rankings else None
        return with_ratings(report, source, split, scored["outputs"], catalogue)
    return report


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

    Return None in classification, on trajectories, if the algorithm returns a distribution itself, or if no query is usable. The fit uses
    the predictions after the last inner step, so another number of steps needs another call. runs: about how many fits the caller makes
    with this runner.
    """
    fits = algorithm.objective.kind == "regression" and has_fitted_variance(algorithm) and not isinstance(source, WithTrajectories)
    if not fits:
        return None
    episodes_of = Episodes(source, split, episodes, seed, device)
    results = episodes_of.map(SquaredErrors(algorithm), (params, state), runner or Runner(Plan()), runs)
    squared = results["squared"].double().movedim(1, 2).flatten(0, 1)  # every query of every episode, (M, S, D)
    usable = (results["real"].flatten() > 0) & squared.isfinite().all(dim=(1, 2))
    return float(fit_variance(squared[usable])) if usable.any() else None


class SquaredErrors(OfChunks):
    """The squared errors of each query of a chunk of episodes."""

    def __call__(self, shared: tuple[Params, State], chunk: tuple[Episode, Tensor]) -> dict[str, Tensor]:
        """Return the errors (T, S, Q, D) of the S samples of the algorithm, and which queries are real (T, Q)."""

        def one(episode: Episode, key: Tensor) -> dict[str, Tensor]:
            support, query = episode
            samples = samples_of(self.algorithm, self.algorithm.adapt(*shared, support, key), query)
            return {"squared": (query.y - samples).square(), "real": real_rows(query)}

        errors: dict[str, Tensor] = map_tasks(one, *chunk)
        return errors


class TaskScores(OfChunks):
    """`score_episode` over a chunk of episodes."""

    def __init__(
        self, algorithm: Learner, by_step: str, inner_step: int | None = None, by_target: bool = False, outputs: bool = False
    ) -> None:
        super().__init__(algorithm, by_step=by_step, inner_step=inner_step, by_target=by_target, keep=outputs)

    def __call__(self, shared: tuple[Params, State, Tensor | None], chunk: tuple[Episode, Tensor]) -> dict[str, Tensor]:
        """Return the scores of a chunk. shared: params, state and the variance of the observations. chunk: episodes and keys."""
        params, state, variance = shared

        def one(episode: Episode, key: Tensor) -> dict[str, Tensor]:
            return score_episode(self.algorithm, params, state, episode, key, **self.asked, variance=variance)

        scores: dict[str, Tensor] = map_tasks(one, *chunk)
        return scores


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
        shares, done = runner.shares(self.count), 0
        dealt = self._dealt(shares[runner.ranks.rank], runner.plan.chunk * runner.plan.workers * BLOCK)
        with torch.no_grad():
            for results in runner.map(function, shared, dealt, chunks=chunks_of(self.count, runner.plan.chunk) * runs):
                parts.append({name: value.cpu() for name, value in results.items()})
                done += len(next(iter(results.values())))
                if progress is not None:
                    progress(done * self.count // len(shares[runner.ranks.rank]))
        rows = {name: torch.cat([part[name] for part in parts]) for name in parts[0]} if parts else None
        gathered: dict[str, Tensor] = runner.ranks.gather(rows, [len(share) for share in shares])
        return gathered

    def _dealt(self, share: range, block: int) -> Iterator[tuple[Episode, Tensor]]:
        """For each block of `block` episodes, yield those episodes that are in this process's share, with their keys."""
        for start in range(0, self.count, block):
            first, end = max(start, share.start), min(start + block, share.stop)
            if first < end:
                indices = torch.arange(first, end)
                yield placed((deal(self.source, self.split, indices, self.device), self._keys(indices)), first - start)

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
    keep: bool = False,
) -> dict[str, Tensor]:
    """Return, by name, the tensors of one episode that `summarise` combines.

    "by_step": the scores after the scored inner steps (S,). "steps": the numbers of these steps (S,). The other names depend on the kind
    of task and of algorithm. keep: whether to return "outputs" too, the outputs (Q,) of a single target after the last inner step.
    """
    support, query = episode
    path = path_of(algorithm, params, state, support, key)
    steps = scored_steps(len(path) - 1, by_step, inner_step)
    outputs = [at_least_float32(algorithm.predict(path[step], query.x, query.mask)) for step in steps]
    scored = figures_of_steps(algorithm.objective, outputs, steps, query)
    if isinstance(algorithm, WithPresentations):
        right, presented = algorithm.by_presentation(params, state, episode, key)
        scored |= {"right_by_presentation": right, "presented": presented}
    if algorithm.objective.kind == "classification":
        return scored
    scored["baseline"] = baseline_of(algorithm.objective, support, query)
    scored |= errors_by_target(outputs[-1], query) if by_target else {}
    scored |= {"outputs": outputs[-1][:, 0]} if keep else {}
    return scored | regression_figures(algorithm, path[-1], query, outputs[-1], variance)
