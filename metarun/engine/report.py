"""The figures of a model over a set of episodes: means with intervals, diverged episodes, calibration."""

from __future__ import annotations

from collections.abc import Mapping
from dataclasses import dataclass, field
from typing import Any

import torch
from torch import Tensor

from metarun.engine.averages import interval, mean, median, std, worst
from metarun.engine.families import ByFamily, Families, figures_of
from metarun.engine.units import Errors, in_units
from metarun.objectives import Objective

DIVERGED_RATIO = 10.0
"""A regression episode has diverged where its error is above this multiple of the error of predicting the mean support target.

The error of predicting the mean is taken for this episode or on average over all episodes, whichever is larger. On a sinusoid of small
amplitude, the error for the episode alone is so small that a model without any divergence exceeds ten times its value.
"""
ECE_BINS = 15
BY_EPISODE = ("scores", "nlls", "joint_nlls", "target_errors", "families", "rating_scores", "stream_matrix")
"""The fields that a summary leaves out, since they are long."""


@dataclass(frozen=True)
class Report:
    """The figures of a model over a set of episodes. No episode vanishes from a mean.

    metric: "accuracy" in [0, 1], or "mse". mean: over all episodes. In classification, an output that is not finite is a wrong answer.
    In regression, one episode with an error that is not finite makes the mean infinite; `finite_mean` is the mean over the others, and
    None in classification. median: over all episodes; an error that is not finite is the largest. std: over the finite scores.
    ci95, finite_ci95: half the width of the 95 % interval of the mean by Student's t (`metarun.engine.averages.interval`).
    not_finite: the number of episodes with an output that is not finite. diverged: the number of these episodes and, in regression, of
    the episodes with an error above the limit of `DIVERGED_RATIO`.
    by_step, median_by_step: mean and median before adaptation and after inner steps. steps: the numbers of these inner steps, all or a
    selection (`metarun.engine.outputs.BY_STEP`).
    nll: mean negative log-likelihood per query, in nats; infinite where one is not finite. In regression the mixture of
    `metarun.predictive` gives the likelihood; None where the variance of the observations is unknown.
    joint_nll: the same for all queries of a task together, divided by their number; only in regression, with an nll.
    own_nll: mean negative log-likelihood under the distribution that the algorithm itself returns, for example with a learned variance;
    None where it returns none.
    bayes: scores of the exact Bayes predictor on these episodes (`metarun.engine.bounds`); None where the source does not know its prior.
    ece: expected calibration error (Guo et al. 2017), 15 bins over all queries; classification only. baseline: in regression the mean
    error of predicting the support mean, else None.
    scores, nlls, joint_nlls: per episode, in order. coverage90: share of targets inside the central 90 % interval of the prediction; only
    in regression, with an nll. spread: the mean width of the predictions: standard deviation in regression, entropy in nats in
    classification. nll_ci95, joint_nll_ci95, own_nll_ci95, coverage90_ci95: as ci95. variance: of the observations, where it was fitted
    on validation episodes, else None.
    by_presentation: accuracy at the n-th presentation of a class, n = 1 …, over all episodes, for an algorithm that reads sequences.
    by_presentation_ci95: as ci95, over the accuracies of the episodes. Both are None for other algorithms.
    by_target: in regression, the errors of each target in its own unit (`metarun.engine.units`), after the last inner step; None where
    the source does not know the units. target_errors: the same by episode.
    stream: of trajectories, the figures of `metarun.engine.stream_figures`; None for other tasks. stream_matrix: (R, N), the mean score on
    part j after a number of parts; NaN where part j has not come.
    by_family: the figures of each family of tasks (`metarun.engine.families`); None for a source of one family. families: the name of the
    family of each episode, in order.
    ratings: for a source of ratings, the scores of the model and of the baselines (`metarun.engine.recommending.report`). rating_scores:
    the scores of the model and of one baseline by episode, with the user.
    """

    metric: str
    mean: float
    ci95: float
    median: float
    std: float
    episodes: int
    diverged: int
    not_finite: int
    finite_mean: float | None
    finite_ci95: float | None
    by_step: list[float]
    median_by_step: list[float]
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
    joint_nll: float | None = None
    joint_nll_ci95: float | None = None
    own_nll: float | None = None
    own_nll_ci95: float | None = None
    bayes: dict[str, float] | None = None
    by_target: Errors | None = None
    target_errors: dict[str, list[float]] = field(repr=False, default_factory=dict)
    by_family: ByFamily | None = None
    families: list[str] = field(repr=False, default_factory=list)
    ratings: dict[str, Any] | None = field(repr=False, default=None)
    rating_scores: dict[str, list[Any]] = field(repr=False, default_factory=dict)
    nlls: list[float] = field(repr=False, default_factory=list)
    joint_nlls: list[float] = field(repr=False, default_factory=list)
    stream: dict[str, Any] | None = None
    stream_matrix: list[list[float]] = field(repr=False, default_factory=list)

    def summary(self) -> dict[str, Any]:
        """Return all figures except those of `BY_EPISODE`."""
        return {name: value for name, value in vars(self).items() if name not in BY_EPISODE}


