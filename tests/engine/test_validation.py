"""A validation during training: it chooses, scores, and compares with the best one so far."""

from __future__ import annotations

import dataclasses
import math
from collections.abc import Callable
from dataclasses import dataclass
from typing import Any

import pytest
import torch
from torch import Tensor

import metarun.engine.validation as module
from metarun.compute.plan import Plan
from metarun.compute.running import Runner
from metarun.engine.selection import Selection
from metarun.engine.validation import Validation, judged, loss_of, values_to_log
from metarun.objectives import REGRESSION, Objective
from metarun.types import Episode, Examples, Params, State


@dataclass(frozen=True)
class Offset:
    """After inner step s the output is `offsets[episode][s]`, with the episode's number as its input; targets are 0."""

    offsets: tuple[tuple[float, ...], ...]
    objective: Objective = REGRESSION

    def trajectory(self, params: Params, state: State, support: Examples, key: Tensor) -> list[Tensor]:
        table = torch.tensor(self.offsets)[support.x[0].long()][0] * state["scale"]
        return list(table)

    def adapt(self, params: Params, state: State, support: Examples, key: Tensor, *, training: bool = False) -> Tensor:
        return self.trajectory(params, state, support, key)[-1]

    def predict(self, adapted: Tensor, x: Tensor, mask: Tensor | None = None) -> Tensor:
        return adapted.expand(len(x), 1)


@dataclass(frozen=True)
class ChoosesScale(Offset):
    """Tries the scales 3, 1 and 2, and takes the one with the best score of the last step."""

    def choose(self, params: Params, state: State, score: Callable[[State], dict[int, float]]) -> State:
        tried = [{"scale": torch.tensor(scale)} for scale in (3.0, 1.0, 2.0)]
        return max(tried, key=lambda each: list(score(each).values())[-1])


@dataclass(frozen=True)
class Numbered:
    objective: str = "regression"

    def episode(self, split: str, index: int) -> Episode:
        part = Examples(torch.full((2, 1), float(index)), torch.zeros(2, 1))
        return Episode(part, part)


def validation(algorithm: Any, select: str | None, episodes: int = 3) -> Validation:
    return Validation(algorithm, Numbered(), Selection.of(select, REGRESSION), Runner(Plan()), episodes, 1)


ERRORS = ((2.0, 1.0, 0.0), (2.0, 1.0, 1.0), (2.0, 2.0, 3.0))
"""Squared: after step 1 the errors are 1, 1 and 4, after step 2 they are 0, 1 and 9."""


@pytest.mark.parametrize(("select", "score"), [("mean@1", 2.0), ("median@1", 1.0), ("mean", 10 / 3), ("median", 1.0), ("mean@0", 4.0)])
def test_a_checkpoint_is_judged_by_the_selection(select: str, score: float) -> None:
    checked = validation(Offset(ERRORS), select)
    _, report = checked.run({}, {"scale": torch.tensor(1.0)})
    for before in (None, {"score": score + 0.1, "step": 2}):
        best, names = judged(checked.selection, report, 7, before)
        assert best is not None
        assert (best["score"], best["step"], names) == (pytest.approx(score), 7, ["best.pt"])
    before = {"score": score - 0.1, "step": 2}
    assert judged(checked.selection, report, 7, before) == (before, [])
    assert judged(checked.selection, report, 7, before, keep=2)[1] == ["step_7.pt"]
    assert values_to_log(checked.selection, report)["val/selected"] == pytest.approx(score)


class InUnits(Numbered):
    def units(self) -> dict[str, float]:
        return {"price": 5.0}


def test_errors_in_the_unit_of_the_target_are_logged_beside_the_standardised_one() -> None:
    """After step 2 the errors are 0, 1 and 3: mse 10/3, mae 4/3, in units of 5."""
    checked = validation(Offset(ERRORS), "mean")
    report = dataclasses.replace(checked, source=InUnits()).run({}, {"scale": torch.tensor(1.0)})[1]
    logged = values_to_log(checked.selection, report)
    assert logged["val/rmse/price"] == pytest.approx(5.0 * math.sqrt(10 / 3))
    assert logged["val/mae/price"] == pytest.approx(5.0 * 4 / 3)
    assert logged["val/mse"] == pytest.approx(10 / 3)


