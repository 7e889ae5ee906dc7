"""What a set of episodes says of a model: means with their intervals, what diverged, how well calibrated. From scores to one record."""

from __future__ import annotations

import math
from dataclasses import dataclass, field
from typing import Any

import torch
from torch import Tensor

from metarun.objectives import Objective

DIVERGED_RATIO = 10.0
"""A regression episode has diverged above so many times the error of predicting the mean of its support targets."""
ECE_BINS = 15


@dataclass(frozen=True)
class Report:
    """What a set of episodes says of a model.

    metric: "accuracy" in [0, 1], or "mse". mean, median, std: over the episodes whose score is finite; ci95: half the width of
    the 95 % interval of the mean, 1.96 · std / √episodes. diverged: episodes that are not finite or, in regression, worse than
    `DIVERGED_RATIO` times predicting the support mean. by_step: mean score before adaptation and after inner steps, whose numbers
    are `steps`: each one, or a selection (`metarun.engine.evaluation.BY_STEP`).
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
