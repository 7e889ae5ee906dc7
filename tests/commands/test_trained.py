"""Trained models from checkpoints: ensembles, several runs, kept checkpoints, and files that do not fit."""

from __future__ import annotations

import re
from pathlib import Path

import pytest
from small import composed, few_shot
from small_runs import evaluate, image_config

from metarun.commands.train import train
from metarun.errors import UserError
from metarun.records import checkpoint


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


def test_members_of_an_ensemble_share_algorithm_and_network(maml_run: Path, sinusoid_run: Path, tmp_path: Path):
    with pytest.raises(UserError, match="the members of an ensemble may differ only in their weights"):
        evaluate([maml_run, sinusoid_run], tmp_path)
    with pytest.raises(UserError, match="a list of at least 1 entry"):
        evaluate([], tmp_path)


def test_protonet_may_be_evaluated_with_other_ways_than_it_was_trained_with(tmp_path: Path):
    config = image_config("algo=protonet")
    config["task"] |= {"train_ways": 5}
    train(config, tmp_path / "run")
    assert evaluate(tmp_path / "run", tmp_path / "eval", task={"ways": 7, "shots": 1})["ways"] == 7


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
        (keeping_run, 0, "best=0 should be a whole number from 1"),
        (keeping_run, "all", "best='all' should be a whole number"),
    ):
        with pytest.raises(UserError, match=re.escape(words)):
            evaluate(run, tmp_path / "eval", best=best)
    train(image_config("algo=maml", "algo.inner_steps=1", "keep=3", "steps=2", "eval_every=1"), tmp_path / "short")
    with pytest.raises(UserError, match="has kept 2 checkpoints so far, fewer than best=3; give best=2"):
        evaluate(tmp_path / "short", tmp_path / "eval", best=3)
