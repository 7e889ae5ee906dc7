"""What TensorBoard reads out of a run folder, by its own reader."""

from __future__ import annotations

import threading
import time
from concurrent.futures import ThreadPoolExecutor
from pathlib import Path
from typing import Any

import pytest
from tensorboard.backend.event_processing.event_accumulator import EventAccumulator
from tensorboard.plugins.hparams.plugin_data_pb2 import HParamsPluginData
from tensorboard.summary.writer.record_writer import RecordWriter

from metarun.errors import UserError
from metarun.records.loggers.tensorboard import TensorBoard
from metarun.records.tracking import Tracker


def events(folder: Path) -> Any:
    accumulator = EventAccumulator(str(folder), size_guidance={"scalars": 0})
    accumulator.Reload()
    return accumulator


def log_steps(folder: Path, first: int, last: int, resume_step: int | None = None, **loggers: Any) -> None:
    with Tracker(folder, resume_step=resume_step, **(loggers or {"tensorboard": TensorBoard()})) as tracker:
        for step in range(first, last + 1):
            tracker.log(step, {"train/loss": 1 / step})


def wait_for_the_next_second() -> None:
    """TensorBoard orders files by the second in their names, and then by a number as text."""
    second = int(time.time())
    while int(time.time()) == second:
        time.sleep(0.01)


def test_the_events_lie_in_the_run_folder_so_that_the_run_has_its_name(tmp_path: Path) -> None:
    log_steps(tmp_path, 1, 2)
    assert [path.name.split(".")[0] for path in sorted(tmp_path.iterdir())] == ["events", "metrics"]
    assert [event.value for event in events(tmp_path).Scalars("train/loss")] == [1.0, 0.5]


def test_another_thread_may_sync_while_this_one_logs(tmp_path: Path) -> None:
    with Tracker(tmp_path, tensorboard=TensorBoard()) as tracker, ThreadPoolExecutor(1) as pool:
        for step in range(50):
            tracker.log(step, {"loss": 0.1, "accuracy": 0.2})
            synced = pool.submit(tracker.sync)
        synced.result()
        assert [event.step for event in events(tmp_path).Scalars("loss")] == list(range(50))


