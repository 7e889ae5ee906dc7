"""Runs as their folders have them, in every state in which a folder can be."""

from __future__ import annotations

import json
import os
import shutil
import time
from pathlib import Path

import pytest
from run_folders import write_evaluation, write_run, write_typed

from metarun.commands.comparing.runs import Score, find_runs, read_run, statistic_of
from metarun.errors import UserError


def test_a_finished_run_has_the_best_validation_of_its_report_with_its_interval(tmp_path: Path):
    (run,) = find_runs([write_run(tmp_path / "a run", [0.4, 0.6, 0.5], algo="protonet", seed=3)])
    assert (run.status, run.steps, run.seconds, run.algorithm, run.task, run.seed) == ("finished", 90, 30.0, "protonet", "glyphs", 3)
    assert run.validation == Score("accuracy", 0.6, 0.02, "mean", 60)
    assert run.validation.higher_is_better
    assert [line["step"] for line in run.metrics()] == [30, 60, 90]


def test_a_lower_error_is_the_better_one_and_a_median_has_no_interval(tmp_path: Path):
    (run,) = find_runs([write_run(tmp_path / "run", [0.4, 0.2, 0.3], metric="mse", finished=False)])
    assert run.validation == Score("mse", 0.2, None, "median", 60)
    assert not run.validation.higher_is_better


def test_a_run_chosen_by_its_likelihood_has_a_lower_score_as_the_better_one(tmp_path: Path):
    (run,) = find_runs([write_run(tmp_path / "run", [1.4, 1.2, 1.3], finished=False, select="nll")])
    assert run.validation == Score("nll", 1.2, None, "nll", 60)


def test_a_stopped_run_has_the_best_validation_of_its_log_and_of_equal_scores_the_earlier_one(tmp_path: Path):
    (run,) = find_runs([write_run(tmp_path / "run", [0.5, None, 0.5], finished=False)])
    assert (run.status, run.steps) == ("stopped", 90)
    assert run.validation is not None
    assert run.validation.step == 30


def test_a_finished_run_that_goes_on_has_the_best_validation_of_its_log(tmp_path: Path):
    folder = write_run(tmp_path / "run", [0.4, 0.5])
    with (folder / "metrics.jsonl").open("a") as file:
        file.write(json.dumps({"step": 90, "val/accuracy": 0.7, "val/selected": 0.7}) + "\n")
    (run,) = find_runs([folder])
    assert (run.status, run.steps) == ("stopped", 90)
    assert run.validation == Score("accuracy", 0.7, None, "mean", 90)


def test_a_run_before_its_first_validation_has_no_score(tmp_path: Path):
    folder = write_run(tmp_path / "run", [], finished=False)
    (folder / "metrics.jsonl").unlink()
    (run,) = find_runs([folder])
    assert (run.status, run.steps, run.validation, run.seconds, run.metric) == ("stopped", 0, None, None, None)


def test_a_run_with_a_live_owner_is_running_and_one_with_a_dead_owner_is_stopped(tmp_path: Path):
    folder = write_run(tmp_path / "run", finished=False)
    from metarun.files import lock

    owner = {"pid": os.getppid(), "host": "here", "system": lock._system()}
    (folder / lock.NAME).write_text(json.dumps(owner))
    assert find_runs([folder])[0].status == "running"
    (folder / lock.NAME).write_text(json.dumps(owner | {"pid": 2**22 + 1}))
    assert find_runs([folder])[0].status == "stopped"
    (folder / lock.NAME).write_text(json.dumps(owner | {"system": "another computer"}))
    assert find_runs([folder])[0].status == "running"
    os.utime(folder / lock.NAME, (time.time() - 1000, time.time() - 1000))
    assert find_runs([folder])[0].status == "stopped"


def test_the_jobs_of_a_sweep_come_in_their_order_and_a_failed_one_has_its_error(tmp_path: Path):
    sweep = tmp_path / "multirun" / "today"
    for number in (10, 2, 1):
        write_run(sweep / f"{number}_seed-{number}", seed=number)
    write_typed(sweep / "3_algo-maml", ["algo=maml", "seed=3"])
    (sweep / "failed.jsonl").write_text(json.dumps({"job": "3_algo-maml", "error": "a loss is\nnot finite", "bug": False}) + "\n{half")
    for path in (sweep, tmp_path, sweep.parent):
        runs = find_runs([path])
        assert [run.folder.name for run in runs] == ["1_seed-1", "2_seed-2", "3_algo-maml", "10_seed-10"]
    failed = runs[2]
    assert (failed.status, failed.error, failed.algorithm) == ("failed", "a loss is not finite", "maml")
    assert failed.overrides == {"algo": "maml", "seed": "3"}


def test_a_failed_job_that_was_run_again_is_finished(tmp_path: Path):
    write_run(tmp_path / "sweep/0_a")
    (tmp_path / "sweep/failed.jsonl").write_text(json.dumps({"job": "0_a", "error": "x", "bug": False}) + "\n")
    assert find_runs([tmp_path / "sweep"])[0].status == "finished"


def test_a_run_that_was_copied_to_another_place_is_the_same_run_with_its_evaluations(tmp_path: Path):
    folder = write_run(tmp_path / "old" / "sweep" / "0_a")
    write_evaluation(folder / "eval/glyphs", [0.5, 1.0])
    write_evaluation(tmp_path / "old" / "sweep" / "evaluations" / "0_a", [0.25, 0.75], run=folder)
    shutil.move(tmp_path / "old", tmp_path / "new place")
    (run,) = find_runs([tmp_path / "new place" / "sweep"])
    assert run.validation is not None
    assert [each.mean for each in run.evaluations("test")] == [0.75, 0.5]
    assert run.evaluations("val") == []


