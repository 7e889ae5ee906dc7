"""The files and the line of text that report an evaluation."""

from __future__ import annotations

import csv
import dataclasses
import json
import math
from pathlib import Path
from typing import Any

from metarun.commands import report_files
from metarun.engine.report import Report


def report_of(metric: str, mean: float, ci95: float, **figures: Any) -> Report:
    """A report of ten episodes with these figures."""
    known: dict[str, Any] = {field.name: None for field in dataclasses.fields(Report)}
    rest = {"episodes": 10, "diverged": 0, "not_finite": 0, "scores": [], "nlls": []}
    return Report(**known | rest | {"metric": metric, "mean": mean, "ci95": ci95} | figures)


REGRESSED = {"ways": None, "shots": 5, "queries": 10, "norm": None, "inner_steps": 1, "split": "test", "seed": 0}
CLASSIFIED = {"ways": 5, "shots": 1, "queries": 4, "norm": None, "inner_steps": 0, "split": "test", "seed": 0}


def test_a_sentence_counts_diverged_episodes():
    said = report_files.sentence(report_of("mse", 1.0, 0.1, median=0.9, baseline=3.0, diverged=2), REGRESSED)
    assert said.startswith("mse 1.0000 ± 0.1000 (median 0.9000, mean predictor 3.0000)  [95 % interval over 10 test episodes, 5 shots")
    assert said.endswith("1 inner step, seed 0, 2 diverged]")


def test_a_regression_with_tasks_that_are_not_finite_says_how_many_and_the_mean_over_the_others():
    broken = {"median": 0.9, "baseline": 3.0, "diverged": 3, "not_finite": 3, "finite_mean": 0.5, "finite_ci95": 0.25}
    said = report_files.sentence(report_of("mse", math.inf, math.inf, **broken), REGRESSED)
    expected = "mse inf, since 3 of 10 tasks are not finite (over the others mse 0.5000 ± 0.2500; median 0.9000, mean predictor 3.0000)  ["
    assert said.startswith(expected)
    none = report_files.sentence(report_of("mse", math.inf, math.inf, **broken | {"not_finite": 10, "finite_mean": math.nan}), REGRESSED)
    assert "(there is no other task; median" in none


def test_one_episode_has_a_score_without_an_interval():
    assert report_files.sentence(report_of("accuracy", 0.5, math.nan), CLASSIFIED).startswith("accuracy 50.00 %  [95 %")


def test_a_count_of_one_has_a_singular():
    population = {"count": 1, "kind": "test tasks", "covers_new": True}
    facts = {**REGRESSED, "shots": 1, "queries": 1, "population": population}
    said = report_files.sentence(report_of("mse", 1.0, math.nan, median=1.0, baseline=3.0, episodes=1), facts)
    assert "over 1 test episode of 1 test task, 1 shot, 1 query, 1 inner step" in said
    said = report_files.sentence(report_of("accuracy", 0.5, 0.1), {**CLASSIFIED, "queries": 1})
    assert "5-way 1-shot, 1 query a class" in said


def test_a_sentence_says_how_many_classes_the_episodes_come_from_and_that_the_same_classes_say_nothing_about_new_ones():
    population = {"count": 423, "kind": "test classes", "covers_new": True}
    said = report_files.sentence(report_of("accuracy", 0.9, 0.01), {**CLASSIFIED, "population": population})
    assert "[95 % interval over 10 test episodes of 423 test classes, 5-way" in said
    limited = population | {"count": 5, "covers_new": False}
    said = report_files.sentence(report_of("accuracy", 0.9, 0.01), {**CLASSIFIED, "population": limited})
    assert "10 test episodes of the same 5 test classes (the interval does not cover new test classes), 5-way" in said


def test_a_sentence_gives_the_range_of_sizes_that_vary():
    said = report_files.sentence(report_of("mse", 1.0, 0.1, median=0.9, baseline=3.0), {**REGRESSED, "min_shots": 1})
    assert "test episodes, 1 to 5 shots, 10 queries" in said
    said = report_files.sentence(report_of("accuracy", 0.9, 0.01), {**CLASSIFIED, "min_ways": 3, "min_shots": 1})
    assert "3 to 5-way 1-shot, 4 queries a class" in said, "shots from 1 to 1 do not vary"


