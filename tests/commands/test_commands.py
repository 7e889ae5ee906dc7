"""What `train` and `eval` leave behind, from a plain config to a run folder."""

from __future__ import annotations

import csv
import json
import math
import re
import shutil
from pathlib import Path
from typing import Any

import pytest
import torch
from small import composed, few_shot

from metarun.commands.evaluate import evaluate as run_evaluation
from metarun.commands.train import train
from metarun.errors import UserError
from metarun.records import checkpoint
from metarun.testing import assert_same

IMAGES = {
    "_target_": "small.split_images",
    "ways": 3,
    "shots": 2,
    "min_shots": None,
    "queries": 3,
    "seed": 0,
    "eval_seed": 0,
    "classes": None,
}
CONV = {"_target_": "small.SmallConv", "filters": 2, "norm": "batch"}
SHORT = ("steps=4", "tasks_per_step=2", "eval_every=2", "eval_episodes=3", "logger=jsonl", "device=cpu", "device.threads=1")
SINUSOID = ("task=sinusoid", "backbone=mlp", "backbone.widths=[4]", "task.queries=5")


def image_config(*overrides: str) -> dict[str, Any]:
    return {**composed(*SHORT, *overrides), "task": dict(IMAGES), "backbone": dict(CONV)}


@pytest.fixture(scope="module")
def maml_run(tmp_path_factory: pytest.TempPathFactory) -> Path:
    """MAML on small images, 3 ways, trained for four steps."""
    folder = tmp_path_factory.mktemp("maml") / "run"
    config = image_config("algo=maml", "algo.inner_steps=2")
    config["options"] = {"algo": "maml", "task": "small", "backbone": "small", "device": "cpu"}
    train(config, folder)
    return folder


@pytest.fixture(scope="module")
def sinusoid_run(tmp_path_factory: pytest.TempPathFactory) -> Path:
    folder = tmp_path_factory.mktemp("sinusoid") / "run"
    train(composed(*SHORT, *SINUSOID, "algo.inner_lr=0.01"), folder)
    return folder


def evaluate(run: Path | list[Path], folder: Path, **options: Any) -> dict[str, Any]:
    named = [str(each) for each in run] if isinstance(run, list) else str(run)
    request = {"checkpoint": named, "split": "test", "episodes": 4, "seed": 0, "inner_steps": None, "norm": None, "save": None}
    groups: dict[str, Any] = {"algo": {}, "task": {}, "backbone": {}, "device": {}, "trust": ["small"], "options": {}}
    return run_evaluation({**request, **groups, **options}, folder)


def test_training_leaves_checkpoints_metrics_and_a_report(maml_run: Path):
    assert {path.name for path in (maml_run / "checkpoints").iterdir()} == {"last.pt", "previous.pt", "best.pt"}
    report = json.loads((maml_run / "report.json").read_text())
    assert (report["split"], report["metric"], report["steps"]) == ("val", "accuracy", 4)
    lines = [json.loads(line) for line in (maml_run / "metrics.jsonl").read_text().splitlines()]
    validations = {line["step"]: line["val/accuracy"] for line in lines if "val/accuracy" in line}
    assert set(validations) == {2, 4}
    highest = max(validations.values())
    assert report["best"] == {"score": highest, "mean": highest, "step": min(step for step in validations if validations[step] == highest)}
    assert report["last"]["mean"] == validations[4]


def test_training_returns_one_minus_the_best_validation_accuracy_for_a_sweeper(tmp_path: Path, capsys: pytest.CaptureFixture[str]):
    error = train(image_config("algo=protonet"), tmp_path / "run")
    score = json.loads((tmp_path / "run/report.json").read_text())["best"]["score"]
    assert (error, score > 0) == (1.0 - score, True)
    printed = capsys.readouterr().out
    assert f"best validation accuracy {score:.4f} at step" in printed
    assert f"metarun eval checkpoint={tmp_path / 'run'}" in printed


