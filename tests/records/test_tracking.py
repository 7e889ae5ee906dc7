"""What is logged, and what a resumed run takes back."""

from __future__ import annotations

import json
import subprocess
import sys
from collections.abc import Mapping
from pathlib import Path
from typing import Any

import pytest
import torch

from metarun.errors import UserError
from metarun.records.loggers.logger import RunStart
from metarun.records.tracking import TIME_KEYS, Silent, Tracker, parse_entry


def lines(folder: Path) -> list[dict[str, Any]]:
    return [json.loads(line) for line in (folder / "metrics.jsonl").read_text().splitlines()]


def log_steps(folder: Path, first: int, last: int, resume_step: int | None = None) -> None:
    with Tracker(folder, resume_step=resume_step) as tracker:
        for step in range(first, last + 1):
            tracker.log(step, {"train/loss": 1 / step, "speed/tasks_per_second": 100.0 * step})


def without_time(folder: Path) -> list[dict[str, Any]]:
    return [{key: value for key, value in line.items() if key not in TIME_KEYS} for line in lines(folder)]


def test_each_log_is_one_json_object_with_step_first_and_time_last(tmp_path: Path) -> None:
    with Tracker(tmp_path) as tracker:
        tracker.log(5, {"train/loss": torch.tensor(0.5), "val/accuracy": 1})
    (line,) = lines(tmp_path)
    assert list(line) == ["step", "train/loss", "val/accuracy", "time"]
    assert (line["step"], line["train/loss"], line["val/accuracy"]) == (5, 0.5, 1.0)


def test_a_line_is_on_disk_at_once(tmp_path: Path) -> None:
    tracker = Tracker(tmp_path)
    tracker.log(1, {"loss": 0.1})
    assert len(lines(tmp_path)) == 1
    tracker.close()


def test_floats_are_written_so_that_they_come_back_exactly(tmp_path: Path) -> None:
    value = float(torch.tensor(0.1, dtype=torch.float32)) / 3
    with Tracker(tmp_path) as tracker:
        tracker.log(1, {"loss": value})
    assert lines(tmp_path)[0]["loss"] == value


def test_a_value_that_is_not_finite_is_null_so_that_every_json_reader_can_read_the_line(tmp_path: Path) -> None:
    with Tracker(tmp_path) as tracker:
        tracker.log(1, {"loss": float("nan"), "gradient_norm": float("inf")})
    assert (lines(tmp_path)[0]["loss"], lines(tmp_path)[0]["gradient_norm"]) == (None, None)


def test_a_resumed_run_takes_back_what_came_after_the_checkpoint(tmp_path: Path) -> None:
    log_steps(tmp_path / "straight", 1, 6)
    log_steps(tmp_path / "killed", 1, 5)
    log_steps(tmp_path / "killed", 4, 6, resume_step=3)
    assert without_time(tmp_path / "killed") == without_time(tmp_path / "straight")
    assert sorted(path.name for path in (tmp_path / "killed").iterdir()) == ["metrics.jsonl"]


def test_a_line_that_a_kill_cut_short_is_dropped(tmp_path: Path) -> None:
    log_steps(tmp_path, 1, 3)
    with (tmp_path / "metrics.jsonl").open("a") as file:
        file.write('{"step": 3, "val/accu')
    log_steps(tmp_path, 4, 4, resume_step=3)
    assert [line["step"] for line in lines(tmp_path)] == [1, 2, 3, 4]


def test_time_goes_on_where_the_killed_run_was(tmp_path: Path) -> None:
    (tmp_path / "metrics.jsonl").write_text('{"step": 1, "time": 1000.5}\n{"step": 2, "time": 2000.5}\n')
    log_steps(tmp_path, 2, 2, resume_step=1)
    assert [line["time"] >= 1000.5 for line in lines(tmp_path)] == [True, True]
    assert lines(tmp_path)[-1]["time"] < 1100


def test_a_new_run_does_not_write_over_the_metrics_of_another(tmp_path: Path) -> None:
    log_steps(tmp_path, 1, 2)
    before = (tmp_path / "metrics.jsonl").read_bytes()
    with pytest.raises(UserError, match="holds the metrics of another run"):
        Tracker(tmp_path)
    assert (tmp_path / "metrics.jsonl").read_bytes() == before


@pytest.mark.parametrize("resume_step", [None, 5])
def test_a_link_in_a_run_folder_is_refused(tmp_path: Path, resume_step: int | None) -> None:
    run, victim = tmp_path / "run", tmp_path / "victim"
    run.mkdir()
    victim.mkdir()
    (victim / "diary").write_text("mine")
    (run / "metrics.jsonl").symlink_to(victim / "diary")
    with pytest.raises(UserError, match=r"metrics\.jsonl is a link"):
        Tracker(run, resume_step=resume_step)
    assert [path.read_text() for path in victim.iterdir()] == ["mine"]


def test_a_planted_second_name_of_a_file_is_replaced_on_resume_and_the_file_stays(tmp_path: Path) -> None:
    (tmp_path / "diary").write_text("mine")
    (tmp_path / "run").mkdir()
    (tmp_path / "run/metrics.jsonl").hardlink_to(tmp_path / "diary")
    with Tracker(tmp_path / "run", resume_step=5) as tracker:
        tracker.log(6, {"loss": 1.0})
    assert (tmp_path / "diary").read_text() == "mine"


def test_a_folder_that_cannot_be_written_is_a_sentence(tmp_path: Path) -> None:
    (tmp_path / "file").write_text("")
    with pytest.raises(UserError, match="cannot write into the run folder"):
        Tracker(tmp_path / "file" / "run")