def test_an_overlap_that_is_allowed_is_in_the_sentence():
    overlap = {"shared": 258, "of": 423, "split": "test", "kind": "classes"}
    said = report_files.sentence(report_of("accuracy", 0.9, 0.01), {**CLASSIFIED, "overlap": overlap})
    assert "258 of the 423 test classes are training classes, 5-way 1-shot" in said


def test_a_sentence_names_the_accuracies_by_presentation_that_there_are():
    report = report_of("accuracy", 0.9, 0.01, by_presentation=[0.2, 0.75, 0.8, 0.85, 0.9])
    assert "; by presentation 1/2/5: 20.0/75.0/90.0 %  [" in report_files.sentence(report, CLASSIFIED)


def test_numbers_that_are_not_finite_are_null_in_json(tmp_path: Path):
    report_files.write_json(tmp_path / "deep/report.json", {"a": math.nan, "b": [1.0, math.inf], "c": {"d": -math.inf, "e": "text"}})
    assert json.loads((tmp_path / "deep/report.json").read_text()) == {"a": None, "b": [1.0, None], "c": {"d": None, "e": "text"}}


def test_the_negative_log_likelihoods_have_a_column_where_the_report_has_them(tmp_path: Path) -> None:
    plain = report_of("mse", 1.0, 0.1, scores=[0.5, 1.5])
    with_nlls = report_of("mse", 1.0, 0.1, scores=[0.5, 1.5], nlls=[0.1, 0.5])
    for name, report in (("plain", plain), ("nlls", with_nlls)):
        report_files.write_scores(tmp_path / name, report)
    assert list(csv.reader((tmp_path / "plain").read_text().splitlines())) == [["episode", "mse"], ["0", "0.5"], ["1", "1.5"]]
    rows = list(csv.reader((tmp_path / "nlls").read_text().splitlines()))
    assert rows == [["episode", "mse", "nll"], ["0", "0.5", "0.1"], ["1", "1.5", "0.5"]]


def test_the_joint_likelihoods_have_a_column_beside_the_marginal_ones(tmp_path: Path) -> None:
    report = report_of("mse", 1.0, 0.1, scores=[0.5, 1.5], nlls=[0.1, 0.5], joint_nlls=[0.2, 0.4])
    report_files.write_scores(tmp_path / "scores", report)
    rows = list(csv.reader((tmp_path / "scores").read_text().splitlines()))
    assert rows == [["episode", "mse", "nll", "joint_nll"], ["0", "0.5", "0.1", "0.2"], ["1", "1.5", "0.5", "0.4"]]


def regression(**figures: Any) -> Report:
    shared = {"median": 0.9, "baseline": 3.0, "nll": 1.8, "nll_ci95": 0.05, "coverage90": 0.9}
    return report_of("mse", 1.0, 0.1, **shared, **figures)


def test_a_sentence_has_the_joint_likelihood_and_the_bound_of_the_task() -> None:
    bayes = {"nll": 1.1, "joint_nll": 0.35, "mse": 2.03, "point_nll": 1.77}
    text = report_files.sentence(regression(joint_nll=1.7, variance=0.2, bayes=bayes), REGRESSED)
    assert "; nll 1.800 ± 0.050, joint 1.700, 90 % interval covers 90.0 %; Bayes nll 1.100, joint 0.350, mse 2.0300" in text
    assert "mse 2.0300, its mean as a point prediction: nll 1.770  [" in text