def test_training_on_a_regression_returns_the_best_validation_error_itself(tmp_path: Path):
    error = train(composed(*SHORT, *SINUSOID, "algo.inner_lr=0.01"), tmp_path / "run")
    assert error == json.loads((tmp_path / "run/report.json").read_text())["best"]["score"] > 0


def test_a_drawn_class_split_is_in_the_run_folder_and_in_the_checkpoint(maml_run: Path):
    classes = few_shot().classes
    assert json.loads((maml_run / "classes.json").read_text()) == classes
    assert checkpoint.load(maml_run / "checkpoints/best.pt").config["task"]["classes"] == classes


def test_evaluating_the_best_checkpoint_on_validation_repeats_its_validation_score(maml_run: Path, sinusoid_run: Path, tmp_path: Path):
    for run in (maml_run, sinusoid_run):
        best = json.loads((run / "report.json").read_text())["best"]["mean"]
        assert evaluate(run, tmp_path / run.parent.name, split="val", episodes=3)["mean"] == pytest.approx(best, rel=1e-5)


def test_a_report_holds_every_figure_that_it_promises(maml_run: Path, tmp_path: Path, capsys: pytest.CaptureFixture[str]):
    evaluate(maml_run, tmp_path, episodes=6)
    report = json.loads((tmp_path / "report.json").read_text())
    facts = {"metric": "accuracy", "episodes": 6, "diverged": 0, "seed": 0, "split": "test", "ways": 3, "shots": 2, "queries": 3}
    assert {key: report[key] for key in facts} == facts
    assert (report["norm"], report["inner_steps"], len(report["by_step"]), report["kernels"]) == ("batch", 2, 3, "torch")
    assert {"mean", "ci95", "median", "std", "nll", "ece", "config"} <= set(report)
    assert report["checkpoint"] == str(maml_run / "checkpoints/best.pt")
    assert report["by_step"][-1] == report["mean"]
    printed = capsys.readouterr().out.splitlines()[0]
    assert printed.startswith(
        f"accuracy {100 * report['mean']:.2f} % ± {100 * report['ci95']:.2f}  [95 % interval over 6 test episodes of "
    )
    assert report["population"] == {"count": report["test_classes"], "kind": "test classes", "covers_new": report["test_classes"] > 3}
    assert (report["overlap"], report["ci95_over"], report["not_finite"]) == (None, "episodes", 0)
    assert "norm=batch, 2 inner steps, seed 0" in printed


def test_a_regression_is_told_with_its_median_and_the_mean_predictor(
    sinusoid_run: Path, tmp_path: Path, capsys: pytest.CaptureFixture[str]
):
    report = evaluate(sinusoid_run, tmp_path)
    assert (report["metric"], report["ways"], report["shots"], report["queries"], report["norm"]) == ("mse", None, 10, 5, None)
    assert f"median {report['median']:.4f}, mean predictor {report['baseline']:.4f}" in capsys.readouterr().out


def test_inner_steps_norm_seed_and_keys_of_the_task_may_change(maml_run: Path, tmp_path: Path):
    plain = evaluate(maml_run, tmp_path / "plain")
    assert evaluate(maml_run, tmp_path / "again") == plain
    longer = evaluate(maml_run, tmp_path / "longer", inner_steps=4)
    assert longer["inner_steps"] == 4
    assert longer["by_step"][:3] == plain["by_step"]
    assert evaluate(maml_run, tmp_path / "norm", norm="running")["norm"] == "running"
    other = evaluate(maml_run, tmp_path / "seed", seed=5)
    assert other["config"]["task"]["eval_seed"] == 5
    assert other["nll"] != plain["nll"], "other episodes"
    assert evaluate(maml_run, tmp_path / "shots", task={"shots": 4})["shots"] == 4


