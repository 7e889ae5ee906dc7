"""`resume=auto`: what a run folder holds decides whether a run starts, goes on or is done."""

from __future__ import annotations

import json
import os
import signal
from pathlib import Path
from typing import Any

import pytest
from small_runs import SHORT, SINUSOID, composed

from metarun.commands.continuing import changes, finished
from metarun.commands.train import train
from metarun.engine import training as engine
from metarun.engine.validation import Validation
from metarun.errors import Stopped, UserError
from metarun.records import checkpoint


def config(*words: str) -> dict[str, Any]:
    return composed(*SHORT, *SINUSOID, "algo.inner_lr=0.01", "save_every=2", "log_every=1", "resume=auto", *words)


def stop_before(step: int, monkeypatch: pytest.MonkeyPatch, folder: Path, *words: str) -> None:
    original = engine.Loop.step

    def interrupted(loop: engine.Loop) -> None:
        if loop.position.step == step - 1:
            os.kill(os.getpid(), signal.SIGUSR1)
        original(loop)

    monkeypatch.setattr(engine.Loop, "step", interrupted)
    with pytest.raises(Stopped):
        train(config(*words), folder)
    monkeypatch.setattr(engine.Loop, "step", original)


def lines(folder: Path) -> list[dict[str, Any]]:
    timed = {"time", "speed/tasks_per_second", "speed/share_of_time_waiting_for_episodes"}
    read = [json.loads(line) for line in (folder / "metrics.jsonl").read_text().splitlines()]
    return [{key: value for key, value in line.items() if key not in timed} for line in read]


@pytest.fixture
def whole(tmp_path: Path) -> Path:
    train(config(), tmp_path / "whole")
    return tmp_path / "whole"


def test_it_starts_goes_on_and_leaves_alone_what_is_done(
    whole: Path, tmp_path: Path, monkeypatch: pytest.MonkeyPatch, capsys: pytest.CaptureFixture[str]
):
    folder = tmp_path / "run"
    (folder / ".hydra").mkdir(parents=True)  # of a start that failed
    stop_before(3, monkeypatch, folder)
    error = train(config(), folder)
    assert lines(folder) == lines(whole)
    before = {path: path.read_bytes() for path in folder.rglob("*") if path.is_file()}
    capsys.readouterr()
    assert train(config(), folder) == error
    assert f"metarun: nothing to do in {folder}: it is done after 4 steps (best validation mse {error:.4f}" in capsys.readouterr().out
    assert {path: path.read_bytes() for path in folder.rglob("*") if path.is_file()} == before


def test_a_run_that_was_killed_before_its_report_writes_it(whole: Path):
    """The last steps run again, from previous.pt."""
    report, weights = (whole / "report.json").read_text(), checkpoint.load(whole / "checkpoints/last.pt").params
    before = lines(whole)
    (whole / "report.json").unlink()
    train(config(), whole)
    assert (whole / "report.json").read_text() == report
    assert lines(whole) == before
    again = checkpoint.load(whole / "checkpoints/last.pt").params
    assert all(bool((again[name] == value).all()) for name, value in weights.items())


def test_a_damaged_checkpoint_gives_way_to_the_previous_one(whole: Path, tmp_path: Path, monkeypatch: pytest.MonkeyPatch):
    folder = tmp_path / "run"
    stop_before(3, monkeypatch, folder)
    last = folder / "checkpoints/last.pt"
    last.write_bytes(last.read_bytes()[:100])
    train(config(), folder)
    assert lines(folder) == lines(whole)


def test_a_run_that_was_stopped_in_its_last_validation_begins_with_it(whole: Path, tmp_path: Path, monkeypatch: pytest.MonkeyPatch):
    folder, run = tmp_path / "run", Validation.run
    steps: list[int] = []

    def stopped(validation: Validation, params: Any, state: Any) -> Any:
        steps.append(1)
        if len(steps) == 2:
            os.kill(os.getpid(), signal.SIGUSR1)
        return run(validation, params, state)

    monkeypatch.setattr(Validation, "run", stopped)
    with pytest.raises(Stopped):
        train(config(), folder)
    assert checkpoint.load(folder / "checkpoints/last.pt").validates
    train(config(), folder)
    assert len(steps) == 3, "the steps before the last validation were taken again"
    assert lines(folder) == lines(whole)
    assert (folder / "report.json").read_text() == (whole / "report.json").read_text()


def test_other_values_are_refused_by_name_and_nothing_changes(whole: Path):
    before = {path: path.read_bytes() for path in whole.rglob("*") if path.is_file()}
    with pytest.raises(
        UserError,
        match=r"holds a run with other values: seed=1 instead of 0, task.seed=1 instead of 0, algo.inner_lr=0.5 instead of 0.01\. Give",
    ):
        train(config("algo.inner_lr=0.5", "seed=1"), whole)
    assert {path: path.read_bytes() for path in whole.rglob("*") if path.is_file()} == before


def test_more_steps_and_other_intervals_go_on(whole: Path, tmp_path: Path):
    train(config("steps=6", "save_every=3", "save_minutes=1", "device.threads=1"), whole)
    assert json.loads((whole / "report.json").read_text())["steps"] == 6
    train(config("steps=6"), tmp_path / "longer")
    assert lines(whole) == lines(tmp_path / "longer")


def test_a_value_that_the_run_drew_is_no_difference_and_one_that_was_given_up_is():
    stored = {"task": {"classes": {"train": ["a"]}, "max": 5, "drawn": 7, "ways": 3}, "options": {"task": "folder"}}
    now = {"task": {"classes": None, "max": None, "drawn": None, "ways": 3}, "options": {"task": "folder"}, "resume": None}
    assert changes(now, stored, {"task.max"}) == {"task.max": (5, None)}


def test_of_another_algorithm_the_name_alone_is_a_difference():
    stored = {"algo": {"_target_": "a.Maml", "inner_lr": 1}, "options": {"algo": "maml"}}
    now = {"algo": {"_target_": "a.Protonet", "distance": "cosine"}, "options": {"algo": "protonet"}}
    assert changes(now, stored) == {"algo": ("maml", "protonet")}


def test_a_run_that_ended_early_is_done_unless_its_patience_has_changed(tmp_path: Path):
    (tmp_path / "report.json").write_text('{"steps": 3, "stopped_early": true, "best": {"score": 1.0}}')
    assert finished(tmp_path, 4) is not None
    assert finished(tmp_path, 4, patient=True) is None


@pytest.mark.parametrize("content", ["", "{", "[]", '{"steps": 4}', '{"steps": 3, "best": {"score": 1.0}}', '{"steps": 4, "best": null}'])
def test_a_report_that_is_damaged_or_of_fewer_steps_is_of_no_finished_run(tmp_path: Path, content: str):
    assert finished(tmp_path, 4) is None
    (tmp_path / "report.json").write_text(content)
    assert finished(tmp_path, 4) is None