def test_without_tensorboard_nothing_of_it_is_imported(tmp_path: Path) -> None:
    script = (
        "import sys; from metarun.records.tracking import Tracker\n"
        "with Tracker(sys.argv[1]) as t: t.log(1, {'loss': 1.0}); t.result(1, {'b': 2.0}); t.sync()\n"
        "assert not {'tensorboard', 'matplotlib', 'tqdm'} & set(sys.modules)"
    )
    subprocess.run([sys.executable, "-c", script, str(tmp_path)], check=True)
    assert [path.name for path in tmp_path.iterdir()] == ["metrics.jsonl"]


def test_closing_twice_is_fine(tmp_path: Path) -> None:
    tracker = Tracker(tmp_path, notes=Notes())
    tracker.close()
    tracker.close()


class Notes:
    """A logger that notes its calls."""

    def __init__(self, draws_figures: bool = False, start_error: Exception | None = None) -> None:
        self.draws_figures, self.start_error = draws_figures, start_error
        self.calls: list[Any] = []
        self.run: RunStart | None = None

    def start(self, run: RunStart) -> None:
        self.run = run
        if self.start_error is not None:
            raise self.start_error

    def log(self, step: int, values: Mapping[str, float]) -> None:
        self.calls.append((step, dict(values)))

    def figure(self, step: int, tag: str, figure: Any) -> None:
        self.calls.append((step, tag, len(figure.axes)))

    def result(self, step: int, metrics: Mapping[str, float]) -> None:
        self.calls.append(("result", step, dict(metrics)))

    def sync(self) -> None:
        self.calls.append("sync")

    def close(self) -> None:
        self.calls.append("close")


def test_every_logger_gets_what_the_record_gets(tmp_path: Path) -> None:
    one, two = Notes(), Notes()
    with Tracker(tmp_path, one=one, two=two, three=None) as tracker:
        tracker.log(1, {"loss": torch.tensor(0.5)})
        tracker.result(1, {"best/accuracy": 1})
        tracker.sync()
    assert one.calls == two.calls == [(1, {"loss": 0.5}), ("result", 1, {"best/accuracy": 1.0}), "sync", "close"]


def test_a_figure_goes_to_the_loggers_that_show_figures_and_is_cleared_afterwards(tmp_path: Path) -> None:
    from matplotlib.figure import Figure

    blind, seeing, other = Notes(), Notes(draws_figures=True), Notes(draws_figures=True)
    figure = Figure()
    figure.subplots()
    with Tracker(tmp_path, blind=blind, seeing=seeing, other=other) as tracker:
        assert tracker.draws_figures
        tracker.figure(3, "val/episode", figure)
    assert (blind.calls, seeing.calls, other.calls) == (["close"], [(3, "val/episode", 1), "close"], [(3, "val/episode", 1), "close"])
    assert figure.axes == []
    with Tracker(tmp_path / "other", blind=blind) as tracker:
        assert not tracker.draws_figures


def test_a_logger_learns_the_config_what_was_typed_and_the_history_that_a_resumed_run_keeps(tmp_path: Path) -> None:
    (tmp_path / "metrics.jsonl").write_text('{"step": 1, "a": 2.0, "b": null, "time": 3}\n{"step": 2, "a": 5.0, "time": 4}\n')
    notes = Notes()
    with Tracker(tmp_path, resume_step=1, config={"x": 1}, typed={"x": 2}, notes=notes) as tracker:
        tracker.log(2, {"a": 6.0})
    assert notes.run is not None
    assert (notes.run.folder, notes.run.resume_step, notes.run.config, notes.run.typed) == (tmp_path, 1, {"x": 1}, {"x": 2})
    assert list(notes.run.history()) == [(1, {"a": 2.0}), (2, {"a": 6.0})]


def test_a_logger_that_cannot_start_ends_the_run_closes_the_others_and_leaves_no_record(tmp_path: Path) -> None:
    first = Notes()
    with pytest.raises(UserError, match=r"the logger broken cannot start: RuntimeError: no such server; .* another with logger="):
        Tracker(tmp_path, first=first, broken=Notes(start_error=RuntimeError("no such server.\nmore")))
    assert first.calls == ["close"]
    assert list(tmp_path.iterdir()) == []


def test_a_logger_that_cannot_start_at_a_resume_leaves_the_record(tmp_path: Path) -> None:
    log_steps(tmp_path, 1, 3)
    with pytest.raises(UserError, match="mend the account"):
        Tracker(tmp_path, resume_step=2, broken=Notes(start_error=UserError("mend the account")))
    assert [line["step"] for line in lines(tmp_path)] == [1, 2]


def test_what_is_no_logger_is_refused(tmp_path: Path) -> None:
    with pytest.raises(UserError, match=r"logger\.wandb=True is no logger"):
        Tracker(tmp_path, wandb=True)  # type: ignore[arg-type]


def test_the_names_of_earlier_versions_are_read_as_todays() -> None:
    entry = parse_entry(b'{"step": 5, "train/tasks": 80, "tasks_per_second": 3.5, "waiting": 0.1, "train/loss": 2}\n')
    speed = {"speed/tasks_averaged": 80, "speed/tasks_per_second": 3.5, "speed/share_of_time_waiting_for_episodes": 0.1}
    assert entry == {"step": 5, "train/loss": 2, **speed}


def test_the_tracker_of_a_process_that_computes_for_another_one_writes_nothing(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.chdir(tmp_path)
    with Silent() as tracker:
        tracker.log(1, {"train/loss": 1.0})
        tracker.result(1, {"best/accuracy": 1.0})
        tracker.sync()
        assert not tracker.draws_figures
    assert not list(tmp_path.iterdir())
