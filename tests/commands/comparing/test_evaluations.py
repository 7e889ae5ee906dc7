"""Stored evaluations: their settings and their scores by episode."""

from __future__ import annotations

import json
import math
from pathlib import Path

import pytest
from run_folders import write_evaluation, write_run, write_typed

from metarun.commands.comparing.evaluations import asked_settings, changing, evaluations_below, read_evaluation, read_scores, score_file
from metarun.errors import UserError


def test_an_evaluation_has_its_figures_its_settings_and_its_scores(tmp_path: Path):
    write_evaluation(tmp_path / "run/eval/a", [0.5, 1.0], settings={"task.shots": 5, "norm": None, "by_step": "last", "best": 1})
    found = read_evaluation(tmp_path / "run/eval/a")
    assert found is not None
    assert (found.mean, found.ci95, found.metric, found.split) == (0.75, 0.01, "accuracy", "test")
    assert found.settings == {"split": "test", "episodes": "2", "seed": "0", "task.shots": "5"}, "keys that change no score are left out"
    scores = found.scores()
    assert scores is not None
    assert scores.by_episode == {0: 0.5, 1: 1.0}


def test_the_report_of_a_training_is_no_evaluation(tmp_path: Path):
    assert read_evaluation(write_run(tmp_path / "run")) is None


def test_an_earlier_report_says_its_settings_through_the_words_beside_it(tmp_path: Path):
    folder = write_evaluation(tmp_path / "run/eval/a", [0.5, 1.0])
    report = json.loads((folder / "report.json").read_text())
    del report["settings"]
    (folder / "report.json").write_text(json.dumps(report))
    write_typed(folder, ["checkpoint='a run'", "++task.shots=5", "hydra.run.dir=x", "save=a.csv", "norm=null"])
    found = read_evaluation(folder)
    assert found is not None
    assert found.settings == {"split": "test", "episodes": "2", "seed": "0", "task.shots": "5"}


def test_the_evaluations_of_a_run_are_found_in_the_order_of_their_writing(tmp_path: Path):
    import os

    run = write_run(tmp_path / "run")
    for age, name in enumerate(("eval/b", "eval/a", "eval5", "tensorboard/c", "checkpoints/d", ".hidden/e")):
        folder = write_evaluation(run / name, [0.5, 1.0], run=run)
        os.utime(folder / "report.json", (1000 + age, 1000 + age))
    assert [each.folder.name for each in evaluations_below(run)] == ["b", "a", "eval5"]


def test_a_setting_that_the_run_has_anyway_changes_nothing():
    config = {"task": {"shots": 1}, "options": {"task": "glyphs", "algo": "maml"}}
    settings = {"split": "test", "task.shots": "1", "task": "glyphs", "norm": "batch"}
    assert changing(settings, config) == {"split": "test", "norm": "batch"}
    assert changing({**settings, "task.shots": "5"}, config) == {"split": "test", "task.shots": "5", "norm": "batch"}


def test_the_settings_of_a_report_are_the_typed_keys_that_change_a_score():
    config = {"typed": ["checkpoint", "task", "task.shots", "device.threads", "save", "inner_steps"], "inner_steps": 3}
    config |= {"options": {"task": "omniglot", "algo": None}, "task": {"shots": 5}}
    assert asked_settings(config) == {"task": "omniglot", "task.shots": 5, "inner_steps": 3}


def test_a_score_that_is_not_a_number_is_not_finite(tmp_path: Path):
    (tmp_path / "episodes.csv").write_text("episode,user,mse,family\n0,u1,1.5,a\n1,u2,nan,b\n")
    scores = read_scores(tmp_path / "episodes.csv")
    assert scores.metric == "mse"
    assert scores.by_episode == {0: 1.5, 1: math.inf}
    assert scores.families == {0: "a", 1: "b"}


def test_scores_whose_sum_overflows_are_not_finite(tmp_path: Path):
    (tmp_path / "a_0.csv").write_text("episode,mse\n0,1.7e308\n1,1.7e308\n2,-inf\n3,0.5\n")
    assert read_scores(tmp_path / "a_0.csv").by_episode == {0: math.inf, 1: math.inf, 2: math.inf, 3: 0.5}
    assert score_file(tmp_path / "a_0.csv").mean is None


@pytest.mark.parametrize(
    ("content", "sentence"),
    [
        ("", "holds no scores"),
        ("step,loss\n1,2\n", "no scores"),
        ("episode,mse\n0,x\n", "has a line"),
        (f"episode,mse\n0,{'1' * 200_000}\n", "cannot be read as CSV"),
    ],
    ids=["empty", "other", "word", "long"],
)
def test_another_file_is_refused(tmp_path: Path, content: str, sentence: str):
    (tmp_path / "episodes.csv").write_text(content)
    with pytest.raises(UserError, match=sentence):
        read_scores(tmp_path / "episodes.csv")
