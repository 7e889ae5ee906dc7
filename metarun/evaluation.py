"""Scores on numbered episodes, with their uncertainty. Nothing here changes a parameter or a state."""

from __future__ import annotations

import math
from collections.abc import Callable
from dataclasses import dataclass, field
from typing import Any

import torch
from torch import Tensor

from metarun import draws
from metarun.device import Plan
from metarun.functional import deal, map_tasks
from metarun.objectives import Objective
from metarun.predictive import Predictive, coverage, fit_variance, nll, spread
from metarun.running import Runner
from metarun.types import Adapted, Episode, Examples, Learner, Params, State, TaskSource

DIVERGED_RATIO = 10.0
"""A regression episode has diverged above so many times the error of predicting the mean of its support targets."""
ECE_BINS = 15
BY_STEP = ("all", "thin", "last")
"""Which inner steps are scored: each; 0, 1, 2, 5, 10, 20, … and the last, which is quicker for a long adaptation; the last alone."""
BLOCK = 4
"""Chunks of episodes that are dealt at once, for each worker."""


@dataclass(frozen=True)
class Report:
    """What a set of episodes says of a model.

    metric: "accuracy" in [0, 1], or "mse". mean, median, std: over the episodes whose score is finite; ci95: half the width of
    the 95 % interval of the mean, 1.96 · std / √episodes. diverged: episodes that are not finite or, in regression, worse than
    `DIVERGED_RATIO` times predicting the support mean. by_step: mean score before adaptation and after inner steps, whose numbers
    are `steps`: each one, or a selection (`BY_STEP`).
    nll: mean negative log-likelihood per query, in nats; in regression under `metarun.predictive`'s mixture, None where no variance of the
    observations is known. ece: expected calibration error (Guo et al. 2017), 15 bins pooled over queries; classification only.
    baseline: in regression the mean error of predicting the support mean, else None. scores: per episode, in order.
    coverage90: share of targets inside the central 90 % interval of the prediction; regression with an nll only. spread: how wide the
    predictions are: mean standard deviation in regression, mean entropy in nats in classification. nll_ci95, coverage90_ci95: as ci95.
    variance: of the observations where it was fitted on validation episodes, else None. nlls: per episode, in order.
    by_presentation: accuracy at the n-th presentation of a class, n = 1 …, over all episodes, of an algorithm that reads sequences;
    by_presentation_ci95: as ci95, of the episodes' own accuracies; None for other algorithms.
    """

    metric: str
    mean: float
    ci95: float
    median: float
    std: float
    episodes: int
    diverged: int
    by_step: list[float]
    steps: list[int]
    nll: float | None
    ece: float | None
    baseline: float | None
    scores: list[float] = field(repr=False)
    coverage90: float | None = None
    spread: float | None = None
    nll_ci95: float | None = None
    coverage90_ci95: float | None = None
    variance: float | None = None
    by_presentation: list[float] | None = None
    by_presentation_ci95: list[float] | None = None
    nlls: list[float] = field(repr=False, default_factory=list)

    def summary(self) -> dict[str, Any]:
        """Return every figure but those of each episode."""
        return {name: value for name, value in vars(self).items() if name not in ("scores", "nlls")}


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
    variance: float | None = None,
    device: torch.device | str = "cpu",
    times: int = 1,
    progress: Callable[[int], None] | None = None,
) -> Report:
    """Adapt to and score the first `episodes` episodes of a split.

    runner: how; without one, a few at a time. by_step: one of `BY_STEP`. variance: of a regression's
    observations, from `observation_variance`; without one, its likelihood and coverage are left out. times: how often the caller will
    do this with this runner, about. progress: hears how many episodes are done.
    """

    def score(shared: tuple[Params, State, Tensor | None], part: tuple[Episode, Tensor]) -> dict[str, Tensor]:
        params, state, observations = shared

        def one(episode: Episode, key: Tensor) -> dict[str, Tensor]:
            return score_episode(algorithm, params, state, episode, key, by_step=by_step, variance=observations)

        scored: dict[str, Tensor] = map_tasks(one, *part)
        return scored

    observations = None if variance is None else torch.tensor(variance, device=device)
    episodes_of = Episodes(source, split, episodes, seed, device)
    scored = episodes_of.map(f"score {by_step}", score, (params, state, observations), runner or Runner(Plan()), times, progress)
    return summarise(algorithm.objective, scored, variance)


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
) -> float | None:
    """Return the one variance of the observations under which the targets of these episodes are most likely; None in classification.

    It is fitted to the predictions after the last inner step, so another number of steps needs another call.
    """
    if algorithm.objective.kind != "regression":
        return None

    def errors(shared: tuple[Params, State], part: tuple[Episode, Tensor]) -> dict[str, Tensor]:
        def one(episode: Episode, key: Tensor) -> dict[str, Tensor]:
            support, query = episode
            samples = samples_of(algorithm, algorithm.adapt(*shared, support, key), query)
            return {"squared": (query.y - samples).square(), "real": _real(query)}

        found: dict[str, Tensor] = map_tasks(one, *part)
        return found

    episodes_of = Episodes(source, split, episodes, seed, device)
    found = episodes_of.map("errors", errors, (params, state), runner or Runner(Plan()))
    squared = found["squared"].double().movedim(1, 2).flatten(0, 1)  # every query of every episode, (M, S, D)
    usable = (found["real"].flatten() > 0) & squared.isfinite().all(dim=(1, 2))
    return float(fit_variance(squared[usable])) if usable.any() else None