def test_an_inner_step_that_thin_scores_leave_out_is_scored_where_it_is_selected() -> None:
    checked = validation(Offset((tuple(float(n) for n in range(9)),)), "mean@7", episodes=1)
    _, report = checked.run({}, {"scale": torch.tensor(1.0)})
    assert report.steps == [0, 1, 2, 5, 7, 8]
    best, _ = judged(checked.selection, report, 3, None)
    assert best == {"score": 49.0, "mean": 49.0, "step": 3}


def test_a_task_that_is_not_finite_is_never_the_best_and_is_logged() -> None:
    checked = validation(Offset((*ERRORS[:2], (2.0, 2.0, math.nan))), None)
    _, report = checked.run({}, {"scale": torch.tensor(1.0)})
    assert judged(checked.selection, report, 3, None, keep=5) == (None, [])
    assert judged(checked.selection, report, 3, {"score": 9.0, "step": 1}) == ({"score": 9.0, "step": 1}, [])
    logged = values_to_log(checked.selection, report)
    assert (logged["val/mse"], logged["val/mse_median"]) == (math.inf, 1.0)
    assert logged["val/diverged"] == 2.0, "targets of 0 leave predicting their mean no error, so the error of 1 counts too"
    assert math.isnan(logged["val/selected"])


def test_the_algorithm_chooses_by_the_statistic_of_the_selection_before_it_is_scored() -> None:
    state, report = validation(ChoosesScale(ERRORS), "mean").run({}, {"scale": torch.tensor(5.0)})
    assert float(state["scale"]) == 1.0
    assert report.mean == pytest.approx(10 / 3)


def test_a_candidate_with_a_task_that_is_not_finite_is_never_chosen() -> None:
    """At scale 3 the last task overflows; the medians of all scales are 0."""
    state, _ = validation(ChoosesScale(((1.0, 0.0), (1.0, 0.0), (1.0, 1e19))), "median").run({}, {"scale": torch.tensor(5.0)})
    assert float(state["scale"]) == 1.0


def test_the_likelihood_is_that_of_the_variance_that_fits_the_validation_tasks() -> None:
    """Squared errors 0, 1 and 9 have the best variance 10/3; the mean likelihood is then log(2π · 10/3)/2 + 1/2."""
    checked = validation(Offset(ERRORS), "nll")
    _, report = checked.run({}, {"scale": torch.tensor(1.0)})
    assert report.variance == pytest.approx(10 / 3)
    assert checked.selection.score(report) == pytest.approx(0.5 * math.log(2.0 * math.pi * 10 / 3) + 0.5)
    assert values_to_log(checked.selection, report)["val/selected"] == checked.selection.score(report)


def test_every_validation_of_a_regression_fits_the_variance_once_and_only_the_selection_by_nll_scores_the_likelihood(
    monkeypatch: pytest.MonkeyPatch,
) -> None:
    """The squared errors 0, 1 and 9 have the best variance 10/3."""
    fits: list[int] = []
    fit = module.observation_variance
    monkeypatch.setattr(module, "observation_variance", lambda *words, **keys: fits.append(1) or fit(*words, **keys))
    for select, scored in (("mean", False), ("nll", True)):
        fits.clear()
        _, report = validation(Offset(ERRORS), select).run({}, {"scale": torch.tensor(1.0)})
        assert report.variance == pytest.approx(10 / 3)
        assert (report.nll is not None) is scored
        assert len(fits) == 1


@pytest.mark.parametrize(
    ("figures", "loss"),
    [
        ({"metric": "accuracy", "mean": 0.75, "nll": 0.6}, 0.6),
        ({"metric": "accuracy", "mean": 0.75, "nll": None}, None),
        ({"metric": "mse", "mean": 2.0, "nll": None}, 2.0),
        ({"metric": "mse", "mean": 2.0, "nll": 1.5}, 2.0),
        ({"metric": "mse", "mean": 2.0, "nll": 1.5, "own_nll": 1.25}, 1.25),
    ],
)
def test_the_validation_loss_is_what_the_training_minimises(figures: dict[str, Any], loss: float | None) -> None:
    """Cross entropy; squared error, whatever variance a selection fits; or the likelihood of a method that returns a distribution."""
    _, report = validation(Offset(ERRORS), "mean").run({}, {"scale": torch.tensor(1.0)})
    changed = dataclasses.replace(report, **figures)
    assert loss_of(changed) == loss
    assert values_to_log(Selection.of("mean", REGRESSION), changed).get("val/loss") == loss
