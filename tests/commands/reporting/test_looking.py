"""A look at the episodes of a stored evaluation."""

from __future__ import annotations

import dataclasses
import statistics
from pathlib import Path

import pytest
import torch
from small_runs import evaluate

from metarun.commands.class_names import names_by_number
from metarun.commands.reporting.looking import Looker
from metarun.errors import UserError
from metarun.tasks.pool import ClassPool, numbers_of
from metarun.tasks.sampling import FewShot


def test_the_predictions_of_a_look_give_the_scores_of_the_evaluation(maml_run: Path, tmp_path: Path) -> None:
    stored = evaluate(maml_run, tmp_path)
    look = Looker(stored, ["small"]).look(4, [0])
    assert look.episodes == 4
    assert statistics.fmean(right for _, right in look.confidence) == pytest.approx(stored["mean"])
    assert look.shown.keys() == {0}


def test_a_look_at_curves_has_the_truth_the_support_and_the_interval(sinusoid_run: Path, tmp_path: Path) -> None:
    stored = evaluate(sinusoid_run, tmp_path)
    look = Looker(stored).look(2, [1])
    curve = look.curves[1]
    assert curve.truth is not None
    assert curve.low is not None
    assert curve.high is not None
    assert (curve.low <= curve.high).all()
    assert len(curve.support) == stored["shots"]
    assert len(look.pairs) == 2 * stored["queries"]


def test_a_checkpoint_of_another_step_is_not_looked_at(maml_run: Path, tmp_path: Path) -> None:
    stored = evaluate(maml_run, tmp_path)
    with pytest.raises(UserError, match="but it was scored at step 999"):
        Looker({**stored, "step": 999}, ["small"])


def test_a_config_of_a_stranger_is_not_built_without_trust(maml_run: Path, tmp_path: Path) -> None:
    stored = evaluate(maml_run, tmp_path)
    with pytest.raises(UserError, match="trust"):
        Looker(stored)


def test_the_numbers_of_the_classes_lead_to_their_names() -> None:
    pool = ClassPool(torch.zeros(4, 1, 2, 2, dtype=torch.uint8), [2, 2], ["oak", "elm"])
    source = FewShot(dict.fromkeys(("train", "val", "test"), pool), ways=2, shots=1, queries=1, data="trees")
    numbers = numbers_of(["trees/oak", "trees/elm"]).tolist()
    assert names_by_number(source, "test") == dict(zip(numbers, ["oak", "elm"], strict=True))
    dealt = dataclasses.replace(source, class_numbers=True).episode("test", 0).support.classes
    assert dealt is not None
    assert set(dealt.tolist()) == set(numbers)
    assert names_by_number(object(), "test") == {}
