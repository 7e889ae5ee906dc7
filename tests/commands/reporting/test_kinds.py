"""The sections of families, targets, ratings and streams."""

from __future__ import annotations

import os
from pathlib import Path
from typing import Any

from report_entries import entry, regression

from metarun.commands.reporting.drawing import Gallery
from metarun.commands.reporting.kinds import (
    families_section,
    ratings_section,
    ratings_sentences,
    read_matrix,
    stream_section,
    targets_section,
)
from metarun.commands.reporting.page import Picture, Section, Table


def tables(section: Section | None) -> list[list[list[str]]]:
    assert section is not None
    return [[[cell.text for cell in row] for row in block.rows] for block in section.blocks if isinstance(block, Table)]


def names(section: Section | None) -> list[str]:
    assert section is not None
    return [block.name for block in section.blocks if isinstance(block, Picture)]


def test_each_family_has_its_score_and_its_baseline() -> None:
    by_family = {"line": {"mean": 0.4, "ci95": 0.05, "baseline": 3.0}, "sinusoid": {"mean": 1.25, "ci95": 0.25}}
    found = families_section([regression(by_family=by_family)], Gallery())
    assert tables(found) == [[["`maml`", "0.400 ± 0.050", "1.25 ± 0.25"], ["mean of the support targets", "3.000", "–"]]]
    assert names(found) == ["families"]
    assert families_section([regression()], Gallery()) is None


def test_each_target_has_its_errors_in_its_own_unit() -> None:
    by_target = {"price": {"rmse": 12.3, "rmse_low": 11.0, "rmse_high": 13.5, "mae": 9.1, "mae_ci95": 0.81}}
    assert tables(targets_section([regression(by_target=by_target)])) == [[["`maml`", "price", "12.3", "11 to 13.5", "9.1 ± 0.81"]]]
    assert targets_section([regression(by_target=None)]) is None


def ratings(mae: float, minus: float, half: float = 0.01) -> dict[str, Any]:
    def score(value: float) -> dict[str, Any]:
        return {"mae": {"mean": value, "ci95": 0.02}, "ndcg@3": {"mean": 0.7, "ci95": 0.02}, "recall@5": {"mean": 0.1, "ci95": 0.02}}

    baselines = {"item_user_bias": score(0.75), "support_mean": score(0.8), "stranger": score(0.1)}
    return {"users": 122, "model": score(mae), "baselines": baselines, "minus_item_user_bias": {"mae": {"mean": minus, "ci95": half}}}


def test_ratings_stand_beside_their_baselines() -> None:
    short, full = tables(ratings_section([regression(ratings=ratings(0.7, -0.05))], Gallery()))
    assert short[0] == ["the model", "0.700 ± 0.020", "0.700 ± 0.020"]
    assert short[-1][1] == "−0.050 ± 0.010"
    assert [row[0] for row in full] == ["the model", "item + user bias", "mean of the known ratings"]
    assert ratings_section([regression(ratings=None)], Gallery()) is None


def test_the_verdict_compares_ratings_with_item_and_user_bias() -> None:
    better, worse, tied = (ratings_sentences([regression(ratings=ratings(0.7, minus))])[0] for minus in (-0.05, 0.05, 0.001))
    assert better == "`maml` is better than item + user bias by 0.050 ± 0.010 in mean absolute error, over 122 users."
    assert "is worse than" in worse
    assert "not separated" in tied


def test_evaluations_of_several_numbers_of_known_ratings_are_a_curve() -> None:
    found = [regression(f"k{shots}", ratings=ratings(1 / shots, 0.0), shots=shots) for shots in (5, 1, 10)]
    assert names(ratings_section(found, Gallery())) == ["ratings"]
    assert names(ratings_section(found[:1], Gallery())) == []


STREAM = {
    "lengths": [1, 2],
    "held_out": [0.9, 0.8],
    "held_out_ci95": [0.1, 0.1],
    "average": 0.8,
    "average_ci95": 0.1,
    "forgetting": 0.05,
    "forgetting_ci95": None,
}


def test_a_stream_has_its_curve_its_figures_and_its_matrix(tmp_path: Path) -> None:
    (tmp_path / "stream_matrix.csv").write_text("after,1,2\n1,0.9,\n2,0.8,0.7\n", encoding="utf-8")
    found = stream_section([entry(stream=STREAM, evaluation=tmp_path)], Gallery())
    assert names(found) == ["stream", "stream_matrix"]
    assert tables(found)[0][0][:2] == ["`maml`", "80 % ± 10"]
    assert stream_section([entry()], Gallery()) is None


def test_a_matrix_of_another_form_is_no_matrix(tmp_path: Path) -> None:
    file = tmp_path / "stream_matrix.csv"
    assert read_matrix(tmp_path) is None
    for content in ("", "after,1\nx,0.5\n", "after,1,2\n1,0.9\n2,0.8,0.7\n", "after,1\n1,zero\n"):
        file.write_text(content, encoding="utf-8")
        assert read_matrix(tmp_path) is None
    file.write_text("after,1\n1,nan\n", encoding="utf-8")
    assert read_matrix(tmp_path) == ([1], [[None]])


def test_a_pipe_is_no_matrix(tmp_path: Path) -> None:
    os.mkfifo(tmp_path / "stream_matrix.csv")
    assert read_matrix(tmp_path) is None


def test_models_of_different_metrics_keep_their_units_and_share_no_chart() -> None:
    streams = stream_section([entry(stream=STREAM), regression("sine", stream={**STREAM, "average": 3.2})], Gallery())
    assert (names(streams), [row[1] for row in tables(streams)[0]]) == ([], ["80 % ± 10", "3.20 ± 0.10"])
    errors = regression("sine", by_family={"b": {"mean": 3.2, "ci95": 0.1, "baseline": 4.0}})
    families = families_section([entry(by_family={"a": {"mean": 0.8, "ci95": 0.1}}), errors], Gallery())
    assert (names(families), tables(families)) == ([], [[["`maml`", "80 % ± 10", "–"], ["`sine`", "–", "3.20 ± 0.10"]]])
