"""A run that was killed and resumed is the run that was never stopped: the same metrics apart from times, and equal weights."""

from __future__ import annotations

import json
import math
import os
import random
import shutil
import signal
import time
from collections.abc import Callable
from pathlib import Path
from typing import Any

import pytest
import torch
from forks import forked
from small import composed

from metarun.commands import overrides
from metarun.commands.train import train
from metarun.compute import running
from metarun.compute.plan import kernels_missing
from metarun.engine import training as engine
from metarun.engine.keeping import STEP_FILES, kept_files
from metarun.engine.validation import Validation
from metarun.errors import Stopped, UserError
from metarun.records import checkpoint
from metarun.records.tracking import TIME_KEYS
from metarun.testing import assert_same

STEPS = 40
SINUSOID = ("task=sinusoid", "backbone=mlp", "backbone.widths=[4]", "task.shots=4", "task.queries=5")
RUNS = {
    "maml": ("algo=maml", "algo.inner_lr=0.01", *SINUSOID, "optimizer.schedule=cosine", "keep=3"),
    "reptile": ("algo=reptile", "algo.inner_steps=2", "algo.test_inner_steps=2", *SINUSOID),
    "protonet": ("algo=protonet",),
}


def config(name: str, steps: int = STEPS) -> dict[str, Any]:
    """A tiny run that logs, validates and saves at odd intervals, so that a kill finds it in every state."""
    schedule = ("eval_every=5", "save_every=3", "log_every=2", "eval_episodes=3", "tasks_per_step=2", f"steps={steps}")
    found = composed(*RUNS[name], *schedule, "logger=jsonl", "device=cpu", "device.threads=1", "device.task_chunk=1")
    if name == "protonet":
        found["task"] = {"_target_": "small.small_images", "ways": 2, "shots": 1, "queries": 2, "train_ways": 3, "seed": 0}
        found["backbone"] = {"_target_": "small.SmallConv", "filters": 2, "norm": "running"}
    return found


def train_or_resume(name: str, folder: Path) -> None:
    if (folder / "checkpoints/last.pt").exists():
        train({"resume": str(folder), "overrides": {"trust": ["small"]}, "groups": {}}, folder)
    else:
        shutil.rmtree(folder, ignore_errors=True)  # a kill before the first checkpoint leaves its metrics alone
        train(config(name), folder)


def metrics(folder: Path) -> list[dict[str, Any]]:
    """The lines of metrics.jsonl without the times."""
    lines = [json.loads(line) for line in (folder / "metrics.jsonl").read_text().splitlines()]
    return [{key: value for key, value in line.items() if key not in TIME_KEYS} for line in lines]


def assert_same_run(folder: Path, reference: Path) -> None:
    assert metrics(folder) == metrics(reference)
    kept = kept_files(checkpoint.load(reference / "checkpoints/last.pt").best)
    for file in ("last.pt", "best.pt", *kept):
        ours, theirs = (checkpoint.load(each / "checkpoints" / file) for each in (folder, reference))
        for part in ("step", "params", "state", "best", "window"):
            assert_same(getattr(ours, part), getattr(theirs, part), f"{part} in {file}", tolerance=0.0)
        assert_same(without_rate(ours.optimizer), without_rate(theirs.optimizer), f"optimizer in {file}", tolerance=0.0)


def without_rate(optimizer: dict[str, Any]) -> dict[str, Any]:
    """A state of torch's optimizer without the rate, which each step sets anew. A start that takes no step leaves the first rate there."""
    groups = [{key: value for key, value in group.items() if key != "lr"} for group in optimizer["param_groups"]]
    return {**optimizer, "param_groups": groups}


@pytest.fixture(scope="module", params=list(RUNS))
def unstopped(request: pytest.FixtureRequest, tmp_path_factory: pytest.TempPathFactory) -> tuple[str, Path]:
    """The name of a run, and the folder in which it ran through without a stop."""
    folder = tmp_path_factory.mktemp("unstopped") / "run"
    train(config(request.param), folder)
    return request.param, folder