def test_shots_that_vary_are_in_the_report_and_in_the_printed_line(maml_run: Path, tmp_path: Path, capsys: pytest.CaptureFixture[str]):
    report = evaluate(maml_run, tmp_path, task={"min_shots": 1})
    assert (report["min_ways"], report["min_shots"], report["shots"]) == (None, 1, 2)
    assert "3-way 1 to 2-shot" in capsys.readouterr().out


def test_a_list_of_runs_is_scored_as_an_ensemble(maml_run: Path, tmp_path: Path, capsys: pytest.CaptureFixture[str]):
    train(image_config("algo=maml", "algo.inner_steps=2", "seed=1"), tmp_path / "run")
    capsys.readouterr()
    report = evaluate([maml_run, tmp_path / "run"], tmp_path / "both")
    assert report["members"] == 2
    assert report["checkpoint"] == [str(run / "checkpoints/best.pt") for run in (maml_run, tmp_path / "run")]
    assert "ensemble of 2" in capsys.readouterr().out
    twice = evaluate([maml_run, maml_run], tmp_path / "twice")
    assert twice["by_step"] == pytest.approx(evaluate(maml_run, tmp_path / "once")["by_step"])


def test_a_list_of_runs_is_scored_one_by_one_where_it_is_no_ensemble(maml_run: Path, tmp_path: Path, capsys: pytest.CaptureFixture[str]):
    train(image_config("algo=maml", "algo.inner_steps=2", "seed=1"), tmp_path / "run")
    capsys.readouterr()
    report = evaluate([maml_run, tmp_path / "run"], tmp_path / "both", ensemble=False, save=str(tmp_path / "scores.csv"))
    alone = [evaluate(run, tmp_path / "alone" / str(n)) for n, run in enumerate((maml_run, tmp_path / "run"))]
    assert [run["mean"] for run in report["runs"]] == [each["mean"] for each in alone]
    assert [run["seed"] for run in report["runs"]] == [0, 1]
    assert report["mean"] == pytest.approx(sum(each["mean"] for each in alone) / 2)
    assert report["ci95"] == pytest.approx(12.7062047 * abs(alone[0]["mean"] - alone[1]["mean"]) / 2)
    assert (report["ci95_over"], report["members"]) == ("training runs", 1)
    assert "95 % interval over 2 training seeds" in capsys.readouterr().out
    assert sorted(path.name for path in tmp_path.glob("scores*")) == ["scores_1.csv", "scores_2.csv"]
    with pytest.raises(UserError, match="both trained with seed=0"):
        evaluate([maml_run, maml_run], tmp_path / "twice", ensemble=False)


def test_test_classes_that_were_trained_on_are_refused_unless_allowed(maml_run: Path, tmp_path: Path):
    stored = checkpoint.load(maml_run / "checkpoints/best.pt")
    classes = stored.config["task"]["classes"]
    assert stored.origins == sorted(classes["train"])
    swapped = {**classes, "train": classes["test"], "test": classes["train"]}
    with pytest.raises(UserError, match=f"{len(classes['train'])} of the {len(classes['train'])} test classes are training classes"):
        evaluate(maml_run, tmp_path / "no", task={"classes": swapped})
    assert not (tmp_path / "no").exists()
    report = evaluate(maml_run, tmp_path / "yes", task={"classes": swapped}, overlap="allow")
    assert report["overlap"]["shared"] == len(classes["train"])


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


def test_members_of_an_ensemble_share_algorithm_and_network(maml_run: Path, sinusoid_run: Path, tmp_path: Path):
    with pytest.raises(UserError, match="the members of an ensemble may differ only in their weights"):
        evaluate([maml_run, sinusoid_run], tmp_path)
    with pytest.raises(UserError, match="names no run"):
        evaluate([], tmp_path)


def test_an_evaluation_changes_nothing_in_the_run(maml_run: Path, tmp_path: Path):
    before = {path: path.read_bytes() for path in maml_run.rglob("*") if path.is_file()}
    evaluate(maml_run, tmp_path)
    assert {path: path.read_bytes() for path in maml_run.rglob("*") if path.is_file()} == before


