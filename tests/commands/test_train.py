"""What `train` leaves behind, from a plain config to a run folder."""

from __future__ import annotations

import json
import math
import shutil
from pathlib import Path

import pytest
import torch
from small import composed, few_shot
from small_runs import IMAGES, SHORT, SINUSOID, evaluate, image_config

from metarun.commands.train import train
from metarun.errors import UserError
from metarun.records import checkpoint
from metarun.testing import assert_same


def test_training_leaves_checkpoints_metrics_and_a_report(maml_run: Path):
    assert {path.name for path in (maml_run / "checkpoints").iterdir()} == {"last.pt", "previous.pt", "best.pt"}
    report = json.loads((maml_run / "report.json").read_text())
    assert (report["split"], report["metric"], report["steps"]) == ("val", "accuracy", 4)
    lines = [json.loads(line) for line in (maml_run / "metrics.jsonl").read_text().splitlines()]
    validations = {line["step"]: line["val/accuracy"] for line in lines if "val/accuracy" in line}
    assert set(validations) == {2, 4}
    highest = max(validations.values())
    first = min(step for step in validations if validations[step] == highest)
    half = next(line["val/ci95"] for line in lines if line["step"] == first and "val/ci95" in line)
    assert report["best"] == {"score": highest, "mean": highest, "ci95": half, "step": first}
    assert report["last"]["mean"] == validations[4]


def test_training_returns_one_minus_the_best_validation_accuracy_for_a_sweeper(tmp_path: Path, capsys: pytest.CaptureFixture[str]):
    error = train(image_config("algo=protonet"), tmp_path / "run")
    score = json.loads((tmp_path / "run/report.json").read_text())["best"]["score"]
    assert (error, score > 0) == (1.0 - score, True)
    printed = capsys.readouterr().out
    assert f"best validation accuracy {100 * score:.2f} % ± " in printed
    assert f"metarun eval checkpoint={tmp_path / 'run'}" in printed


def test_training_on_a_regression_returns_the_best_validation_error_itself(tmp_path: Path):
    error = train(composed(*SHORT, *SINUSOID, "algo.inner_lr=0.01"), tmp_path / "run")
    assert error == json.loads((tmp_path / "run/report.json").read_text())["best"]["score"] > 0


def test_a_drawn_class_split_is_in_the_run_folder_and_in_the_checkpoint(maml_run: Path):
    classes = few_shot().classes
    assert json.loads((maml_run / "classes.json").read_text()) == classes
    assert checkpoint.load(maml_run / "checkpoints/best.pt").config["task"]["classes"] == classes


def test_a_start_from_a_run_that_knows_the_test_classes_is_refused_before_any_work(maml_run: Path, tmp_path: Path):
    config = {**image_config("algo=maml", "algo.inner_steps=2"), "init_from": str(maml_run)}
    classes = checkpoint.load(maml_run / "checkpoints/best.pt").config["task"]["classes"]
    config["task"]["classes"] = {**classes, "train": classes["test"], "test": classes["train"]}
    with pytest.raises(UserError, match="test classes of this run; take a run with the same split, or give overlap=allow"):
        train(config, tmp_path / "no")
    assert not (tmp_path / "no").exists()
    train({**config, "overlap": "allow"}, tmp_path / "yes")
    assert json.loads((tmp_path / "yes/report.json").read_text())["overlap"][0]["split"] == "test"
    assert checkpoint.load(tmp_path / "yes/checkpoints/best.pt").origins == sorted({*classes["train"], *classes["test"]})


def test_a_run_is_resumed_although_the_run_that_it_started_from_is_gone(maml_run: Path, tmp_path: Path):
    shutil.copytree(maml_run, tmp_path / "start")
    train({**image_config("algo=maml", "algo.inner_steps=2"), "init_from": str(tmp_path / "start")}, tmp_path / "run")
    shutil.rmtree(tmp_path / "start")
    resumed = {"resume": str(tmp_path / "run"), "overrides": {"steps": 5, "trust": ["small"]}, "groups": {}}
    train(resumed, tmp_path / "run")
    assert checkpoint.load(tmp_path / "run/checkpoints/last.pt").step == 5


