"""What an evaluation tells about streams, and the files that it writes."""

from __future__ import annotations

import json
import math
from dataclasses import replace
from pathlib import Path
from types import SimpleNamespace
from typing import Any

import pytest
import torch
from small import composed
from small_runs import CONV, SHORT, evaluate

from metarun.commands.evaluate import _check_ensemble
from metarun.commands.stream_report import stream_sentence, write_matrices
from metarun.commands.train import train
from metarun.engine.report import Report
from metarun.errors import UserError
from metarun.tasks.stream import Streams
from metarun.types import WithStream

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


def test_a_place_that_cannot_be_written_is_one_sentence(tmp_path: Path):
    (tmp_path / "stream_matrix.png").mkdir()
    with pytest.raises(UserError, match=r"cannot write .*stream_matrix\.png"):
        write_matrices([report()], tmp_path, "test")


def test_a_report_of_another_task_has_no_matrix(tmp_path: Path):
    assert write_matrices([replace(report(), stream=None)], tmp_path / "none", "test") == []
    assert not (tmp_path / "none").exists()


def stream_config(*overrides: str) -> dict[str, Any]:
    """Return the config of a short training on streams of small images, with as many epochs as `SHORT` has steps."""
    source = {"_target_": "small.split_images", "ways": 2, "shots": 3, "queries": 2, "classes": None}
    sizes = {"classes": 3, "val_classes": None, "per_class": 3, "held_out": 2, "train_classes": 2, "lengths": [1, 2], "trajectories": 2}
    task = {"_target_": "metarun.tasks.stream.Streams", "source": source, **sizes, "seed": 0, "eval_seed": 0}
    return {**composed(*SHORT, *overrides), "task": task, "backbone": dict(CONV)}


def test_a_run_and_its_evaluation_leave_the_matrix_and_the_figures(tmp_path: Path, capsys: pytest.CaptureFixture[str]):
    run = tmp_path / "run"
    train(stream_config("algo=protonet"), run)
    lines = [json.loads(line) for line in (run / "metrics.jsonl").read_text().splitlines()]
    assert {"val_stream/1", "val_stream/2", "val_stream/3"} <= lines[-1].keys()
    assert json.loads((run / "report.json").read_text())["last"]["stream"]["lengths"] == [1, 2, 3]
    assert (run / "stream_matrix.csv").read_text().startswith("after,1,2,3\n1,")
    assert (run / "classes.json").is_file()
    capsys.readouterr()
    found = evaluate(run, tmp_path / "eval", typed=["checkpoint"])
    assert capsys.readouterr().out.startswith("after 1/2/3 classes: accuracy ")
    assert found["episodes"] == 2
    assert found["stream"]["held_out"][-1] == pytest.approx(found["mean"])
    assert found["stream"]["one_pass"] is False
    assert "stream_matrix" not in found
    assert (tmp_path / "eval/stream_matrix.png").is_file()
    assert evaluate(run, tmp_path / "again", typed=["episodes"])["episodes"] == 4


def test_a_resumed_run_on_streams_ends_as_one_that_never_stopped(tmp_path: Path):
    whole, parts = tmp_path / "whole", tmp_path / "parts"
    train(stream_config("algo=protonet"), whole)
    train(stream_config("algo=protonet", "steps=2"), parts)
    train({"resume": str(parts), "overrides": {"steps": 4, "trust": ["small"]}, "groups": {}}, parts)
    first, second = (torch.load(folder / "checkpoints/last.pt", weights_only=True)["params"] for folder in (whole, parts))
    assert all(torch.equal(first[name], second[name]) for name in first)


def test_an_ensemble_does_not_learn_from_a_stream():
    learner = SimpleNamespace(**dict.fromkeys(("start", "features", "learn", "answer"), print))
    assert isinstance(learner, WithStream)
    parts: Any = SimpleNamespace(source=object.__new__(Streams), algorithm=learner)
    with pytest.raises(UserError, match="ensemble=false"):
        _check_ensemble(parts, [[1, 2]])  # type: ignore[list-item]
    _check_ensemble(parts, [[1], [2]])  # type: ignore[list-item]
