"""Sweeps: the error that a job returns, jobs that fail while the others run, and a search by Optuna."""

from __future__ import annotations

import importlib.util
import json
import math
import subprocess
import sys
from pathlib import Path
from typing import TYPE_CHECKING, Any

import pytest
import yaml

from metarun.cli import sweep_jobs
from metarun.cli.folders import SweepFolder
from metarun.cli.sweeps import FAILED, Failure, failures_of, name_failures
from metarun.errors import UserError

if TYPE_CHECKING:
    from command_line import Calls, CommandLine

pytest_plugins = ("command_line",)

FIXED = "hydra.sweep.dir=sweep"
SMALL = ["task=sinusoid", "algo=maml", "backbone=mlp", "backbone.widths=[8]", "steps=3", "tasks_per_step=2", "eval_episodes=4"]


def raising(error: Exception) -> Any:
    """Return a job that raises the error for seed 0, and returns 0.25 for other seeds."""

    def answer(config: dict[str, Any]) -> float:
        if config["seed"] == 0:
            raise error
        return 0.25

    return answer


@pytest.fixture
def minimising(monkeypatch: pytest.MonkeyPatch) -> None:
    """Let Hydra's own sweeper count as one that reads the results of the jobs, as Optuna's does."""
    monkeypatch.setattr(sweep_jobs, "is_grid", lambda sweeper: False)


@pytest.mark.usefixtures("minimising")
def test_each_job_prints_the_error_that_a_sweeper_minimises(command_line: CommandLine, calls: Calls) -> None:
    calls.answer = lambda config: 0.25 + config["seed"]
    answer = command_line("train", "-m", "seed=0,1", FIXED)
    assert answer.code == 0
    said = [line for line in answer.out.splitlines() if "which a sweeper minimises" in line]
    assert [line.split(": ")[1] for line in said] == ["0.25", "1.25"]
    assert not (Path("sweep") / FAILED).exists()
    assert "minimises" not in command_line("train").out


def test_a_sweep_over_all_combinations_prints_no_error(command_line: CommandLine, calls: Calls) -> None:
    answer = command_line("train", "-m", "seed=0,1", FIXED)
    assert (answer.code, len(calls.train)) == (0, 2)
    assert "minimises" not in answer.out


@pytest.mark.parametrize(
    ("words", "varied"),
    [
        ("algo=maml,protonet seed=0,1 steps=9", [{"algo": algo, "seed": seed} for algo in ("maml", "protonet") for seed in (0, 1)]),
        ("experiment=smoke,quickstart", [{"experiment": "smoke"}, {"experiment": "quickstart"}]),
        ("experiment=smoke trust=[a] seed=0,1", [{"seed": 0}, {"seed": 1}]),
        ("logger=[tensorboard,wandb] seed=0,1", [{"seed": 0}, {"seed": 1}]),
    ],
)
def test_a_job_of_a_sweep_learns_the_keys_that_the_sweep_varies(
    words: str, varied: list[dict[str, Any]], command_line: CommandLine, calls: Calls
) -> None:
    assert command_line("train", "-m", *words.split(), FIXED).code == 0
    assert [config["typed"] for config, _ in calls.train] == varied


@pytest.mark.usefixtures("minimising")
def test_an_evaluation_returns_an_error_too(command_line: CommandLine, calls: Calls) -> None:
    """The stand-in reports an accuracy of 0.9."""
    calls.answer = lambda config: 0.9
    answer = command_line("eval", "-m", "checkpoint=some/run", "seed=0,1")
    assert answer.out.count("which a sweeper minimises: 0.1\n") == 2


def test_a_refused_job_lets_the_others_run_and_is_named_at_the_end(command_line: CommandLine, calls: Calls) -> None:
    calls.answer = raising(UserError("seed 0 is refused."))
    answer = command_line("train", "-m", "seed=0,1", FIXED)
    assert answer.code == 2
    assert answer.err.endswith(
        "metarun: a job of the sweep failed, and each counts as an error of infinity:\nmetarun: 0_seed-0: seed 0 is refused.\n"
    )
    assert "Traceback" not in answer.err + answer.out
    assert [config["seed"] for config, _ in calls.train] == [0, 1]
    assert "seed 0 is refused." in (calls.train[0][1] / "metarun.log").read_text()
    assert json.loads((Path("sweep") / FAILED).read_text()) == {"job": "0_seed-0", "error": "seed 0 is refused.", "bug": False}


def test_a_bug_in_one_job_lets_the_others_run_and_its_traceback_is_in_the_log(command_line: CommandLine, calls: Calls) -> None:
    calls.answer = raising(ZeroDivisionError("ours"))
    answer = command_line("train", "-m", "seed=0,1", FIXED)
    assert answer.code == 1
    assert "metarun: 0_seed-0: ZeroDivisionError: ours (test_sweeps.py, line " in answer.err.splitlines()[-1]
    assert [config["seed"] for config, _ in calls.train] == [0, 1]
    assert "Traceback" in (calls.train[0][1] / "metarun.log").read_text()


