"""Predictions of a table: in the unit of its target, equal to those from Python, and scored where the targets are known."""

from __future__ import annotations

import csv
import math
from pathlib import Path

import numpy as np
import pytest
from small_runs import predict

from metarun.commands.model import load
from metarun.commands.predicting.table import Predicted, scores
from metarun.errors import UserError
from metarun.tasks.tables.table_rows import TableRows

KNOWN = "city,x,word,y\nA,1,b,160\nA,2,a,120\nB,1,b,170\nB,4,a,180\n"
NEW = "id,word,x,city\n7,a,4,B\n8,b,3,A\n9,c,0,A\n"


def read(folder: Path) -> list[dict[str, str]]:
    with (folder / "predictions.csv").open(encoding="utf-8", newline="") as file:
        return list(csv.DictReader(file))


def test_each_query_is_predicted_from_the_known_rows_of_its_task_as_in_python(
    table_run: Path, tmp_path: Path, capsys: pytest.CaptureFixture[str]
) -> None:
    (tmp_path / "known.csv").write_text(KNOWN)
    (tmp_path / "new.csv").write_text(NEW)
    report = predict(table_run, tmp_path / "known.csv", tmp_path / "new.csv", tmp_path / "p")
    rows = read(tmp_path / "p")
    assert list(rows[0]) == ["id", "word", "x", "city", "y predicted", "y low 90 %", "y high 90 %"]
    assert [row["id"] for row in rows] == ["7", "8", "9"]
    model = load(table_run, device="cpu")
    for city, known, new in (
        ("A", ([1.0, 2.0], ["b", "a"], [160, 120]), ([3, 0], ["b", "c"])),
        ("B", ([1, 4], ["b", "a"], [170, 180]), ([4], ["a"])),
    ):
        predictor = model.adapt({"x": known[0], "word": known[1]}, {"y": known[2]})
        mine = [row for row in rows if row["city"] == city]
        assert [float(row["y predicted"]) for row in mine] == predictor.predict({"x": new[0], "word": new[1]})[:, 0].tolist()
        ends = predictor.interval({"x": new[0], "word": new[1]})
        assert ends is not None
        assert [float(row["y low 90 %"]) for row in mine] == ends[0][:, 0].tolist()
    assert (report["tasks"], report["known_rows"], report["queries"], report["targets"]) == (2, 4, 3, {})
    assert "the column 'word' has words that no training task has (c), in 1 of 7 rows" in capsys.readouterr().out


def test_known_targets_of_the_queries_are_scored_in_their_unit(table_run: Path, tmp_path: Path) -> None:
    (tmp_path / "known.csv").write_text(KNOWN)
    (tmp_path / "new.csv").write_text("city,x,word,y\nA,3,b,210\nB,0,a,\nB,2,a,140\n")
    report = predict(table_run, tmp_path / "known.csv", tmp_path / "new.csv", tmp_path / "p")
    rows = read(tmp_path / "p")
    errors = [float(rows[0]["y predicted"]) - 210, float(rows[2]["y predicted"]) - 140]
    scored = report["targets"]["y"]
    assert scored["rows"] == 2
    assert scored["mae"] == pytest.approx(sum(map(abs, errors)) / 2)
    assert scored["rmse"] == pytest.approx(math.sqrt(sum(error * error for error in errors) / 2))
    assert scored["mae_of_the_mean"] == pytest.approx((abs(140 - 210) + abs(175 - 140)) / 2)
    assert rows[1]["y"] == ""


def test_abstain_is_for_pictures(table_run: Path, tmp_path: Path) -> None:
    with pytest.raises(UserError, match="this run predicts numbers; leave it out"):
        predict(table_run, tmp_path, tmp_path, tmp_path / "p", abstain=0.1)


def test_the_scores_by_hand() -> None:
    """Errors 1, -3 and 2 of three rows: mean absolute error 2, its deviation 1; two of three targets inside."""
    rows = TableRows("new.csv", ("x", "y"), [["0", "1"]] * 4, {}, {"y": np.array([1.0, 5.0, math.nan, 3.0])}, None)
    values = np.array([[2.0], [2.0], [9.0], [5.0]])
    lines, facts = scores(rows, ["y"], Predicted(values, np.zeros((4, 1)), values - 2, values + 2))
    assert facts["y"]["mae"] == 2.0
    assert facts["y"]["mae_ci95"] == pytest.approx(4.30265273 / math.sqrt(3))  # Student's t, two degrees of freedom
    assert facts["y"]["mae_of_the_mean"] == 3.0
    assert facts["y"]["inside_90"] == pytest.approx(2 / 3)
    assert lines[0].startswith("y: mean absolute error 2 ± 2.48 (95 % interval over 3 rows)")
    assert scores(rows, ["y"], Predicted(values, values, None, None))[1]["y"].get("inside_90") is None