def test_a_log_does_not_wait_for_tensorboards_file(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    """The file is not written at all before the last of many values is logged."""
    logged, waited = threading.Event(), []
    real = RecordWriter.write

    def write(self: RecordWriter, data: bytes) -> None:
        waited.append(logged.wait(timeout=10))
        logged.set()
        real(self, data)

    with Tracker(tmp_path, tensorboard=TensorBoard()) as tracker:
        monkeypatch.setattr(RecordWriter, "write", write)
        tracker.log(1, {f"val_by_step/{number}": 0.5 for number in range(100)})
        logged.set()
    assert all(waited)
    assert len(events(tmp_path).Tags()["scalars"]) == 100


def test_tensorboard_shows_each_value_once_after_a_resume(tmp_path: Path) -> None:
    log_steps(tmp_path, 1, 5)
    wait_for_the_next_second()
    log_steps(tmp_path, 4, 6, resume_step=3)
    scalars = events(tmp_path).Scalars("train/loss")
    assert [event.step for event in scalars] == [1, 2, 3, 4, 5, 6]
    assert [event.value for event in scalars] == pytest.approx([1 / step for step in range(1, 7)])


def test_a_run_of_an_earlier_version_goes_on_in_its_folder_tensorboard(tmp_path: Path) -> None:
    log_steps(tmp_path / "new", 1, 1)
    (tmp_path / "old/tensorboard").mkdir(parents=True)
    for path in (tmp_path / "new").glob("events*"):
        path.rename(tmp_path / "old/tensorboard" / path.name)
    (tmp_path / "new/metrics.jsonl").rename(tmp_path / "old/metrics.jsonl")
    wait_for_the_next_second()
    log_steps(tmp_path / "old", 2, 2, resume_step=1)
    assert not list((tmp_path / "old").glob("events*"))
    assert [event.step for event in events(tmp_path / "old/tensorboard").Scalars("train/loss")] == [1, 2]


def test_tensorboard_chosen_at_a_resume_gets_the_values_from_before(tmp_path: Path) -> None:
    log_steps(tmp_path, 1, 3, nothing=None)
    log_steps(tmp_path, 3, 4, resume_step=2)
    assert [event.step for event in events(tmp_path).Scalars("train/loss")] == [1, 2, 3, 4]


def test_a_figure_becomes_an_image_in_tensorboard(tmp_path: Path) -> None:
    from matplotlib.figure import Figure

    with Tracker(tmp_path, tensorboard=TensorBoard()) as tracker:
        assert tracker.draws_figures
        figure = Figure()
        figure.subplots().plot([1, 2])
        tracker.figure(7, "val/episode", figure)
    (image,) = events(tmp_path).Images("val/episode")
    assert image.step == 7
    assert image.encoded_image_string.startswith(b"\x89PNG")


def test_the_interval_of_a_validation_is_a_band_around_the_score_and_no_curve_of_its_own(tmp_path: Path) -> None:
    with Tracker(tmp_path, tensorboard=TensorBoard()) as tracker:
        for step in (1, 2):
            tracker.log(step, {"val/accuracy": 0.5, "val/ci95": 0.1, "val/loss": 2.0, "val/ci95/letters": 0.3})
    read = events(tmp_path)
    assert set(read.Tags()["scalars"]) == {"val/accuracy", "val/loss", "val_interval/low", "val_interval/high"}
    assert [read.Scalars(f"val_interval/{end}")[1].value for end in ("low", "high")] == pytest.approx([0.4, 0.6])
    chart = read.Tensors("custom_scalars__config__")
    assert len(chart) == 1
    layout = chart[0].tensor_proto.string_val[0]
    assert all(tag in layout for tag in (b"val/accuracy", b"val_interval/low", b"val_interval/high"))


def hparams(folder: Path, part: str) -> Any:
    content = events(folder).summary_metadata[f"_hparams_/{part}"].plugin_data.content
    return HParamsPluginData.FromString(content)


def test_hparams_hold_what_was_typed_and_stand_in_the_run_folder_itself(tmp_path: Path) -> None:
    """A subfolder would show as a second run; without the experiment's summary, TensorBoard joins the columns of all runs."""
    typed = {"algo": "maml", "algo.inner_lr": 0.4, "algo.adapts": ["*"], "task.limit": None, "seed": 3, "flag": True}
    config = {"steps": 100, "seed": 3}
    with Tracker(tmp_path, config=config, typed=typed, tensorboard=TensorBoard()) as tracker:
        tracker.result(10, {"best/accuracy": 0.93})
    assert [path.name for path in tmp_path.iterdir() if path.is_dir()] == []
    assert events(tmp_path).Scalars("best/accuracy")[0].value == pytest.approx(0.93)
    values = hparams(tmp_path, "session_start_info").session_start_info.hparams
    assert set(values) == set(typed)
    assert (values["algo"].string_value, values["algo.inner_lr"].number_value) == ("maml", pytest.approx(0.4))
    assert (values["algo.adapts"].string_value, values["task.limit"].string_value) == ("['*']", "null")
    assert (values["seed"].string_value, values["flag"].string_value) == ("3", "true")
    assert hparams(tmp_path, "session_end_info").session_end_info.status == 1  # success
    assert "_hparams_/experiment" not in events(tmp_path).summary_metadata


def test_a_link_in_the_place_of_the_folder_of_an_earlier_version_is_refused(tmp_path: Path) -> None:
    (tmp_path / "run").mkdir()
    (tmp_path / "victim").mkdir()
    (tmp_path / "run/tensorboard").symlink_to(tmp_path / "victim")
    with pytest.raises(UserError, match="tensorboard is a link"):
        Tracker(tmp_path / "run", tensorboard=TensorBoard())
    assert list((tmp_path / "victim").iterdir()) == []
