"""The validation score that chooses the best checkpoint."""

from __future__ import annotations

import dataclasses
import math
import re
from pathlib import Path
from typing import Any

import pytest
from small import Double, Lines, composed, dense_network

from metarun import testing
from metarun.algorithms.maml import Maml
from metarun.algorithms.scratch import Scratch
from metarun.engine.report import Report
from metarun.engine.selection import Selection
from metarun.errors import UserError
from metarun.objectives import CLASSIFICATION, REGRESSION, Objective


def report(by_step: dict[int, tuple[float, float]]) -> Report:
    """A report with these means and medians after inner steps."""
    known: dict[str, Any] = {field.name: None for field in dataclasses.fields(Report)}
    means, medians = ([pair[place] for pair in by_step.values()] for place in (0, 1))
    return Report(**known | {"by_step": means, "median_by_step": medians, "steps": list(by_step), "mean": means[-1], "metric": "mse"})


REPORT = report({0: (9.0, 8.0), 1: (0.5, 0.4), 10: (0.3, 0.1)})


@pytest.mark.parametrize(
    ("text", "goal", "score"),
    [
        (None, REGRESSION, 0.1),
        (None, CLASSIFICATION, 0.3),
        ("mean", REGRESSION, 0.3),
        ("median", CLASSIFICATION, 0.1),
        ("median@1", REGRESSION, 0.4),
        ("mean@1", REGRESSION, 0.5),
        ("@1", REGRESSION, 0.4),
        ("@1", CLASSIFICATION, 0.5),
        ("mean@0", REGRESSION, 9.0),
    ],
)
def test_the_key_names_the_statistic_and_the_inner_steps(text: str | None, goal: Objective, score: float) -> None:
    assert Selection.of(text, goal).score(REPORT) == score


def test_a_task_that_is_not_finite_bars_the_checkpoint_whatever_its_median() -> None:
    broken = report({1: (0.5, 0.4), 10: (math.inf, 0.1)})
    assert Selection.of("median", REGRESSION).score(broken) is None
    assert Selection.of("mean", REGRESSION).score(broken) is None
    assert Selection.of("median@1", REGRESSION).score(broken) == 0.4, "after one step every task is finite"


def test_the_likelihood_selects_where_it_is_asked_for() -> None:
    """The metric still judges the candidates of `choose`, since the likelihood is known after the last inner step alone."""
    for goal, sign in ((REGRESSION, -1.0), (CLASSIFICATION, 1.0)):
        selection = Selection.of("nll", goal)
        assert selection.score(dataclasses.replace(REPORT, nll=0.7)) == 0.7
        assert selection.score(dataclasses.replace(REPORT, nll=math.inf)) is None
        assert selection.score(REPORT) is None, "without a variance there is no likelihood"
        assert (selection.sign, selection.name, selection.error(0.7)) == (-1.0, "nll", 0.7)
        assert selection.candidates(REPORT) == {0: sign * 9.0, 1: sign * 0.5, 10: sign * 0.3}


def test_an_error_is_to_be_minimised() -> None:
    assert Selection.of(None, CLASSIFICATION).error(0.9) == pytest.approx(0.1)
    assert Selection.of(None, REGRESSION).error(0.9) == 0.9


@pytest.mark.parametrize(
    ("text", "words"),
    [
        ("nll@1", "the likelihood is known after the last inner step alone"),
        ("meadian", "select=meadian is unknown.*Did you mean 'median'"),
        ("mean@", "select=mean@ names no number of inner steps"),
        ("mean@-1", "select=mean@-1 names no number"),
        ("mean@one", "names no number of inner steps; give select=mean, median or nll"),
        (3, "select=3 is unknown"),
    ],
)
def test_another_value_is_a_sentence(text: object, words: str) -> None:
    with pytest.raises(UserError, match=words):
        Selection.of(text, REGRESSION)


def test_the_selection_says_itself_in_words() -> None:
    assert str(Selection.of("median@1", REGRESSION)) == "median mse over the validation tasks after 1 inner step"
    assert str(Selection.of("@3", CLASSIFICATION)) == "mean accuracy over the validation tasks after 3 inner steps"
    assert str(Selection.of(None, CLASSIFICATION)) == "mean accuracy over the validation tasks"


def test_more_inner_steps_than_the_algorithm_takes_are_refused_before_the_training() -> None:
    algorithm = Maml(dense_network(), REGRESSION, inner_steps=1, test_inner_steps=3)
    start = testing.start(algorithm)
    Selection.of("median@3", REGRESSION).check(algorithm, *start, Double(Lines()))
    with pytest.raises(UserError, match="score after 4 inner steps, but Maml takes 3 at validation; name at most 3"):
        Selection.of("median@4", REGRESSION).check(algorithm, *start, Double(Lines()))


def test_an_algorithm_that_chooses_its_steps_is_not_selected_by_a_number_of_them() -> None:
    algorithm = Scratch(dense_network(), REGRESSION)
    with pytest.raises(UserError, match="Scratch chooses its own"):
        Selection.of("median@1", REGRESSION).check(algorithm, *testing.start(algorithm), Double(Lines()))


def test_every_experiment_selects_by_the_inner_steps_that_it_reports() -> None:
    """`reproduce.eval.inner_steps` is the score that the README quotes."""
    files = (Path(__file__).parents[2] / "configs/experiment").glob("*.yaml")
    names = [file.stem for file in files if re.search(r"eval:.*inner_steps", file.read_text(encoding="utf-8"))]
    quoted = 0
    for name in names:
        config = composed(f"experiment={name}")
        steps = (config.get("reproduce") or {}).get("eval", {}).get("inner_steps")
        if steps is None:
            continue
        quoted += 1
        last = config["algo"].get("test_inner_steps") or config["algo"]["inner_steps"]
        selection = Selection.of(config["select"], REGRESSION)
        assert (last if selection.inner_steps is None else selection.inner_steps) == steps, name
    assert quoted > 0
