"""A run on several families of images, from the training to the report: every family has a score of its own everywhere."""

from __future__ import annotations

import csv
import dataclasses
import json
from pathlib import Path
from typing import Any

import pytest
from small import composed
from small_runs import SHORT, evaluate

from metarun.commands.train import train
from metarun.errors import UserError
from metarun.records import checkpoint
from metarun.records.tracking import TIME_KEYS
from metarun.testing import assert_same

SOURCES = {"few": {"ways": 3, "shots": 1, "queries": 2}, "many": {"ways": 2, "shots": 3, "queries": 4}}
"""The families differ in ways, shots and queries."""


def config(*words: str, **sizes: Any) -> dict[str, Any]:
    found = composed(*SHORT, "task=mixture", "algo=protonet", "eval_episodes=4", *words)
    node = {"_target_": "small.small_images", "seed": 0, "eval_seed": 0, **sizes}
    found["task"]["sources"] = {name: {**node, **source} for name, source in SOURCES.items()}
    found["backbone"] = {"_target_": "small.SmallConv", "filters": 2, "norm": "running"}
    return found


def lines(folder: Path) -> list[dict[str, Any]]:
    entries = [json.loads(line) for line in (folder / "metrics.jsonl").read_text().splitlines()]
    return [{key: value for key, value in entry.items() if key not in TIME_KEYS} for entry in entries]


@pytest.fixture(scope="module")
def run(tmp_path_factory: pytest.TempPathFactory) -> Path:
    folder = tmp_path_factory.mktemp("families") / "run"
    train(config(), folder)
    return folder


def test_each_validation_records_the_score_of_each_family_and_their_mean(run: Path):
    """Two episodes of each family, so the mean over the four episodes is the mean of the families."""
    for entry in (entry for entry in lines(run) if "val/accuracy" in entry):
        families = [entry[f"val/accuracy/{name}"] for name in SOURCES]
        assert entry["val/accuracy"] == pytest.approx(sum(families) / 2)
        assert {f"val/ci95/{name}" for name in SOURCES} <= entry.keys()
    best = json.loads((run / "report.json").read_text())["best"]
    assert best["mean"] == pytest.approx(sum(figures["mean"] for figures in best["by_family"].values()) / 2)


def test_a_resumed_run_knows_the_families_of_a_best_step_before_the_stop(run: Path, tmp_path: Path):
    """A score above all others stands for a best validation of the run that stopped."""
    last = checkpoint.load(run / "checkpoints/last.pt")
    assert last.best is not None
    best = {**last.best, "score": 2.0, "step": 0}
    checkpoint.save(tmp_path / "run/checkpoints/last.pt", dataclasses.replace(last, best=best))
    train({"resume": str(tmp_path / "run"), "overrides": {"steps": last.step + 1, "trust": ["small"]}, "groups": {}}, tmp_path / "run")
    found = json.loads((tmp_path / "run/report.json").read_text())["best"]
    assert (found["step"], list(found["by_family"])) == (0, list(SOURCES))


def test_an_evaluation_reports_each_family_in_the_line_the_report_and_the_scores(
    run: Path, tmp_path: Path, capsys: pytest.CaptureFixture[str]
):
    report = evaluate(run, tmp_path / "eval", episodes=6, save=str(tmp_path / "scores.csv"))
    printed = capsys.readouterr().out
    assert (report["ways"], report["min_ways"], report["shots"], report["min_shots"], report["queries"]) == (3, 2, 3, 1, 4)
    assert "2 to 3-way 1 to 3-shot, 4 queries a class" in printed
    with (tmp_path / "scores.csv").open() as file:
        rows = list(csv.DictReader(file))
    assert [row["family"] for row in rows] == ["few", "many"] * 3
    for name, sizes in SOURCES.items():
        figures = report["by_family"][name]
        mine = [float(row["accuracy"]) for row in rows if row["family"] == name]
        assert figures["mean"] == pytest.approx(sum(mine) / 3)
        assert f"{name} {100 * figures['mean']:.2f} % ± {100 * figures['ci95']:.2f}" in printed
        assert {key: report["families"][name][key] for key in sizes} == sizes


def test_one_family_of_a_run_is_evaluated_alone(run: Path, tmp_path: Path):
    report = evaluate(run, tmp_path / "eval", episodes=3, task={"only": ["many"]}, typed=["task.only"])
    assert list(report["by_family"]) == ["many"]
    assert (report["ways"], report["shots"]) == (2, 3)


def test_a_run_on_families_is_resumed_as_if_it_had_never_stopped(run: Path, tmp_path: Path):
    train({**config(), "steps": 2}, tmp_path / "run")
    train({"resume": str(tmp_path / "run"), "overrides": {"steps": 4, "trust": ["small"]}, "groups": {}}, tmp_path / "run")
    ours, theirs = ([entry for entry in lines(folder) if "val/accuracy" in entry] for folder in (tmp_path / "run", run))
    assert ours == theirs
    first, second = (checkpoint.load(folder / "checkpoints/last.pt") for folder in (run, tmp_path / "run"))
    assert_same(first.params, second.params, "a resumed run ends with other weights", tolerance=0.0)


@pytest.mark.parametrize("words", [["algo=finetune", "algo.test_inner_lrs=[0.1]", "algo.test_inner_steps=2"], ["algo=simpleshot"]])
def test_the_classes_of_all_families_are_learned_together(words: list[str], tmp_path: Path):
    """9 training classes in each family, so the head has 18 rows."""
    train(config(*words, "steps=2", train_labels="global"), tmp_path / "run")
    stored = checkpoint.load(tmp_path / "run/checkpoints/last.pt")
    assert stored.params["head.weight"].shape[0] == 18
    assert list(evaluate(tmp_path / "run", tmp_path / "eval", episodes=2)["by_family"]) == list(SOURCES)
    other = {"_target_": "small.small_images", **SOURCES["few"], "seed": 0, "eval_seed": 0, "train_labels": "episode"}
    asked = {"task": other, "options": {"algo": None, "task": "other", "backbone": None, "device": None}}
    assert evaluate(tmp_path / "run", tmp_path / "other", episodes=2, **asked)["by_family"] is None, "the labels follow the algorithm"


def test_labels_of_the_episode_are_refused_where_all_classes_are_learned(tmp_path: Path):
    with pytest.raises(UserError, match=r"set task.train_labels=global"):
        train(config("algo=finetune", train_labels="episode"), tmp_path / "run")