def test_a_sentence_has_the_errors_in_the_units_of_the_first_targets() -> None:
    errors = {"rmse": 12.34, "rmse_low": 11.2, "rmse_high": 13.4, "mae": 9.06, "mae_ci95": 0.83, "unit": 30.0}
    regressed = {"median": 0.9, "baseline": 3.0}
    said = report_files.sentence(report_of("mse", 1.0, 0.1, **regressed, by_target={"price": errors}), REGRESSED)
    assert "mean predictor 3.0000); price: RMSE 12.34 (11.2 to 13.4), MAE 9.06 ± 0.83  [" in said
    one_episode = {"rmse": 2.0, "rmse_low": math.nan, "rmse_high": math.nan, "mae": 1.0, "mae_ci95": math.nan, "unit": 1.0}
    assert report_files.targets_told({"a": one_episode}) == "; a: RMSE 2, MAE 1"
    assert (
        report_files.targets_told({"a": {"rmse": 2.0, "rmse_ci95": 0.5, "mae": 1.0, "mae_ci95": 0.25}}) == "; a: RMSE 2 ± 0.5, MAE 1 ± 0.25"
    )
    assert report_files.targets_told(dict.fromkeys("abcde", errors)).endswith("; 2 more targets in report.json")
    assert report_files.targets_told(None) == ""


def test_each_targets_errors_by_episode_have_columns(tmp_path: Path) -> None:
    report = report_of("mse", 1.0, 0.1, scores=[1.0, 2.0], target_errors={"rmse a": [3.0, 4.0], "mae a": [5.0, 6.0]})
    report_files.write_scores(tmp_path / "scores.csv", report)
    rows = list(csv.reader((tmp_path / "scores.csv").read_text().splitlines()))
    assert rows == [["episode", "mse", "rmse a", "mae a"], ["0", "1.0", "3.0", "5.0"], ["1", "2.0", "4.0", "6.0"]]


def test_a_likelihood_that_is_not_finite_has_no_interval_and_an_equal_joint_one_is_left_out() -> None:
    text = report_files.sentence(dataclasses.replace(regression(joint_nll=math.inf), nll=math.inf, nll_ci95=math.inf), REGRESSED)
    assert "; nll inf, 90 % interval covers" in text
    assert "; nll 1.800 ± 0.050, 90 % interval covers" in report_files.sentence(regression(joint_nll=1.8004), REGRESSED)


def test_a_sentence_has_the_likelihood_under_a_learned_variance_only_beside_a_fitted_one() -> None:
    assert "under the learned variance 1.900" in report_files.sentence(regression(own_nll=1.9, variance=0.2), REGRESSED)
    assert "learned variance" not in report_files.sentence(regression(own_nll=1.8), REGRESSED)
    assert "Bayes" not in report_files.sentence(regression(), REGRESSED)


def test_a_drawn_split_is_written_and_a_missing_one_is_not(tmp_path: Path) -> None:
    report_files.write_splits({"task": {"classes": {"train": ["oak"]}, "tasks": None}}, tmp_path)
    assert [file.name for file in tmp_path.iterdir()] == ["classes.json"]
    assert json.loads((tmp_path / "classes.json").read_text()) == {"train": ["oak"]}


def test_names_of_classes_stand_as_they_are_in_json_and_halves_of_characters_as_escapes(tmp_path: Path) -> None:
    content = {"Eichhörnchen": ["蟹", "M\udcfcller", "a\nb"]}
    report_files.write_json(tmp_path / "classes.json", content)
    text = (tmp_path / "classes.json").read_text(encoding="utf-8")
    assert '"Eichhörnchen"' in text
    assert '"蟹"' in text
    assert r'"M\udcfcller"' in text
    assert json.loads(text) == content


def test_a_run_folder_gets_the_classes_and_what_was_left_out(tmp_path: Path) -> None:
    left_out = {"classes": {"oak": 4}, "files": {"elm/1.jpg": "empty"}}
    report_files.write_splits({"task": {"classes": {"train": ["a"]}, "left_out": left_out}}, tmp_path)
    assert json.loads((tmp_path / "left_out.json").read_text()) == left_out
    report_files.write_splits({"task": {"classes": {"train": ["a"]}, "left_out": None}}, tmp_path / "other")
    assert not (tmp_path / "other" / "left_out.json").exists()