def test_per_episode_scores_go_into_a_csv(maml_run: Path, tmp_path: Path):
    report = evaluate(maml_run, tmp_path / "report", save=str(tmp_path / "scores.csv"), episodes=5)
    rows = list(csv.reader((tmp_path / "scores.csv").read_text().splitlines()))
    assert rows[0] == ["episode", "accuracy", "nll"]
    assert [int(row[0]) for row in rows[1:]] == [0, 1, 2, 3, 4]
    assert sum(float(row[1]) for row in rows[1:]) / 5 == pytest.approx(report["mean"])


def test_protonet_may_be_evaluated_with_other_ways_than_it_was_trained_with(tmp_path: Path):
    config = image_config("algo=protonet")
    config["task"] |= {"train_ways": 5}
    train(config, tmp_path / "run")
    assert evaluate(tmp_path / "run", tmp_path / "eval", task={"ways": 7, "shots": 1})["ways"] == 7


@pytest.mark.parametrize(
    ("options", "words"),
    [
        ({"split": "tset"}, "split=tset is unknown.*Did you mean 'test'"),
        ({"episodes": 0}, "episodes=0 must be a whole number of at least 1"),
        ({"episodes": 2.5}, r"episodes=2\.5 must be a whole number"),
        ({"seed": -1}, "seed=-1 must be a whole number of at least 0"),
        ({"task": {"shotss": 3}}, r"there is no key 'task\.shotss'.*Did you mean 'task\.shots'"),
        ({"task": {"ways": 4}}, r"Maml trains a head of 3 outputs|'head\.weight' has shape \(3, \d+\) and this task needs \(4, \d+\)"),
        ({"norm": "runing"}, "Did you mean 'running'"),
        ({"inner_steps": -1}, r"algo\.test_inner_steps=-1"),
        ({"save": "no/such/folder/scores.csv"}, "there is no folder no/such/folder"),
        ({"trust": []}, r"add trust=\[small\]"),
    ],
)
def test_what_cannot_be_evaluated_is_a_sentence_and_leaves_no_report(maml_run: Path, tmp_path: Path, options: dict[str, Any], words: str):
    with pytest.raises(UserError, match=words):
        evaluate(maml_run, tmp_path / "eval", **options)
    assert not (tmp_path / "eval/report.json").exists()


def test_scores_are_never_written_over_a_file_that_is_there(maml_run: Path, tmp_path: Path):
    (tmp_path / "scores.csv").write_text("mine")
    with pytest.raises(UserError, match="the file is there already"):
        evaluate(maml_run, tmp_path / "eval", save=str(tmp_path / "scores.csv"))
    assert (tmp_path / "scores.csv").read_text() == "mine"


def test_a_file_of_scores_needs_a_folder(maml_run: Path, tmp_path: Path):
    with pytest.raises(UserError, match=r"there is no folder .*/none; make it first"):
        evaluate(maml_run, tmp_path / "eval", save=str(tmp_path / "none/scores.csv"))
    assert not (tmp_path / "eval").exists()


def test_an_algorithm_without_inner_steps_has_none_to_set(tmp_path: Path):
    train(image_config("algo=protonet", "steps=1"), tmp_path / "run")
    with pytest.raises(UserError, match="this checkpoint's algorithm has no inner steps to set"):
        evaluate(tmp_path / "run", tmp_path / "eval", inner_steps=3)


def test_a_network_for_other_inputs_is_told_with_both_shapes(sinusoid_run: Path, tmp_path: Path):
    with pytest.raises(UserError, match=r"'body\.layers\.0\.weight' has shape \(4, 1\) and this task needs \(4, 10\)"):
        evaluate(sinusoid_run, tmp_path, task=composed("task=regression")["task"], options={"task": "regression"})