def wait_for(condition: Callable[[], bool], child: int) -> int | None:
    """Wait until the condition holds; return the child's exit status where it ended before."""
    while not condition():
        ended, status = os.waitpid(child, os.WNOHANG)
        if ended:
            return status
        time.sleep(0.002)
    return None


def kill_on_the_way(name: str, folder: Path, lines: int, seconds: float) -> bool:
    """Run on in a child until it wrote so many lines, wait, and kill it; return False where it came to its end before."""
    path = folder / "metrics.jsonl"
    before, target = inode(path), lines_to_keep(folder) + lines

    def far_enough() -> bool:  # a resumed run first puts another file in place, without the lines after its checkpoint
        return inode(path) != before and path.read_bytes().count(b"\n") >= target

    child = forked(lambda: train_or_resume(name, folder))
    status = wait_for(far_enough, child)
    if status is not None:
        assert os.waitstatus_to_exitcode(status) == 0, "the run ended with an error"
        return False
    time.sleep(seconds)
    os.kill(child, signal.SIGKILL)
    return os.WIFSIGNALED(os.waitpid(child, 0)[1])


def inode(path: Path) -> int | None:
    return path.stat().st_ino if path.exists() else None


def lines_to_keep(folder: Path) -> int:
    """How many lines of metrics the last checkpoint keeps."""
    path = folder / "checkpoints/last.pt"
    if not path.exists():
        return 0
    lines = (folder / "metrics.jsonl").read_bytes().splitlines(keepends=True)
    return sum(json.loads(line)["step"] <= checkpoint.load(path).step for line in lines if line.endswith(b"\n"))


@pytest.mark.skipif(not hasattr(os, "fork"), reason="needs os.fork")
def test_a_run_killed_at_random_moments_is_the_run_never_stopped(
    unstopped: tuple[str, Path], tmp_path: Path, monkeypatch: pytest.MonkeyPatch
):
    """After a kill, the run of ProtoNet records its programs again. Recording takes longest, so the other two run without programs."""
    name, reference = unstopped
    if name != "protonet":
        monkeypatch.setattr(running, "WORTH_RECORDING", math.inf)
    draw, folder = random.Random(name), tmp_path / "run"
    kills, wanted = 0, 8 if name == "maml" else 5
    while kills < wanted and kill_on_the_way(name, folder, lines=draw.randint(1, 3), seconds=draw.uniform(0.0, 0.01)):
        kills += 1
    assert kills >= 4, "the run was over before it was stopped often enough"
    if checkpoint.load(folder / "checkpoints/last.pt").step < STEPS:
        train_or_resume(name, folder)
    assert_same_run(folder, reference)


class Stop(BaseException):
    """Stands in for a kill, within this process."""


@pytest.mark.parametrize("stop", [4, 10])
def test_a_run_that_broke_off_after_any_step_is_the_run_never_stopped(
    unstopped: tuple[str, Path], tmp_path: Path, monkeypatch: pytest.MonkeyPatch, stop: int
):
    name, reference = unstopped
    train_and_break_off(config(name), tmp_path / "run", stop, monkeypatch)
    train_or_resume(name, tmp_path / "run")
    assert_same_run(tmp_path / "run", reference)
    ours, theirs = ({file.name for file in (folder / "checkpoints").glob(STEP_FILES)} for folder in (tmp_path / "run", reference))
    assert ours == theirs
    assert len(ours) == (3 if name == "maml" else 0)


def test_a_run_that_broke_off_behind_its_last_checkpoint_has_every_file_that_the_checkpoint_names(
    tmp_path: Path, monkeypatch: pytest.MonkeyPatch
):
    """It validates at the steps 5, 10, 15, 20, 25 and saves at 3, 6, 9, …: it stops after a validation that no last.pt names."""
    for stop in (11, 16, 21, 26):
        folder = tmp_path / f"run{stop}"
        train_and_break_off(config("maml"), folder, stop, monkeypatch)
        stored = checkpoint.load(folder / "checkpoints/last.pt")
        for name in kept_files(stored.best):
            assert (folder / "checkpoints" / name).is_file()