@dataclass(frozen=True)
class Episodes:
    """The first `count` episodes of a split, with the noise of evaluation `seed`."""

    source: TaskSource
    split: str
    count: int
    seed: int
    device: torch.device | str

    def map(
        self,
        name: str,
        function: Callable[[Any, Any], dict[str, Tensor]],
        shared: Any,
        runner: Runner,
        times: int = 1,
        progress: Callable[[int], None] | None = None,
    ) -> dict[str, Tensor]:
        """Return what `function(shared, (episodes, keys))` gives for all, by name with a leading axis T, on the CPU; see `Runner.map`."""
        parts: list[dict[str, Tensor]] = []
        block = runner.plan.chunk * runner.plan.workers * BLOCK
        done = 0
        with torch.no_grad():
            for indices in torch.arange(self.count).split(block):
                batch = deal(self.source, self.split, indices, self.device)
                keys = draws.key(self.seed, "evaluate", self.split, indices).to(self.device)
                blocks = -(-self.count // block) * times
                for found in runner.map(name, function, shared, (batch, keys), times=blocks):
                    parts.append({name: value.cpu() for name, value in found.items()})
                    done += len(next(iter(found.values())))
                    if progress is not None:
                        progress(done)
        return {name: torch.cat([part[name] for part in parts]) for name in parts[0]}


def score_episode(
    algorithm: Learner,
    params: Params,
    state: State,
    episode: Episode,
    key: Tensor,
    *,
    by_step: str = "all",
    variance: Tensor | None = None,
) -> dict[str, Tensor]:
    """Return the scores of one episode: by_step (S,) and the numbers of its steps (S,), and what `summarise` pools over episodes."""
    objective = algorithm.objective
    support, query = episode
    if hasattr(algorithm, "trajectory"):
        path = algorithm.trajectory(params, state, support, key)
    else:
        path = [algorithm.adapt(params, state, support, key)]
    steps = scored_steps(len(path) - 1, by_step)
    outputs = [algorithm.predict(path[step], query.x, query.mask) for step in steps]
    scored = {
        "by_step": torch.stack([objective.score(output, query.y, query.mask) for output in outputs]),
        "steps": torch.tensor(steps, device=query.x.device),
    }
    if hasattr(algorithm, "by_presentation"):
        right, presented = algorithm.by_presentation(params, state, episode, key)
        scored |= {"right_by_presentation": right, "presented": presented}
    if objective.kind == "classification":
        return scored | _of_classification(objective, outputs[-1], query)
    weight = torch.ones_like(support.y[:, :1]) if support.mask is None else support.mask[:, None].to(support.y.dtype)
    mean = (support.y * weight).sum(dim=0) / weight.sum().clamp(min=1)
    scored["baseline"] = objective.score(mean.expand_as(query.y), query.y, query.mask)
    if variance is None:
        return scored
    predicted = Predictive(samples_of(algorithm, path[-1], query, outputs[-1]), variance.to(query.y.dtype))
    return scored | {
        "nll": nll(predicted, query.y, query.mask),
        "coverage90": coverage(predicted, query.y, query.mask, level=0.9),
        "spread": spread(predicted, query.mask),
    }


def _of_classification(objective: Objective, logits: Tensor, query: Examples) -> dict[str, Tensor]:
    """Return the likelihood of an episode, the entropy of its predictions, and by query what the calibration error is of."""
    probabilities = logits.softmax(dim=-1)
    confidence, guess = probabilities.max(dim=-1)
    right = query.y.gather(-1, guess[:, None])[:, 0]
    real = _real(query)
    entropy = torch.special.entr(probabilities).sum(dim=-1)
    spread = torch.where(real > 0, entropy, 0.0).sum() / real.sum().clamp(min=1)
    return {"nll": objective.loss(logits, query.y, query.mask), "spread": spread, "confidence": confidence, "right": right, "real": real}


def samples_of(algorithm: Learner, adapted: Adapted, query: Examples, output: Tensor | None = None) -> Tensor:
    """Return the outputs (S, B, D) whose mixture a regression predicts: the one of `predict`, unless the algorithm samples."""
    if hasattr(algorithm, "sampled"):
        samples: Tensor = algorithm.sampled(adapted, query.x, query.mask)
        return samples
    return (algorithm.predict(adapted, query.x, query.mask) if output is None else output)[None]


def _real(query: Examples) -> Tensor:
    return torch.ones_like(query.y[:, 0]) if query.mask is None else query.mask.to(query.y.dtype)


def scored_steps(last: int, by_step: str) -> list[int]:
    """Return the numbers of inner steps at which to score, of 0 … last; by_step: one of `BY_STEP`."""
    if by_step == "all":
        return list(range(last + 1))
    round_numbers = {0} | {digit * 10**power for power in range(6) for digit in (1, 2, 5)} if by_step == "thin" else set()
    return sorted(step for step in round_numbers | {last} if step <= last)


def summarise(objective: Objective, scored: dict[str, Tensor], variance: float | None = None) -> Report:
    """Turn per-episode results, with a leading axis of episodes, into a report. variance: as it was fitted."""
    by_step = scored["by_step"].double()
    last = by_step[:, -1]
    finite = last[last.isfinite()]
    diverged = ~last.isfinite()
    nlls, coverages, spreads = (scored[name].double() if name in scored else None for name in ("nll", "coverage90", "spread"))
    ece = baseline = None
    if objective.kind == "classification":
        ece = calibration_error(scored["confidence"], scored["right"], scored["real"])
    else:
        baseline = _mean(scored["baseline"].double())
        diverged = diverged | (last > DIVERGED_RATIO * scored["baseline"])
    return Report(
        metric=objective.metric,
        mean=_mean(last),
        ci95=_interval(last),
        median=float(finite.quantile(0.5)) if len(finite) else math.nan,  # torch's own median takes the lower of two middle ones
        std=_std(finite),
        episodes=len(last),
        diverged=int(diverged.sum()),
        by_step=[_mean(column) for column in by_step.T],
        steps=scored["steps"][0].tolist(),
        nll=None if nlls is None else _mean(nlls),
        ece=ece,
        baseline=baseline,
        scores=last.tolist(),
        coverage90=None if coverages is None else _mean(coverages),
        spread=None if spreads is None else _mean(spreads),
        nll_ci95=None if nlls is None else _interval(nlls),
        coverage90_ci95=None if coverages is None else _interval(coverages),
        variance=variance,
        **_by_presentation(scored),
        nlls=[] if nlls is None else nlls.tolist(),
    )


def _by_presentation(scored: dict[str, Tensor]) -> dict[str, list[float]]:
    """Return the accuracies by presentation and their intervals; a presentation that no episode has is left out."""
    if "presented" not in scored:
        return {}
    right, presented = scored["right_by_presentation"].double(), scored["presented"].double()
    had = presented.sum(dim=0) > 0
    each = (right / presented)[:, had]  # NaN where an episode has no such presentation, which the interval leaves out
    return {
        "by_presentation": (right.sum(dim=0) / presented.sum(dim=0))[had].tolist(),
        "by_presentation_ci95": [_interval(column) for column in each.T],
    }


def calibration_error(confidence: Tensor, right: Tensor, real: Tensor) -> float:
    """Return the expected calibration error: the weighted mean over confidence bins of |accuracy - confidence|; `real` weighs a row."""
    confidence, right, real = (tensor.flatten().double() for tensor in (confidence, right, real))
    usable = confidence.isfinite()
    confidence, right, real = confidence[usable], right[usable], real[usable]
    bins = (confidence * ECE_BINS).ceil().long().clamp(1, ECE_BINS) - 1
    gap = torch.zeros(ECE_BINS, dtype=torch.float64).index_add_(0, bins, real * (right - confidence))
    return float(gap.abs().sum() / real.sum().clamp(min=1))


def _mean(values: Tensor) -> float:
    finite = values[values.isfinite()]
    return float(finite.mean()) if len(finite) else math.nan


def _std(finite: Tensor) -> float:
    return float(finite.std()) if len(finite) > 1 else 0.0


def _interval(values: Tensor) -> float:
    """Return half the width of the 95 % interval of the mean of those values that are finite."""
    finite = values[values.isfinite()]
    return 1.96 * _std(finite) / math.sqrt(max(len(finite), 1))
