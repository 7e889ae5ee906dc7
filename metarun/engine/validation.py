"""Validation during training: let the algorithm choose, score the validation tasks, and note whether this is the best checkpoint."""

from __future__ import annotations

import math
from dataclasses import dataclass, replace
from typing import Any

import torch

from metarun.compute.running import Runner
from metarun.engine import families
from metarun.engine.evaluation import evaluate, observation_variance
from metarun.engine.keeping import after_validation
from metarun.engine.recommending.report import logged
from metarun.engine.report import Report
from metarun.engine.selection import Selection
from metarun.engine.units import SHOWN_TARGETS
from metarun.errors import printable
from metarun.types import Algorithm, Params, State, TaskSource, WithChoice
from metarun.values import percent, plain


@dataclass(frozen=True)
class Validation:
    """The validations of a run, all on the same episodes.

    selection: chooses the best checkpoint. runs: about how many validations the run has.
    """

    algorithm: Algorithm
    source: TaskSource
    selection: Selection
    runner: Runner
    episodes: int
    runs: int
    device: torch.device | str = "cpu"

    def run(self, params: Params, state: State) -> tuple[State, Report]:
        """Return the state and its report. An algorithm `WithChoice` first chooses by the selection's statistic.

        It chooses at every validation, so that each checkpoint competes with the hyperparameters that it is tested with.
        """
        if isinstance(self.algorithm, WithChoice):
            state = self.algorithm.choose(params, state, lambda tried: self.selection.candidates(self._report(params, tried)))
        report = self._report(params, state)
        if report.variance is None:  # a checkpoint states it, whatever selects
            report = replace(report, variance=observation_variance(self.algorithm, params, state, self.source, **self._same))
        return state, report

    @property
    def _same(self) -> dict[str, Any]:
        return {"split": "val", "episodes": self.episodes, "runner": self.runner, "device": self.device, "runs": self.runs}

    def _report(self, params: Params, state: State) -> Report:
        variance = None
        if self.selection.statistic == "nll":  # the variance of a regression's observations is fitted on the same episodes
            variance = observation_variance(self.algorithm, params, state, self.source, **self._same)
        steps: dict[str, Any] = {"by_step": "thin", "inner_step": self.selection.inner_steps}
        return evaluate(self.algorithm, params, state, self.source, variance=variance, **steps, **self._same)


def judged(
    selection: Selection, report: Report, step: int, best: dict[str, Any] | None, keep: int = 1
) -> tuple[dict[str, Any] | None, list[str]]:
    """Return `Position.best` after the validation of a step, and the names under which the run saves this checkpoint.

    A validation without a score changes nothing. best: `Position.best` so far. keep: how many of the best checkpoints the run keeps.
    """
    score = selection.score(report)
    if score is None:
        return best, []
    parts = {"by_target": report.by_target, "by_family": report.by_family}
    noted: dict[str, Any] = {name: figures for name, figures in parts.items() if figures}
    if selection.statistic == "mean" and selection.inner_steps is None and math.isfinite(report.ci95):
        noted["ci95"] = report.ci95
    return after_validation(best, {"score": score, "mean": selection.mean(report), "step": step, **noted}, keep, selection.sign)


def loss_of(report: Report) -> float | None:
    """Return the mean loss over the queries, to compare with the training loss. It comes from the scores, without another pass.

    In classification it is the cross entropy. In regression it is the negative log-likelihood where the algorithm returns a distribution,
    which it then trains on, and else the metric, a mean of squared errors. None where the report has none, as for a stream.
    """
    if report.own_nll is not None:
        return report.own_nll
    if report.metric == "accuracy":
        return report.nll
    return report.mean


def values_to_show(report: Report) -> dict[str, float | str]:
    """Return the values of a validation under their names in the line of progress, those of the first families and targets too."""
    errors = {f"val rmse {printable(target)}": each["rmse"] for target, each in list((report.by_target or {}).items())[:SHOWN_TARGETS]}
    unit = percent if report.metric == "accuracy" else plain
    shown = list((report.by_family or {}).items())[: families.SHOWN_FAMILIES]
    return {f"val {report.metric}": report.mean, **{f"val {name}": unit(each["mean"]) for name, each in shown}, **errors}


def values_to_log(selection: Selection, report: Report) -> dict[str, float]:
    """Return the values of a validation under their names in the log."""
    values = {f"val/{report.metric}": report.mean, "val/ci95": report.ci95}
    if (loss := loss_of(report)) is not None:
        values["val/loss"] = loss
    if report.metric != "accuracy":
        values |= {f"val/{report.metric}_median": report.median, "val/diverged": float(report.diverged)}
    for target, errors in (report.by_target or {}).items():
        values |= {f"val/{name}/{target}": errors[name] for name in ("rmse", "mae")}
    values |= families.values_to_log(report.metric, report.by_family)
    if report.ratings is not None:
        values |= {f"val/{name}": value for name, value in logged(report.ratings).items()}
    if len(report.by_step) > 1:
        values |= {f"val_by_step/{number}": value for number, value in zip(report.steps, report.by_step, strict=True)}
    if report.stream is not None:
        after = zip(report.stream["lengths"], report.stream["held_out"], strict=True)
        values |= {f"val_stream/{length}": score for length, score in after}
        values |= {"val/forgetting": lost} if (lost := report.stream["forgetting"]) is not None else {}
    score = selection.score(report)
    return values | {"val/selected": float("nan") if score is None else score}