def train_and_break_off(config: dict[str, Any], folder: Path, stop: int, monkeypatch: pytest.MonkeyPatch) -> None:
    step = engine.Loop.step

    def breaking(loop: engine.Loop) -> None:
        step(loop)
        if loop.position.step == stop:
            raise Stop

    with monkeypatch.context() as patched:
        patched.setattr(engine.Loop, "step", breaking)
        with pytest.raises(Stop):
            train(config, folder)


@pytest.mark.parametrize("compile", ["auto", pytest.param(True, marks=pytest.mark.slow)])
def test_a_resumed_run_repeats_bit_for_bit_under_what_was_chosen_for_it_too(
    tmp_path: Path, monkeypatch: pytest.MonkeyPatch, compile: bool | str
):
    """Several tasks mapped at once, every thread that there is, compiled kernels."""
    chosen = config("maml", steps=12)
    chosen["device"] = {"name": "cpu", "task_chunk": "auto", "threads": "auto", "compile": compile, "precision": "float32"}
    execution = resumed_as_chosen("maml", chosen, tmp_path, monkeypatch)
    assert execution["compile"] is (compile is True)


@pytest.mark.skipif(kernels_missing() is not None, reason=f"no C kernels here: {kernels_missing()}")
@pytest.mark.parametrize("kernels", ["c", "auto"])
def test_a_resumed_run_repeats_bit_for_bit_with_c_kernels(kernels: str, tmp_path: Path, monkeypatch: pytest.MonkeyPatch):
    from metarun.compute.kernels import operations

    monkeypatch.setattr("metarun.compute.plan.C_KERNELS_FLOPS", 0.0)
    taken: list[str] = []
    convolve = operations._convolve
    monkeypatch.setattr(operations, "_convolve", lambda name, *given: (taken.append(name), convolve(name, *given)))
    chosen = config("protonet", steps=12)
    chosen["backbone"] = {
        "_target_": "metarun.backbones.conv4.Conv4",
        "filters": 16,
        "pooling": "stride",
        "input_shape": None,
        "norm": "batch",
    }
    chosen["device"] = {"name": "cpu", "task_chunk": "auto", "threads": "auto", "precision": "float32", "kernels": kernels}
    assert resumed_as_chosen("protonet", chosen, tmp_path, monkeypatch)["kernels"] == "c"
    assert {"forward", "input_gradient", "weight_gradient"} <= set(taken)


def resumed_as_chosen(name: str, chosen: dict[str, Any], folder: Path, monkeypatch: pytest.MonkeyPatch) -> dict[str, Any]:
    """Check that a run that is broken off and resumed is the one that was not; return what its engine chose."""
    train(chosen, folder / "reference")
    train_and_break_off(chosen, folder / "run", 8, monkeypatch)
    train_or_resume(name, folder / "run")
    assert_same_run(folder / "run", folder / "reference")
    return checkpoint.load(folder / "run/checkpoints/last.pt").execution


def test_a_signal_finishes_the_step_saves_and_says_how_to_go_on(
    unstopped: tuple[str, Path], tmp_path: Path, monkeypatch: pytest.MonkeyPatch, capsys: pytest.CaptureFixture[str]
):
    name, reference = unstopped
    step, number = engine.Loop.step, signal.SIGINT if name == "protonet" else signal.SIGTERM

    def interrupted(loop: engine.Loop) -> None:
        if loop.position.step == 6:
            os.kill(os.getpid(), number)
        step(loop)

    monkeypatch.setattr(engine.Loop, "step", interrupted)
    with pytest.raises(Stopped):  # so that the command does not exit with 0
        train(config(name), tmp_path / "run")
    monkeypatch.setattr(engine.Loop, "step", step)
    said = capsys.readouterr().err
    assert f"stopped at step 7 of {STEPS} and saved; go on with: metarun train resume={tmp_path / 'run'}" in said
    assert "stopped at step 7" in said.splitlines()[-1], "the last values stand above"
    assert checkpoint.load(tmp_path / "run/checkpoints/last.pt").step == 7
    train_or_resume(name, tmp_path / "run")
    assert_same_run(tmp_path / "run", reference)


