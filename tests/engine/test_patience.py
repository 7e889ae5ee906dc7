"""Early stopping, by hand-made scores."""

from __future__ import annotations

import json
from pathlib import Path
from typing import Any

import pytest
from small import composed

from metarun.commands.train import train
from metarun.engine.patience import check_patience, check_patience_left, early_line, is_exhausted, unimproved_after
from metarun.errors import UserError


def after(scores: list[float | None], sign: float = 1.0) -> list[int]:
    """Return the number of validations without a better score after each of these scores."""
    best: dict[str, Any] | None = None
    counts, unimproved = [], 0
    for step, score in enumerate(scores):
        if score is not None and (best is None or sign * score > sign * best["score"]):
            best = {"score": score, "step": step}
        unimproved = unimproved_after(best, step, unimproved)
        counts.append(unimproved)
    return counts


def test_only_a_better_score_starts_the_count_anew() -> None:
    assert after([0.5, 0.4, 0.5, 0.6, 0.6, 0.1]) == [0, 1, 2, 0, 1, 2]


def test_validations_without_a_score_count_too() -> None:
    assert after([None, None, 0.1, None]) == [1, 2, 0, 1]


def test_patience_is_used_up_after_that_many_validations() -> None:
    assert [is_exhausted(2, unimproved) for unimproved in range(4)] == [False, False, True, True]
    assert not is_exhausted(None, 1000)


def test_patience_without_validations_is_refused() -> None:
    with pytest.raises(UserError, match="patience=3 counts validations, and eval_every=0 allows none"):
        check_patience(3, 0)
    check_patience(3, 1)
    check_patience(None, 0)


def test_a_run_whose_patience_is_used_up_is_not_resumed_as_it_is() -> None:
    with pytest.raises(UserError, match=r"ended early at step 40, since 2 validations in a row .* larger patience=, or patience=null"):
        check_patience_left(2, 2, 40)
    check_patience_left(3, 2, 40)
    check_patience_left(None, 2, 40)


def test_the_line_for_a_person_has_the_numbers() -> None:
    assert early_line(30, 100, 1) == "ended early at step 30 of 100: 1 validation in a row brought no better score"


SHORT = ("task=sinusoid", "backbone=mlp", "backbone.widths=[4]", "tasks_per_step=1", "eval_episodes=2", "logger=jsonl", "device=cpu")


def test_a_run_that_ends_early_has_its_report_and_goes_on_only_with_more_patience(
    tmp_path: Path, capsys: pytest.CaptureFixture[str]
) -> None:
    """At a learning rate of 0 every score is equal, so the second and third validation bring no better one."""
    run = tmp_path / "run"
    error = train(composed(*SHORT, "optimizer.lr=0", "steps=5", "eval_every=1", "patience=2", "device.threads=1"), run)
    report = json.loads((run / "report.json").read_text())
    assert (report["stopped_early"], report["steps"], report["best"]["step"]) == (True, 3, 1)
    assert error == report["best"]["score"]
    assert "ended early at step 3 of 5: 2 validations in a row brought no better score" in capsys.readouterr().out
    resumed: dict[str, Any] = {"resume": str(run), "overrides": {}, "groups": {}}
    with pytest.raises(UserError, match="ended early at step 3"):
        train(dict(resumed), run)
    train({**resumed, "overrides": {"patience": None}}, run)
    report = json.loads((run / "report.json").read_text())
    assert (report["stopped_early"], report["steps"]) == (False, 5)


def test_patience_without_validations_is_refused_before_anything_is_built(tmp_path: Path) -> None:
    with pytest.raises(UserError, match="patience=2 counts validations"):
        train(composed(*SHORT, "eval_every=0", "patience=2"), tmp_path / "run")