def test_the_best_checkpoint_is_the_best_by_the_selected_score(tmp_path: Path, capsys: pytest.CaptureFixture[str]):
    steps = ("steps=6", "eval_every=1", "algo.inner_lr=0.05", "algo.inner_steps=1", "algo.test_inner_steps=4")
    train(composed(*SHORT, *SINUSOID, *steps, "select=mean@1"), tmp_path / "run")
    lines = [json.loads(line) for line in (tmp_path / "run/metrics.jsonl").read_text().splitlines()]
    after_one = {line["step"]: line["val_by_step/1"] for line in lines if "val_by_step/1" in line}
    report = json.loads((tmp_path / "run/report.json").read_text())
    assert report["best"]["step"] == min(after_one, key=after_one.__getitem__)
    assert report["best"]["score"] == pytest.approx(min(after_one.values()))
    assert report["select"] == "mean mse over the validation tasks after 1 inner step"
    assert f"(chosen by the {report['select']})" in capsys.readouterr().out


def test_a_baseline_that_learns_nothing_is_validated_and_evaluated_too(tmp_path: Path):
    train(image_config("algo=nearest", "steps=0"), tmp_path / "run")
    assert json.loads((tmp_path / "run/report.json").read_text())["best"]["step"] == 0
    assert evaluate(tmp_path / "run", tmp_path / "eval", episodes=10)["mean"] > 0.6


def test_scratch_chooses_on_validation_and_is_tested_with_its_choice(tmp_path: Path):
    train(image_config("algo=scratch", "steps=0", "algo.max_inner_steps=5", "algo.inner_lrs=[0.001,0.05]"), tmp_path / "run")
    stored = checkpoint.load(tmp_path / "run/checkpoints/best.pt")
    report = evaluate(tmp_path / "run", tmp_path / "eval", split="val", episodes=3)
    assert report["inner_steps"] == int(stored.state["inner_steps"])
    assert report["mean"] == pytest.approx(stored.best["mean"] if stored.best else math.nan, abs=1e-6)
    with pytest.raises(UserError, match=r"algo\.max_inner_steps has no effect on an evaluation"):
        evaluate(tmp_path / "run", tmp_path / "other", algo={"max_inner_steps": 3}, typed=["algo.max_inner_steps"])


def test_equal_configs_train_equal_weights_and_another_seed_others(tmp_path: Path):
    for name, seed in (("one", 0), ("same", 0), ("other", 1)):
        train({**image_config("algo=maml", f"seed={seed}"), "task": {**IMAGES, "seed": seed}}, tmp_path / name)
    one, same, other = (checkpoint.load(tmp_path / name / "checkpoints/last.pt") for name in ("one", "same", "other"))
    assert_same((one.params, one.state), (same.params, same.state), "the same config", tolerance=0.0)
    assert not torch.equal(one.params["head.weight"], other.params["head.weight"])


def test_the_best_validations_have_files_of_their_own(keeping_run: Path):
    lines = [json.loads(line) for line in (keeping_run / "metrics.jsonl").read_text().splitlines()]
    scores = {line["step"]: line["val/accuracy"] for line in lines if "val/accuracy" in line}
    ranked = sorted(scores, key=lambda step: (-scores[step], step))[:3]
    names = {path.name for path in (keeping_run / "checkpoints").iterdir()}
    assert names == {"last.pt", "previous.pt", "best.pt", *(f"step_{step}.pt" for step in ranked)}
    for step in ranked:
        assert checkpoint.load(keeping_run / f"checkpoints/step_{step}.pt").step == step
    best, first = (checkpoint.load(keeping_run / f"checkpoints/{name}.pt") for name in ("best", f"step_{ranked[0]}"))
    assert_same((best.step, best.params, best.best), (first.step, first.params, first.best), "the best checkpoint", tolerance=0.0)
    kept = json.loads((keeping_run / "report.json").read_text())["best"]["kept"]
    assert [(each["step"], each["score"]) for each in kept] == [(step, pytest.approx(scores[step])) for step in ranked]


def test_checkpoints_that_are_no_longer_among_the_best_are_removed(tmp_path: Path):
    train(
        composed(*SHORT, *SINUSOID, "algo.inner_lr=0.01", "optimizer.lr=0.05", "keep=2", "steps=6", "eval_every=1", "save_every=4"),
        tmp_path,
    )
    lines = [json.loads(line) for line in (tmp_path / "metrics.jsonl").read_text().splitlines()]
    scores = {line["step"]: line["val/selected"] for line in lines if "val/selected" in line}
    ranked = sorted(scores, key=scores.__getitem__)[:2]
    assert set(ranked) != {1, 2}, "else no file would have to go"
    assert {path.name for path in (tmp_path / "checkpoints").glob("step_*.pt")} == {f"step_{step}.pt" for step in ranked}