@pytest.mark.parametrize("step", [10, STEPS])
def test_a_signal_breaks_a_validation_off_and_the_resumed_run_begins_with_it(
    unstopped: tuple[str, Path], tmp_path: Path, monkeypatch: pytest.MonkeyPatch, capsys: pytest.CaptureFixture[str], step: int
):
    """Also where the second start is stopped in the same validation, and where it is the one after the last step."""
    name, reference = unstopped
    folder, validated = tmp_path / "run", signalled_in_the_validation_after(step, monkeypatch)
    for _ in range(2):
        with pytest.raises(Stopped) as stopped:
            train_or_resume(name, folder)
        assert stopped.value.number == signal.SIGTERM
        last = capsys.readouterr().err.splitlines()[-1]
        said = f"metarun: stopped in the validation after step {step} and saved; go on with: metarun train resume={folder}"
        assert last.startswith(said)
        stored = checkpoint.load(folder / "checkpoints/last.pt")
        assert (stored.step, stored.validates) == (step, True)
        assert not (folder / "report.json").exists()
    assert validated.count(step) == 2
    monkeypatch.undo()
    train_or_resume(name, folder)
    then = f", then steps {step + 1} to {STEPS} of 2 tasks" if step < STEPS else ""
    assert f"; the validation after step {step}{then}, seed 0" in capsys.readouterr().err
    assert_same_run(folder, reference)
    assert not checkpoint.load(folder / "checkpoints/last.pt").validates
    assert json.loads((folder / "report.json").read_text()) == json.loads((reference / "report.json").read_text())


def signalled_in_the_validation_after(step: int, monkeypatch: pytest.MonkeyPatch) -> list[int]:
    """Let a signal come in the middle of the validation after a step; return the steps of the validations that begin."""
    run, begun, steps = Validation.run, [], list[int]()

    def noted(loop: engine.Loop, *others: Any) -> None:
        begun.append(loop.position.step)
        validate(loop, *others)

    def interrupted(validation: Validation, params: Any, state: Any) -> Any:
        result = run(validation, params, state)  # all episodes are scored, and nothing is noted yet
        steps.append(begun[-1])
        if begun[-1] == step:
            os.kill(os.getpid(), signal.SIGTERM)
        return result

    validate = engine._validate_and_track
    monkeypatch.setattr(engine, "_validate_and_track", noted)
    monkeypatch.setattr(Validation, "run", interrupted)
    return steps


def test_a_choice_without_a_step_is_broken_off_and_begins_again(tmp_path: Path, monkeypatch: pytest.MonkeyPatch):
    words = {**config("maml", steps=0), "algo": composed("algo=scratch", "algo.max_inner_steps=2", "algo.inner_lrs=[0.01]")["algo"]}
    train(dict(words), tmp_path / "whole")
    signalled_in_the_validation_after(0, monkeypatch)
    with pytest.raises(Stopped):
        train(dict(words), tmp_path / "run")
    monkeypatch.undo()
    assert checkpoint.load(tmp_path / "run/checkpoints/last.pt").validates
    resume(tmp_path / "run")
    assert metrics(tmp_path / "run") == metrics(tmp_path / "whole")
    ours, theirs = (checkpoint.load(tmp_path / name / "checkpoints/best.pt") for name in ("run", "whole"))
    assert_same(ours.state, theirs.state, "state", tolerance=0.0)


def resume(folder: Path, groups: dict[str, Any] | None = None, **overrides: Any) -> float:
    typed = {key.replace("__", "."): value for key, value in overrides.items()}
    return train({"resume": str(folder), "overrides": {"trust": ["small"], **typed}, "groups": groups or {}}, folder)