def test_a_memory_without_class_numbers_is_refused_for_evaluation_and_for_training(tmp_path: Path):
    """Earlier checkpoints of `memory` have no such tensor."""
    train(image_config("algo=memory", "steps=1"), tmp_path / "run")
    file = tmp_path / "run/checkpoints/last.pt"
    stored = checkpoint.load(file)
    numbers = stored.state.pop("memory.classes")
    assert sum(number in few_shot().numbers["train"] for number in numbers) == 6, "two tasks of three ways"
    checkpoint.save(file, stored)
    words = r"the checkpoint has no state 'memory\.classes', which this algorithm needs: an earlier metarun .* Train the run again\."
    with pytest.raises(UserError, match=words):
        evaluate(file, tmp_path / "eval")
    resume = {"resume": str(tmp_path / "run"), "overrides": {"trust": ["small"], "steps": 2}, "groups": {}}
    with pytest.raises(UserError, match=words):
        train(resume, tmp_path / "run")


def test_a_split_comes_back_from_the_checkpoint_and_not_from_a_new_draw(maml_run: Path, tmp_path: Path):
    """The source refuses any split but its own, and got the one of the checkpoint."""
    assert evaluate(maml_run, tmp_path)["config"]["task"]["classes"] == few_shot().classes


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


def test_equal_configs_train_equal_weights_and_another_seed_others(tmp_path: Path):
    for name, seed in (("one", 0), ("same", 0), ("other", 1)):
        train({**image_config("algo=maml", f"seed={seed}"), "task": {**IMAGES, "seed": seed}}, tmp_path / name)
    one, same, other = (checkpoint.load(tmp_path / name / "checkpoints/last.pt") for name in ("one", "same", "other"))
    assert_same((one.params, one.state), (same.params, same.state), "the same config", tolerance=0.0)
    assert not torch.equal(one.params["head.weight"], other.params["head.weight"])


def test_a_thin_evaluation_scores_the_same_last_step(maml_run: Path, tmp_path: Path):
    """Of 12 inner steps it scores 0, 1, 2, 5, 10 and 12; the episodes are the same, and so is the score."""
    every = evaluate(maml_run, tmp_path / "every", inner_steps=12, episodes=3)
    thin = evaluate(maml_run, tmp_path / "thin", inner_steps=12, episodes=3, by_step="thin")
    assert every["steps"] == list(range(13))
    assert thin["steps"] == [0, 1, 2, 5, 10, 12]
    assert thin["mean"] == every["mean"]
    assert thin["by_step"] == [every["by_step"][step] for step in thin["steps"]]


# Another data set than that of the training


def other_images(**changes: Any) -> dict[str, Any]:
    return {"_target_": "small.small_images", "ways": 3, "shots": 1, "queries": 2, "side": 12, "seed": 0, "eval_seed": 0, **changes}


def transferred(run: Path, folder: Path, typed: list[str] | None = None, **changes: Any) -> dict[str, Any]:
    options = {"algo": None, "task": "other", "backbone": None, "device": None}
    return evaluate(run, folder, task=other_images(**changes), typed=typed or [], options=options)


def test_a_trained_start_is_tested_on_another_data_set_under_its_own_episodes(maml_run: Path, tmp_path: Path, capsys: Any):
    report = transferred(maml_run, tmp_path / "plain")
    assert (report["trained_on"], report["task"]) == ("small", "other")
    assert (report["ways"], report["shots"], report["queries"]) == (3, 2, 3), "those of the training"
    assert "other, trained on small" in capsys.readouterr().out
    typed = transferred(maml_run, tmp_path / "typed", typed=["task.shots"])
    assert typed["shots"] == 1


