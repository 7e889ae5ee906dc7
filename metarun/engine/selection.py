"""The validation score that chooses the best checkpoint: a statistic over tasks after a number of inner steps."""

from __future__ import annotations

import math
from dataclasses import dataclass
from typing import Annotated

import torch

from metarun.engine.outputs import path_of
from metarun.engine.report import Report
from metarun.episodes import deal, first_of
from metarun.errors import UserError, nearest
from metarun.objectives import Objective, error
from metarun.types import Algorithm, Params, State, TaskSource, WithChoice
from metarun.values import Form

STATISTICS = ("mean", "median", "nll")
FORM = "mean, median or nll; behind mean and median, @STEPS is the number of inner steps after which they count, such as median@1"
Selected = Annotated[str, Form(r"(mean|median)?@\d{1,5}|mean|median|nll", FORM)]


@dataclass(frozen=True)
class Selection:
    """How a validation's report becomes the one score by which a run chooses its best checkpoint.

    objective: of the task. statistic: one of `STATISTICS`, over the validation tasks: the mean or the median of the metric, or the mean
    negative log-likelihood (`Report.nll`). inner_steps: None for the last inner step.
    """

    objective: Objective
    statistic: str
    inner_steps: int | None = None

    @staticmethod
    def of(text: object, objective: Objective) -> Selection:
        """Return the selection that the key `select` names, such as None, "mean", "median@1" or "@1"; UserError for another value.

        The default is the mean in classification. In regression it is the median, since few hard tasks can rule a mean of errors.
        """
        default = "mean" if objective.kind == "classification" else "median"
        if text is None:
            return Selection(objective, default)
        statistic, at, steps = str(text).partition("@")
        if statistic and statistic not in STATISTICS:
            raise UserError(f"select={text} is unknown; give select={FORM}.{nearest(statistic, STATISTICS)}")
        if at and not steps.isdecimal():
            raise UserError(f"select={text} names no number of inner steps; give select={FORM}.")
        if at and statistic == "nll":
            raise UserError(f"select={text}: the likelihood is known after the last inner step alone; give select=nll.")
        return Selection(objective, statistic or default, int(steps) if at else None)

    @property
    def sign(self) -> float:
        """1, or -1 where a lower score is better."""
        return 1.0 if self.objective.higher_is_better and self.statistic != "nll" else -1.0

    @property
    def name(self) -> str:
        """The word for the score: the metric, or "nll"."""
        return "nll" if self.statistic == "nll" else self.objective.metric

    def by_step(self, report: Report) -> dict[int, float]:
        """Return the statistic of the metric after each inner step that the report scores. For "nll", it is the mean of the metric."""
        values = report.median_by_step if self.statistic == "median" else report.by_step
        return dict(zip(report.steps, values, strict=True))

    def candidates(self, report: Report) -> dict[int, float]:
        """Return the score after each inner step, for an algorithm `WithChoice` to compare its candidates; a higher score is better.

        A mean that is not finite is the worst score.
        """
        sign = 1.0 if self.objective.higher_is_better else -1.0
        finite = [math.isfinite(mean) for mean in report.by_step]
        by_step = self.by_step(report).items()
        return {step: sign * score if known else -math.inf for known, (step, score) in zip(finite, by_step, strict=True)}

    def score(self, report: Report) -> float | None:
        """Return the score of a validation; None where a task's score after these inner steps is not finite.

        A checkpoint without a score is never the best, whatever its median.
        """
        if not math.isfinite(self.mean(report)):
            return None
        if self.statistic == "nll":
            return report.nll if report.nll is not None and math.isfinite(report.nll) else None
        return self.by_step(report)[report.steps[-1] if self.inner_steps is None else self.inner_steps]

    def mean(self, report: Report) -> float:
        """Return the mean over the tasks after the inner steps of the selection."""
        step = report.steps[-1] if self.inner_steps is None else self.inner_steps
        return dict(zip(report.steps, report.by_step, strict=True))[step]

    def error(self, score: float) -> float:
        """Return the score as an error to be minimised: 1 - accuracy, the error of a regression, or the negative log-likelihood.

        A score that is not finite is an infinite error.
        """
        return error(self.name, score)

    def __str__(self) -> str:
        if self.statistic == "nll":
            return "mean negative log-likelihood over the validation tasks"
        steps = {None: "", 1: " after 1 inner step"}.get(self.inner_steps, f" after {self.inner_steps} inner steps")
        return f"{self.statistic} {self.objective.metric} over the validation tasks{steps}"

    def check(self, algorithm: Algorithm, params: Params, state: State, source: TaskSource, device: torch.device | str = "cpu") -> None:
        """Raise UserError where the algorithm cannot be scored after `inner_steps`. The check adapts it to one validation episode."""
        if self.inner_steps is None:
            return
        if isinstance(algorithm, WithChoice):
            raise UserError(
                f"select=…@{self.inner_steps} names a number of inner steps, but {type(algorithm).__name__} chooses its own by the "
                "validation score; leave the number out."
            )
        support = first_of(deal(source, "val", torch.tensor([0]), device)).support
        with torch.no_grad():
            last = len(path_of(algorithm, params, state, support, torch.zeros((), dtype=torch.int64, device=device))) - 1
        if self.inner_steps > last:
            raise UserError(
                f"select=…@{self.inner_steps} asks for the score after {self.inner_steps} inner steps, but {type(algorithm).__name__} "
                f"takes {last} at validation; name at most {last}, or set algo.test_inner_steps={self.inner_steps} if it has that key."
            )
