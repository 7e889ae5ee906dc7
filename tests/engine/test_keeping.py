"""Which validations of a run are its k best, and under which names it saves them."""

from __future__ import annotations

from typing import Any

import pytest

from metarun.engine.keeping import after_validation, kept_files


def validated(scores: list[float], keep: int, sign: float = 1.0) -> tuple[dict[str, Any] | None, list[list[str]]]:
    """Return the best after validations with these scores at the steps 10, 20, …, and the names saved at each."""
    best, saved = None, []
    for number, score in enumerate(scores, start=1):
        best, names = after_validation(best, {"score": score, "step": 10 * number}, keep, sign)
        saved.append(names)
    return best, saved


def test_the_best_validations_are_kept_and_every_one_of_them_is_saved_when_it_comes():
    best, saved = validated([0.3, 0.5, 0.4, 0.2, 0.6], keep=3)
    assert saved == [["best.pt", "step_10.pt"], ["best.pt", "step_20.pt"], ["step_30.pt"], [], ["best.pt", "step_50.pt"]]
    assert kept_files(best) == ["step_50.pt", "step_20.pt", "step_30.pt"]
    assert best is not None
    assert (best["score"], best["step"]) == (0.6, 50)


def test_where_a_lower_score_is_better_the_lowest_are_kept():
    best, saved = validated([0.3, 0.5, 0.4, 0.2], keep=2, sign=-1.0)
    assert kept_files(best) == ["step_40.pt", "step_10.pt"]
    assert saved == [["best.pt", "step_10.pt"], ["step_20.pt"], ["step_30.pt"], ["best.pt", "step_40.pt"]]


def test_of_equal_scores_the_earlier_ones_are_kept():
    best, saved = validated([0.5, 0.5, 0.5], keep=2)
    assert kept_files(best) == ["step_10.pt", "step_20.pt"]
    assert saved == [["best.pt", "step_10.pt"], ["step_20.pt"], []]


@pytest.mark.parametrize("sign", [1.0, -1.0])
def test_a_run_that_keeps_one_has_no_list_and_no_further_file(sign: float):
    best, saved = validated([sign * score for score in (0.3, 0.5, 0.4)], keep=1, sign=sign)
    assert best == {"score": sign * 0.5, "step": 20}
    assert saved == [["best.pt"], ["best.pt"], []]
    assert kept_files(best) == kept_files(None) == []