@pytest.fixture
def finished(tmp_path: Path) -> Path:
    """A run of four steps at a constant rate."""
    folder = tmp_path / "run"
    train({**config("reptile", steps=4), "optimizer": composed("optimizer=adam")["optimizer"]}, folder)
    return folder


def test_more_steps_go_on_as_if_there_had_been_more_from_the_start(finished: Path, tmp_path: Path):
    """The end of the short run is an extra validation and logged point; the weights know nothing of it."""
    resume(finished, steps=9)
    train({**config("reptile", steps=9), "optimizer": composed("optimizer=adam")["optimizer"]}, tmp_path / "long")
    ours, theirs = (checkpoint.load(folder / "checkpoints/last.pt") for folder in (finished, tmp_path / "long"))
    assert_same((ours.step, ours.params, ours.state), (theirs.step, theirs.params, theirs.state), "the end", tolerance=0.0)
    assert ours.config["steps"] == 9


def test_a_finished_run_says_so(finished: Path):
    with pytest.raises(UserError, match="has done all its 4 steps; give a larger steps= to go on"):
        resume(finished)


def test_an_override_that_differs_is_refused_and_one_that_does_not_is_not(finished: Path):
    with pytest.raises(UserError, match=r"algo\.inner_lr=0\.5 differs from the run's 0\.001; on resume only steps, .* may change"):
        resume(finished, steps=6, algo__inner_lr=0.5)
    with pytest.raises(UserError, match="seed=7 differs from the run's 0"):
        resume(finished, steps=6, seed=7)
    with pytest.raises(UserError, match=r"there is no key 'algo\.inner_rl'.*Did you mean 'algo\.inner_lr'"):
        resume(finished, steps=6, algo__inner_rl=0.5)
    resume(finished, steps=5, algo__inner_lr=0.001, seed=0, save_every=1, eval_every=2)


def test_what_keeps_a_resumed_run_from_repeating_bit_for_bit_is_said(finished: Path, capsys: pytest.CaptureFixture[str]):
    resume(finished, steps=5, device__task_chunk=2)
    assert "not bit for bit the run that was stopped, since chunk 1 -> 2" in capsys.readouterr().out


def test_steps_that_move_the_end_of_a_schedule_are_told(tmp_path: Path, capsys: pytest.CaptureFixture[str]):
    train(config("maml", steps=2), tmp_path / "run")
    capsys.readouterr()
    resume(tmp_path / "run", steps=3)
    assert "the learning rate's schedule now ends at step 3 instead of 2" in capsys.readouterr().out


def test_a_chosen_chunk_is_used_again(tmp_path: Path):
    """`auto` may choose otherwise in a newer version or on another machine; the checkpoint knows what it was."""
    first = config("maml", steps=2)
    first["device"] = {**first["device"], "task_chunk": "auto"}
    train(first, tmp_path / "run")
    stored = checkpoint.load(tmp_path / "run/checkpoints/last.pt")
    assert stored.config["device"]["task_chunk"] == "auto"
    assert overrides.resume_config(stored, {}, {})["device"]["task_chunk"] == stored.execution["chunk"] == 2


def test_a_checkpoint_cannot_vouch_for_the_code_that_it_names(tmp_path: Path):
    """`trust` counts where the user types it, and not where the file says it."""
    train({**config("protonet", steps=2), "trust": ["small"]}, tmp_path / "run")
    with pytest.raises(UserError, match=r"names 'small\.\w+', which is not part of metarun; if you trust that code, add trust=\[small\]"):
        train({"resume": str(tmp_path / "run"), "overrides": {"steps": 4}, "groups": {}}, tmp_path / "run")


def test_threads_are_part_of_what_a_checkpoint_remembers(finished: Path):
    execution = checkpoint.load(finished / "checkpoints/last.pt").execution
    assert execution == {
        "device": "cpu",
        "threads": 1,
        "chunk": 1,
        "compile": False,
        "kernels": "torch",
        "precision": "float32",
        "torch": str(torch.__version__),
    }
