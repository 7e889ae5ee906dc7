"""The figures of a model over a set of episodes: means with intervals, diverged episodes, calibration."""

from __future__ import annotations

import math
from dataclasses import dataclass, field
from typing import Any

import torch
from torch import Tensor

from metarun.objectives import Objective

DIVERGED_RATIO = 10.0
"""A regression episode has diverged where its error is above this multiple of the error of predicting the mean support target."""
ECE_BINS = 15


@dataclass(frozen=True)
class Report:
    """The figures of a model over a set of episodes.

    metric: "accuracy" in [0, 1], or "mse". mean, median, std: over the episodes with a finite score. ci95: half the width of the 95 %
    interval of the mean, 1.96 · std / √episodes. diverged: the number of episodes with a score that is not finite or, in regression,
    an error above `DIVERGED_RATIO` times that of predicting the support mean. by_step: mean score before adaptation and after inner
    steps. steps: the numbers of these inner steps, all or a selection (`metarun.engine.evaluation.BY_STEP`).
    nll: mean negative log-likelihood per query, in nats. In regression the mixture of `metarun.predictive` gives the likelihood; None
    where the variance of the observations is unknown. ece: expected calibration error (Guo et al. 2017), 15 bins over all queries;
    classification only. baseline: in regression the mean error of predicting the support mean, else None.
    scores, nlls: per episode, in order. coverage90: share of targets inside the central 90 % interval of the prediction; only in
    regression, with an nll. spread: the mean width of the predictions: standard deviation in regression, entropy in nats in classification.
    nll_ci95, coverage90_ci95: as ci95. variance: of the observations, where it was fitted on validation episodes, else None.
    by_presentation: accuracy at the n-th presentation of a class, n = 1 …, over all episodes, for an algorithm that reads sequences.
    by_presentation_ci95: as ci95, over the accuracies of the episodes. Both are None for other algorithms.
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
        """Return all figures except those of single episodes."""
        return {name: value for name, value in vars(self).items() if name not in ("scores", "nlls")}


def summarise(objective: Objective, scored: dict[str, Tensor], variance: float | None = None) -> Report:
    """Return the report of results with a leading axis of episodes. variance: of the observations, as fitted."""
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
        median=float(finite.quantile(0.5)) if len(finite) else math.nan,  # torch.median takes the lower of two middle values
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
    """Return the accuracies by presentation and their intervals, without presentations that no episode has."""
    if "presented" not in scored:
        return {}
    right, presented = scored["right_by_presentation"].double(), scored["presented"].double()
    had = presented.sum(dim=0) > 0
    each = (right / presented)[:, had]  # NaN where an episode has no such presentation; the interval ignores NaN
    return {
        "by_presentation": (right.sum(dim=0) / presented.sum(dim=0))[had].tolist(),
        "by_presentation_ci95": [_interval(column) for column in each.T],
    }


def calibration_error(confidence: Tensor, right: Tensor, real: Tensor) -> float:
    """Return the expected calibration error: the mean over confidence bins of |accuracy - confidence|, weighted by `real`."""
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
    """Return half the width of the 95 % interval of the mean of the finite values."""
    finite = values[values.isfinite()]
    return 1.96 * _std(finite) / math.sqrt(max(len(finite), 1))