def test_a_second_sweep_in_the_same_folder_names_its_own_failures_alone(command_line: CommandLine, calls: Calls) -> None:
    calls.answer = raising(UserError("no."))
    assert command_line("train", "-m", "seed=0,1", FIXED).code == 2
    assert command_line("train", "-m", "seed=1,2", FIXED).code == 0
    assert command_line("train", "-m", "seed=0,2", FIXED).err.count("0_seed-0") == 1


def test_an_interrupt_ends_a_sweep(command_line: CommandLine, calls: Calls) -> None:
    def interrupt(config: object) -> float:
        raise KeyboardInterrupt

    calls.answer = interrupt
    answer = command_line("train", "-m", "seed=0,1")
    assert (answer.code, len(calls.train)) == (130, 1)


def test_a_sweeper_that_maximises_is_refused(command_line: CommandLine, calls: Calls) -> None:
    answer = command_line("train", "-m", "seed=0,1", "+hydra.sweeper.direction=maximize")
    assert answer.code == 2
    assert "a job returns an error, which is to be minimised; leave out hydra.sweeper.direction." in answer.err
    assert calls.train == []


def test_failures_before_the_sweep_are_not_its_own(tmp_path: Path) -> None:
    lines = [Failure(str(number), "x", False)._asdict() for number in range(3)]
    (tmp_path / FAILED).write_text("".join(f"{json.dumps(line)}\n" for line in lines))
    assert [failure.job for failure in failures_of(SweepFolder(tmp_path, 2))] == ["2"]
    assert failures_of(None) == failures_of(SweepFolder(tmp_path / "none", 0)) == []


def test_the_exit_code_tells_a_bug_from_a_mistake(capsys: pytest.CaptureFixture[str]) -> None:
    mistake, bug = Failure("0_a", "no.", False), Failure("1_b", "KeyError: 'x'", True)
    assert [name_failures(failures) for failures in ([], [mistake], [bug, mistake])] == [0, 2, 1]
    assert "metarun: 2 jobs of the sweep failed" in capsys.readouterr().err


def metarun(*words: str, folder: Path) -> subprocess.CompletedProcess[str]:
    command = [sys.executable, "-m", "metarun", *words, "device.threads=1", "logger=jsonl"]
    return subprocess.run(command, cwd=folder, capture_output=True, text=True, timeout=300)


def test_a_training_that_diverges_is_a_failed_job_and_the_next_one_trains(tmp_path: Path) -> None:
    done = metarun("train", "-m", *SMALL, "algo.inner_lr=1.0e9,0.01", FIXED, folder=tmp_path)
    assert done.returncode == 2
    [failure] = [json.loads(line) for line in (tmp_path / "sweep" / FAILED).read_text().splitlines()]
    assert failure["job"].startswith("0_algo.inner_lr-1")
    assert "the loss of step 1 is not finite" in failure["error"]
    [report] = (tmp_path / "sweep").glob("*/report.json")
    assert report.parent.name == "1_algo.inner_lr-0.01"


@pytest.mark.slow
def test_optuna_ends_its_study_with_the_trial_that_is_best_by_validation(tmp_path: Path) -> None:
    """Three inner rates, of which one diverges. A study that maximised the error would keep the worse of the other two, or infinity."""
    if importlib.util.find_spec("optuna") is None:
        pytest.skip("the extra `sweep` is not installed; the extra `dev` has what this test needs")
    optuna = ["hydra/sweeper=optuna", "hydra/sweeper/sampler=grid", "hydra.sweeper.n_trials=3", "hydra.sweeper.n_jobs=1"]
    done = metarun("train", "-m", *optuna, *SMALL, "algo.inner_lr=choice(0.001,1.0e9,0.3)", FIXED, folder=tmp_path)
    assert done.returncode == 2, done.stderr
    assert done.stdout.count("which a sweeper minimises") == 2
    reports = [json.loads(file.read_text()) for file in sorted((tmp_path / "sweep").glob("*/report.json"))]
    errors = {report["best"]["score"] for report in reports}
    result = yaml.safe_load((tmp_path / "sweep/optimization_results.yaml").read_text())
    assert len(reports) == 2
    assert result["best_value"] == pytest.approx(min(errors))
    assert result["best_value"] < max(errors) < math.inf
    best = next(file.parent for file in (tmp_path / "sweep").glob("*/report.json") if str(min(errors)) in file.read_text())
    assert str(result["best_params"]["algo.inner_lr"]) in best.name
    assert done.stderr.count("counts as an error of infinity") == 1