def test_another_number_of_ways_needs_a_method_without_a_trained_head(maml_run: Path, tmp_path: Path):
    with pytest.raises(UserError, match="its head has a fixed number of ways"):
        transferred(maml_run, tmp_path / "maml", typed=["task.ways"], ways=4)
    train(image_config("algo=protonet"), tmp_path / "run")
    assert transferred(tmp_path / "run", tmp_path / "protonet", typed=["task.ways"], ways=4)["ways"] == 4


def test_the_head_over_the_training_classes_is_no_obstacle(tmp_path: Path):
    config = image_config("algo=finetune")
    config["task"]["train_labels"] = "global"
    train(config, tmp_path / "run")
    report = transferred(tmp_path / "run", tmp_path / "eval", typed=["task.ways"], ways=4, train_labels="episode")
    assert report["ways"] == 4


@pytest.fixture(scope="module")
def keeping_run(tmp_path_factory: pytest.TempPathFactory) -> Path:
    """Six validations, of which the run keeps the three best."""
    folder = tmp_path_factory.mktemp("keeping") / "run"
    train(image_config("algo=maml", "algo.inner_steps=1", "keep=3", "steps=6", "eval_every=1", "save_every=4"), folder)
    return folder


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


def test_the_kept_checkpoints_are_scored_as_an_ensemble(keeping_run: Path, tmp_path: Path, capsys: pytest.CaptureFixture[str]):
    kept = checkpoint.load(keeping_run / "checkpoints/last.pt").best["kept"]  # type: ignore[index]
    files = [keeping_run / f"checkpoints/step_{each['step']}.pt" for each in kept]
    for best in (2, 3):
        together, listed = evaluate(keeping_run, tmp_path / f"a{best}", best=best), evaluate(files[:best], tmp_path / f"b{best}")
        assert (together["mean"], together["nll"]) == (listed["mean"], listed["nll"])
        assert (together["members"], together["best"], listed["best"]) == (best, best, 1)
        assert together["checkpoint"] == [str(file) for file in files[:best]]
        assert f"ensemble of {best}" in capsys.readouterr().out
    assert evaluate(keeping_run, tmp_path / "c", best=1)["checkpoint"] == str(keeping_run / "checkpoints/best.pt")


def test_runs_that_kept_their_best_checkpoints_are_scored_one_by_one(keeping_run: Path, tmp_path: Path):
    other = tmp_path / "other"
    train(image_config("algo=maml", "algo.inner_steps=1", "keep=3", "steps=6", "eval_every=1", "save_every=4", "seed=1"), other)
    report = evaluate([keeping_run, other], tmp_path / "both", best=3, ensemble=False)
    single = [evaluate(run, tmp_path / run.name, best=3)["mean"] for run in (keeping_run, other)]
    assert [run["mean"] for run in report["runs"]] == single
    assert (report["members"], report["mean"]) == (3, pytest.approx(sum(single) / 2))
    assert evaluate([keeping_run, other], tmp_path / "six", best=3)["members"] == 6


def test_a_run_that_kept_fewer_says_so(keeping_run: Path, maml_run: Path, tmp_path: Path):
    file = keeping_run / "checkpoints/best.pt"
    for run, best, words in (
        (keeping_run, 4, f"best=4 needs a run that was trained with keep=4 or more, and {keeping_run} was trained with keep=3"),
        (maml_run, 2, f"{maml_run} was trained with keep=1"),
        (file, 2, f"best=2 needs a run folder, and {file} is one checkpoint; name the folder of its run"),
        (keeping_run, 0, "best=0 must be a whole number of at least 1"),
        (keeping_run, "all", "best=all must be a whole number"),
    ):
        with pytest.raises(UserError, match=re.escape(words)):
            evaluate(run, tmp_path / "eval", best=best)
    train(image_config("algo=maml", "algo.inner_steps=1", "keep=3", "steps=2", "eval_every=1"), tmp_path / "short")
    with pytest.raises(UserError, match="has kept 2 checkpoints so far, fewer than best=3; give best=2"):
        evaluate(tmp_path / "short", tmp_path / "eval", best=3)