def summarise(
    objective: Objective,
    scored: dict[str, Tensor],
    variance: float | None = None,
    units: Mapping[str, float] | None = None,
    families: Families | None = None,
) -> Report:
    """Return the report of results with a leading axis of episodes. variance: of the observations, as fitted. units: as of `units_of`.
    families: of the episodes, as of `families_of`.
    """
    by_target, target_errors = in_units(scored, units) if units else (None, {})
    by_step = worst(scored["by_step"]) if objective.kind == "regression" else scored["by_step"].double()
    last = by_step[:, -1]
    return Report(
        metric=objective.metric,
        mean=mean(last),
        ci95=interval(last),
        median=median(last),
        std=std(last),
        episodes=len(last),
        by_step=[mean(column) for column in by_step.T],
        median_by_step=[median(column) for column in by_step.T],
        steps=scored["steps"][0].tolist(),
        scores=last.tolist(),
        **_by_objective(objective, scored, last),
        spread=mean(scored["spread"]) if "spread" in scored else None,
        variance=variance,
        by_target=by_target,
        target_errors=target_errors,
        **_by_presentation(scored),
        **{"nll": None} | _likelihoods(scored),
        by_family=_by_family(objective, scored, families),
        families=[] if families is None else families.named(),
    )


def _by_family(objective: Objective, scored: dict[str, Tensor], families: Families | None) -> ByFamily | None:
    """Return the figures of each family that has an episode, each computed from the family's episodes alone."""
    if families is None:
        return None
    rows = {name: (families.of == place).nonzero()[:, 0] for place, name in enumerate(families.names)}
    parts = {name: {key: value[at] for key, value in scored.items()} for name, at in rows.items() if len(at)}
    return {name: figures_of(summarise(objective, part).summary()) for name, part in parts.items()}


def _by_objective(objective: Objective, scored: dict[str, Tensor], last: Tensor) -> dict[str, Any]:
    """Return the figures that differ between the objectives: diverged episodes, means of the finite ones, calibration, baseline."""
    broken = ~last.isfinite() | (scored["finite"] == 0)
    if objective.kind == "classification":
        ece = calibration_error(scored["confidence"], scored["right"], scored["real"])
        counts = {"not_finite": int(broken.sum()), "diverged": int(broken.sum())}
        return counts | {"finite_mean": None, "finite_ci95": None, "ece": ece, "baseline": None}
    baseline = scored["baseline"].double()
    diverged = broken | (last > DIVERGED_RATIO * baseline.clamp(min=mean(baseline)))
    finite = last[last.isfinite()]
    counts = {"not_finite": int(broken.sum()), "diverged": int(diverged.sum())}
    return counts | {"finite_mean": mean(finite), "finite_ci95": interval(finite), "ece": None, "baseline": mean(baseline)}


def _likelihoods(scored: dict[str, Tensor]) -> dict[str, Any]:
    """Return the means of the likelihoods and of the coverage with their intervals, and the likelihoods by episode, as the results have."""
    by_name = {name: worst(scored[name]) for name in ("nll", "joint_nll", "own_nll", "coverage90") if name in scored}
    figures = {name: mean(each) for name, each in by_name.items()} | {f"{name}_ci95": interval(each) for name, each in by_name.items()}
    return figures | {f"{name}s": by_name[name].tolist() for name in ("nll", "joint_nll") if name in by_name}


def _by_presentation(scored: dict[str, Tensor]) -> dict[str, Any]:
    """Return the accuracies by presentation and their intervals, without presentations that no episode has."""
    if "presented" not in scored:
        return {}
    right, presented = scored["right_by_presentation"].double(), scored["presented"].double()
    had = presented.sum(dim=0) > 0
    each = [(right[:, n] / presented[:, n])[presented[:, n] > 0] for n in range(len(had)) if had[n]]  # of the episodes that have it
    return {
        "by_presentation": (right.sum(dim=0) / presented.sum(dim=0))[had].tolist(),
        "by_presentation_ci95": [interval(accuracies) for accuracies in each],
    }


def calibration_error(confidence: Tensor, right: Tensor, real: Tensor) -> float:
    """Return the expected calibration error: the mean over confidence bins of |accuracy - confidence|, weighted by `real`."""
    confidence, right, real = (tensor.flatten().double() for tensor in (confidence, right, real))
    bins = (confidence * ECE_BINS).ceil().long().clamp(1, ECE_BINS) - 1
    gap = torch.zeros(ECE_BINS, dtype=torch.float64).index_add_(0, bins, real * (right - confidence))
    return float(gap.abs().sum() / real.sum().clamp(min=1))
