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
from metarun.running import Runner
from metarun.types import Algorithm, Episode, Params, State, TaskSource

DIVERGED_RATIO = 10.0
"""A regression episode has diverged above so many times the error of predicting the mean of its support targets."""
ECE_BINS = 15
BLOCK = 4
"""Chunks of episodes that are dealt at once, for each worker."""


@dataclass(frozen=True)
class Report:
    """What a set of episodes says of a model.

    metric: "accuracy" in [0, 1], or "mse". mean, median, std: over the episodes whose score is finite; ci95: half the width of
    the 95 % interval of the mean, 1.96 · std / √episodes. diverged: episodes that are not finite or, in regression, worse than
    `DIVERGED_RATIO` times predicting the support mean. by_step: mean score before adaptation and after inner steps, whose numbers
    are `steps`: each one, or a selection where `thin` was asked for.
    nll: mean negative log-likelihood per query; ece: expected calibration error (Guo et al. 2017), 15 bins pooled over queries;
    both for classification, else None. baseline: in regression the mean error of predicting the support mean, else None.
    scores: per episode, in order.
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

    def summary(self) -> dict[str, Any]:
        """Return every figure but the per-episode scores."""
        return {name: value for name, value in vars(self).items() if name != "scores"}


def evaluate(
    algorithm: Algorithm,
    params: Params,
    state: State,
    source: TaskSource,
    *,
    split: str,
    episodes: int,
    seed: int = 0,
    runner: Runner | None = None,
    thin: bool = False,
    device: torch.device | str = "cpu",
    times: int = 1,
    progress: Callable[[int], None] | None = None,
) -> Report:
    """Adapt to and score the first `episodes` episodes of a split.

    runner: how; without one, a few at a time. thin: score a long adaptation at 0, 1, 2, 5, 10, 20, … steps and the last instead of after each. times: how often the caller will
    do this with this runner, about. progress: hears how many episodes are done.
    """

    def score(shared: tuple[Params, State], part: tuple[Episode, Tensor]) -> dict[str, Tensor]:
        def one(episode: Episode, key: Tensor) -> dict[str, Tensor]:
            return score_episode(algorithm, *shared, episode, key, thin=thin)

        scored: dict[str, Tensor] = map_tasks(one, *part)
        return scored

    runner = runner or Runner(Plan())
    parts: list[dict[str, Tensor]] = []
    block = runner.plan.chunk * runner.plan.workers * BLOCK
    done = 0
    with torch.no_grad():
        for indices in torch.arange(episodes).split(block):
            batch = deal(source, split, indices, device)
            keys = draws.key(seed, "evaluate", split, indices).to(device)
            blocks = -(-episodes // block) * times
            for scored in runner.map(f"score {thin}", score, (params, state), (batch, keys), times=blocks):
                parts.append({name: value.cpu() for name, value in scored.items()})
                done += len(scored["steps"])
                if progress is not None:
                    progress(done)
    return summarise(algorithm.objective, {name: torch.cat([part[name] for part in parts]) for name in parts[0]})


def score_episode(
    algorithm: Algorithm, params: Params, state: State, episode: Episode, key: Tensor, *, thin: bool = False
) -> dict[str, Tensor]:
    """Return the scores of one episode: by_step (S,) and the numbers of its steps (S,), and what `summarise` pools over episodes."""
    objective = algorithm.objective
    support, query = episode
    if hasattr(algorithm, "trajectory"):
        path = algorithm.trajectory(params, state, support, key)
    else:
        path = [algorithm.adapt(params, state, support, key)]
    steps = scored_steps(len(path) - 1, thin)
    outputs = [algorithm.predict(path[step], query.x, query.mask) for step in steps]
    scored = {
        "by_step": torch.stack([objective.score(output, query.y, query.mask) for output in outputs]),
        "steps": torch.tensor(steps, device=query.x.device),
    }
    real = torch.ones_like(query.y[:, 0]) if query.mask is None else query.mask.to(query.y.dtype)
    if objective.kind == "classification":
        confidence, guess = outputs[-1].softmax(dim=-1).max(dim=-1)
        right = query.y.gather(-1, guess[:, None])[:, 0]
        return scored | {"nll": objective.loss(outputs[-1], query.y, query.mask), "confidence": confidence, "right": right, "real": real}
    weight = torch.ones_like(support.y[:, :1]) if support.mask is None else support.mask[:, None].to(support.y.dtype)
    mean = (support.y * weight).sum(dim=0) / weight.sum().clamp(min=1)
    return scored | {"baseline": objective.score(mean.expand_as(query.y), query.y, query.mask)}


def scored_steps(last: int, thin: bool) -> list[int]:
    """Return the numbers of inner steps at which to score: all of 0 … last, or of these 0, 1, 2, 5, 10, 20, … and the last."""
    if not thin:
        return list(range(last + 1))
    round_numbers = {0, last} | {digit * 10**power for power in range(6) for digit in (1, 2, 5)}
    return sorted(step for step in round_numbers if step <= last)


def summarise(objective: Objective, scored: dict[str, Tensor]) -> Report:
    """Turn per-episode results, with a leading axis of episodes, into a report."""
    by_step = scored["by_step"].double()
    last = by_step[:, -1]
    finite = last[last.isfinite()]
    diverged = ~last.isfinite()
    nll = ece = baseline = None
    if objective.kind == "classification":
        nll = _mean(scored["nll"].double())
        ece = calibration_error(scored["confidence"], scored["right"], scored["real"])
    else:
        baseline = _mean(scored["baseline"].double())
        diverged = diverged | (last > DIVERGED_RATIO * scored["baseline"])
    std = float(finite.std()) if len(finite) > 1 else 0.0
    return Report(
        metric=objective.metric,
        mean=_mean(last),
        ci95=1.96 * std / math.sqrt(max(len(finite), 1)),
        median=float(finite.quantile(0.5)) if len(finite) else math.nan,  # torch's own median takes the lower of two middle ones
        std=std,
        episodes=len(last),
        diverged=int(diverged.sum()),
        by_step=[_mean(column) for column in by_step.T],
        steps=scored["steps"][0].tolist(),
        nll=nll,
        ece=ece,
        baseline=baseline,
        scores=last.tolist(),
    )


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
