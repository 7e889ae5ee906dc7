"""The files and the line of text that report an evaluation."""

from __future__ import annotations

import csv
import json
import math
from pathlib import Path

from metarun.commands import report_files
from metarun.engine.report import Report


def test_a_sentence_counts_diverged_episodes():
    report = Report("mse", 1.0, 0.1, 0.9, 0.5, 10, 2, [1.0], [0], None, None, 3.0, [])
    facts = {"ways": None, "shots": 5, "queries": 10, "norm": None, "inner_steps": 1, "split": "test", "seed": 0}
    assert report_files.sentence(report, facts).endswith("1 inner steps, seed 0, 2 diverged]")


def test_a_sentence_names_the_accuracies_by_presentation_that_there_are():
    report = Report("accuracy", 0.9, 0.01, 0.9, 0.1, 10, 0, [0.9], [0], 0.3, 0.0, None, [], by_presentation=[0.2, 0.75, 0.8, 0.85, 0.9])
    facts = {"ways": 5, "shots": 1, "queries": 4, "norm": None, "inner_steps": 0, "split": "test", "seed": 0}
    assert "; by presentation 1/2/5: 20.0/75.0/90.0 %  [" in report_files.sentence(report, facts)


def test_numbers_that_are_not_finite_are_null_in_json(tmp_path: Path):
    report_files.write_json(tmp_path / "deep/report.json", {"a": math.nan, "b": [1.0, math.inf], "c": {"d": -math.inf, "e": "text"}})
    assert json.loads((tmp_path / "deep/report.json").read_text()) == {"a": None, "b": [1.0, None], "c": {"d": None, "e": "text"}}


def test_the_negative_log_likelihoods_have_a_column_where_the_report_has_them(tmp_path: Path) -> None:
    plain = Report("mse", 1.0, 0.1, 0.9, 0.5, 2, 0, [1.0], [0], None, None, 3.0, [0.5, 1.5])
    with_nlls = Report("mse", 1.0, 0.1, 0.9, 0.5, 2, 0, [1.0], [0], 0.3, None, 3.0, [0.5, 1.5], nlls=[0.1, 0.5])
    for name, report in (("plain", plain), ("nlls", with_nlls)):
        report_files.write_scores(tmp_path / name, report)
    assert list(csv.reader((tmp_path / "plain").read_text().splitlines())) == [["episode", "mse"], ["0", "0.5"], ["1", "1.5"]]
    rows = list(csv.reader((tmp_path / "nlls").read_text().splitlines()))
    assert rows == [["episode", "mse", "nll"], ["0", "0.5", "0.1"], ["1", "1.5", "0.5"]]


def test_a_drawn_split_is_written_and_a_missing_one_is_not(tmp_path: Path) -> None:
    report_files.write_splits({"task": {"classes": {"train": ["oak"]}, "tasks": None}}, tmp_path)
    assert [file.name for file in tmp_path.iterdir()] == ["classes.json"]
    assert json.loads((tmp_path / "classes.json").read_text()) == {"train": ["oak"]}
