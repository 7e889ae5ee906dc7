"""The request of an evaluation, the sizes of an episode that a report states, and what `eval` leaves behind."""

from __future__ import annotations

import csv
import json
from pathlib import Path
from typing import Any

import pytest
import torch
from small import few_shot
from small_runs import evaluate, image_config

from metarun.commands.comparing.evaluations import read_evaluation
from metarun.commands.evaluate import Request, request_of, scores_files, sizes_of
from metarun.commands.train import train
from metarun.errors import UserError
from metarun.records import checkpoint
from metarun.types import Episode, Examples


def test_the_sizes_of_an_image_episode_are_counted_per_class() -> None:
    episode = few_shot(ways=3, shots=2, queries=4).episode("test", 0)
    assert sizes_of(episode, "accuracy") == {"ways": 3, "shots": 2, "queries": 4}


def test_the_sizes_of_a_varying_episode_are_the_largest() -> None:
    source = few_shot(ways=4, shots=3, queries=2, min_ways=2, min_shots=1)
    assert all(sizes_of(source.episode("test", n), "accuracy") == {"ways": 4, "shots": 3, "queries": 2} for n in range(5))


def test_classes_that_do_not_occur_are_no_ways() -> None:
    """Labels over all 6 training classes, of which the episode has 2: y has 6 columns, and 4 support rows are 2 shots of 2 ways."""
    labels = torch.eye(6)
    support = Examples(torch.zeros(4, 1), labels[[1, 1, 4, 4]])
    query = Examples(torch.zeros(6, 1), labels[[1, 1, 1, 4, 4, 4]])
    assert sizes_of(Episode(support, query), "accuracy") == {"ways": 2, "shots": 2, "queries": 3}


def test_the_sizes_of_a_regression_episode_are_its_rows_whatever_the_number_of_targets() -> None:
    support, query = (Examples(torch.zeros(rows, 1), torch.full((rows, 3), -5.0)) for rows in (7, 9))
    assert sizes_of(Episode(support, query), "mse") == {"ways": None, "shots": 7, "queries": 9}


def request(**changes: Any) -> Request:
    return request_of({"split": "test", "episodes": 4, "seed": 0, "save": None, **changes})


def test_a_request_has_every_inner_step_scored_unless_told_otherwise(tmp_path: Path) -> None:
    assert request() == Request("test", 4, 0, "all", None)
    assert request(by_step="last", save=str(tmp_path / "a.csv")) == Request("test", 4, 0, "last", tmp_path / "a.csv")


def test_each_run_of_several_has_a_file_of_scores(tmp_path: Path) -> None:
    assert [file.name for file in scores_files(tmp_path, 1)] == ["episodes.csv"]
    assert [file.name for file in scores_files(tmp_path, 2)] == ["episodes_1.csv", "episodes_2.csv"]


# A whole evaluation


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
    printed = " ".join(capsys.readouterr().out.splitlines()[:2])
    assert printed.startswith(
        f"accuracy {100 * report['mean']:.2f} % ± {100 * report['ci95']:.2f}   [95 % interval over 6 test episodes of "
    )
    assert report["population"] == {"count": report["test_classes"], "kind": "test classes", "covers_new": report["test_classes"] > 3}
    assert (report["overlap"], report["ci95_over"], report["not_finite"]) == (None, "episodes", 0)
    assert "norm=batch, 2 inner steps, seed 0" in printed
    stored = read_evaluation(tmp_path)
    assert stored is not None
    scores = stored.scores()
    assert scores is not None, "episodes.csv"
    assert sum(scores.by_episode.values()) / 6 == pytest.approx(report["mean"])


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


@pytest.mark.parametrize(
    ("options", "words"),
    [
        ({"split": "tset"}, "split='tset' should be one of train, val, test.*Did you mean 'test'"),
        ({"episodes": 0}, "episodes=0 should be a whole number from 1 to"),
        ({"episodes": 2.5}, r"episodes=2\.5 should be a whole number"),
        ({"seed": -1}, "seed=-1 should be a whole number from 0"),
        ({"task": {"shotss": 3}}, r"there is no key 'task\.shotss'.*Did you mean 'task\.shots'"),
        ({"task": {"ways": 4}}, r"Maml trains a head of 3 outputs|'head\.weight' has shape \(3, \d+\) and this task needs \(4, \d+\)"),
        ({"norm": "runing"}, "Did you mean 'running'"),
        ({"inner_steps": -1}, "inner_steps=-1"),
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


def test_a_split_comes_back_from_the_checkpoint_and_not_from_a_new_draw(maml_run: Path, tmp_path: Path):
    """The source refuses any split but its own, and got the one of the checkpoint."""
    assert evaluate(maml_run, tmp_path)["config"]["task"]["classes"] == few_shot().classes


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
