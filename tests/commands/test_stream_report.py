"""What an evaluation tells about streams, and the files that it writes."""

from __future__ import annotations

import math
from dataclasses import replace
from pathlib import Path

from metarun.commands.stream_report import stream_sentence, write_matrices
from metarun.engine.report import Report

STREAM = {
    "parts": 3,
    "per_part": 15,
    "held_out_per_part": 5,
    "batch": 1,
    "one_pass": True,
    "lengths": [2, 3],
    "held_out": [0.9, 0.75],
    "held_out_ci95": [0.01, 0.02],
    "seen": [0.95, 0.9],
    "seen_ci95": [0.005, math.nan],
    "forgetting": 0.125,
    "forgetting_ci95": 0.03,
}
FACTS = {"split": "test", "seed": 7, "population": {"count": 203, "kind": "test classes", "covers_new": True}}
NAN = math.nan


def report(metric: str = "accuracy", **changes: object) -> Report:
    numbers = dict.fromkeys(("mean", "ci95", "median", "std"), 0.5)
    counts = {"episodes": 10, "diverged": 0, "not_finite": 0}
    lists: dict[str, list] = {"by_step": [0.5], "median_by_step": [0.5], "steps": [0], "scores": [0.5] * 10}
    none = dict.fromkeys(("finite_mean", "finite_ci95", "nll", "ece", "baseline"))
    matrix = [[1.0, NAN, NAN], [0.8, 1.0, NAN], [0.5, 0.75, 1.0]]
    return Report(metric=metric, **numbers, **counts, **lists, **none, stream={**STREAM, **changes}, stream_matrix=matrix)


def test_the_sentence_has_the_scores_after_each_length_and_says_how_the_learner_saw_the_stream():
    assert stream_sentence(report(), FACTS) == (
        "after 2/3 classes: accuracy 90.00 % ± 1.00 / 75.00 % ± 2.00 held out; 95.00 % ± 0.50 / 90.00 % seen; forgetting 12.50 % ± 3.00  "
        "[95 % interval over 10 test trajectories of 203 test classes, one pass, 15 examples a class, 5 held out, seed 7]"
    )


def test_a_learner_of_all_examples_at_once_is_named_and_has_no_forgetting():
    told = stream_sentence(report(one_pass=False, forgetting=None, forgetting_ci95=None), FACTS)
    assert "adapted anew to all examples so far" in told
    assert "forgetting" not in told


def test_a_regression_speaks_of_functions_and_errors():
    told = stream_sentence(report("mse"), {**FACTS, "population": None})
    assert told.startswith("after 2/3 functions: mse 0.9000 ± 0.0100 / 0.7500 ± 0.0200 held out; ")
    assert "forgetting 0.1250 ± 0.0300" in told
    assert "15 examples a function" in told


def test_the_matrix_is_written_as_csv_and_as_a_picture_and_several_runs_have_numbers(tmp_path: Path):
    assert write_matrices([report()], tmp_path, "test") == [tmp_path / "stream_matrix.png"]
    assert (tmp_path / "stream_matrix.csv").read_text().splitlines()[1:] == ["1,1,,", "2,0.8,1,", "3,0.5,0.75,1"]
    assert (tmp_path / "stream_matrix.png").read_bytes().startswith(b"\x89PNG")
    write_matrices([report(), replace(report(one_pass=False), stream_matrix=report().stream_matrix[1:])], tmp_path, "test")
    assert (tmp_path / "stream_matrix_2.csv").read_text().splitlines()[1:] == ["2,0.8,1,", "3,0.5,0.75,1"]


def test_a_report_of_another_task_has_no_matrix(tmp_path: Path):
    assert write_matrices([replace(report(), stream=None)], tmp_path / "none", "test") == []
    assert not (tmp_path / "none").exists()