def test_an_evaluation_without_its_run_stands_for_itself(tmp_path: Path):
    folder = write_evaluation(tmp_path / "scored", [0.5, 1.0], run=tmp_path / "gone", algo="protonet")
    for path in (folder, folder / "report.json", tmp_path):
        (run,) = find_runs([path])
        assert run.evaluation is not None
        assert (run.algorithm, run.metric, run.validation, run.metrics()) == ("protonet", "accuracy", None, [])
        assert [each.mean for each in run.evaluations()] == [0.75]


def test_a_folder_in_and_a_file_of_a_run_name_the_run_and_a_run_that_is_named_twice_counts_once(tmp_path: Path):
    folder = write_run(tmp_path / "run")
    paths = [folder, folder / "checkpoints", folder / "checkpoints" / "best.pt", folder / "metrics.jsonl", f"{tmp_path}/r*", tmp_path]
    (run,) = find_runs(paths)
    assert run.folder == folder


def test_a_path_without_runs_is_refused_in_one_sentence(tmp_path: Path):
    (tmp_path / "empty").mkdir()
    with pytest.raises(UserError, match=r"^there is no file or folder '.*gone'\.$"):
        find_runs([tmp_path / "gone"])
    with pytest.raises(UserError, match=r"^'.*empty' holds no run: a run has checkpoints/ or metrics.jsonl in its folder"):
        find_runs([tmp_path / "empty"])


def test_a_file_beside_runs_names_none_of_them(tmp_path: Path):
    write_run(tmp_path / "run")
    (tmp_path / "notes.txt").write_text("mine", encoding="utf-8")
    with pytest.raises(UserError, match=r"^'.*notes\.txt' holds no run: "):
        find_runs([tmp_path / "notes.txt"])


def test_the_folder_of_another_program_that_uses_hydra_is_no_run(tmp_path: Path):
    write_typed(tmp_path / "job", ["a=1"])
    (tmp_path / "job/.hydra/hydra.yaml").write_text("hydra: {job: {name: other, config_name: train}}\n")
    assert read_run(tmp_path / "job") is None


def test_a_report_of_strange_types_is_no_error(tmp_path: Path):
    folder = write_run(tmp_path / "run")
    for strange in ({"metric": 3, "best": [1], "steps": "x"}, {"best": {"score": "high", "step": -1}}, {"best": None}, []):
        (folder / "report.json").write_text(json.dumps(strange))
        (run,) = find_runs([folder])
        assert run.validation is not None
        assert run.validation.value == 0.5, "that of the log"
    (folder / "config.json").write_text(json.dumps({"options": [], "seed": "0", "select": [1]}))
    (run,) = find_runs([folder])
    assert (run.algorithm, run.seed) == ("?", None)


def test_a_run_of_an_earlier_metarun_has_the_config_of_its_checkpoint(tmp_path: Path):
    import torch

    from metarun.records import checkpoint
    from metarun.records.checkpoint import Checkpoint

    folder = write_run(tmp_path / "run")
    (folder / "config.json").unlink()
    stored = Checkpoint(step=60, params={"w": torch.zeros(1)}, state={}, config={"seed": 7, "options": {"algo": "reptile"}})
    checkpoint.save(folder / "checkpoints" / "best.pt", stored)
    (run,) = find_runs([folder])
    assert (run.seed, run.algorithm) == (7, "reptile")


@pytest.mark.parametrize(
    ("select", "metric", "words"),
    [
        (None, "accuracy", "mean"),
        (None, "mse", "median"),
        ("mean", "mse", "mean"),
        ("median@1", "mse", "median after 1 inner step"),
        ("@5", "accuracy", "mean after 5 inner steps"),
        ("nll", "mse", "nll"),
    ],
)
def test_the_statistic_is_that_of_the_selection(select: str | None, metric: str, words: str):
    from metarun.engine.selection import Selection
    from metarun.objectives import objective

    assert statistic_of(select, metric) == words
    chosen = Selection.of(select, objective({"accuracy": "classification", "mse": "regression"}[metric]))
    assert words.split()[0] == chosen.statistic
    assert chosen.inner_steps == (int(words.split()[2]) if "after" in words else None)


def test_reading_runs_needs_no_torch(tmp_path: Path):
    import subprocess
    import sys

    folder = write_run(tmp_path / "run", typed=["seed=0"])
    code = f"""
import sys
from metarun.commands.comparing.naming import names, settings
from metarun.commands.comparing.runs import find_runs
runs = find_runs(["{folder}"])
names(runs), settings(runs), runs[0].evaluations()
print([name for name in ("torch", "hydra", "numpy") if name in sys.modules])
"""
    done = subprocess.run([sys.executable, "-c", code], capture_output=True, text=True, check=False)
    assert done.stdout.strip() == "[]", done.stderr


def test_a_trained_run_says_its_config_without_its_checkpoint(tmp_path: Path):
    """What `metarun train` writes, on a run of four steps; the config is that of the checkpoint."""
    from small import composed
    from small_runs import SHORT, SINUSOID

    from metarun.commands.train import train
    from metarun.records import checkpoint

    config = composed(*SHORT, *SINUSOID, "algo.inner_lr=0.01") | {"options": {"algo": "maml", "task": "sinusoid"}}
    train(config, tmp_path / "run")
    assert json.loads((tmp_path / "run/config.json").read_text()) == checkpoint.load(tmp_path / "run/checkpoints/last.pt").config
    (run,) = find_runs([tmp_path / "run"])
    report = json.loads((tmp_path / "run/report.json").read_text())
    assert run.validation is not None
    assert (run.validation.value, run.validation.step) == (report["best"]["score"], report["best"]["step"])
    assert (run.algorithm, run.task, run.status, run.steps) == ("maml", "sinusoid", "finished", 4)
