"""What is logged, and what a resumed run takes back."""

from __future__ import annotations

import json
import subprocess
import sys
import threading
import time
from concurrent.futures import ThreadPoolExecutor
from pathlib import Path
from typing import Any

import pytest
import torch
from tensorboard.summary.writer.record_writer import RecordWriter

from metarun.errors import UserError
from metarun.records.tracking import TIME_KEYS, Tracker, flatten


def lines(folder: Path) -> list[dict[str, Any]]:
    return [json.loads(line) for line in (folder / "metrics.jsonl").read_text().splitlines()]


def log_steps(folder: Path, first: int, last: int, resume_step: int | None = None, tensorboard: bool = False) -> None:
    with Tracker(folder, tensorboard=tensorboard, resume_step=resume_step) as tracker:
        for step in range(first, last + 1):
            tracker.log(step, {"train/loss": 1 / step, "tasks_per_second": 100.0 * step})


def without_time(folder: Path) -> list[dict[str, Any]]:
    return [{key: value for key, value in line.items() if key not in TIME_KEYS} for line in lines(folder)]


def events(folder: Path) -> Any:
    from tensorboard.backend.event_processing.event_accumulator import EventAccumulator

    accumulator = EventAccumulator(str(folder / "tensorboard"), size_guidance={"scalars": 0})
    accumulator.Reload()
    return accumulator


def test_each_log_is_one_json_object_with_step_first_and_time_last(tmp_path: Path) -> None:
    with Tracker(tmp_path, tensorboard=False) as tracker:
        tracker.log(5, {"train/loss": torch.tensor(0.5), "val/accuracy": 1})
    (line,) = lines(tmp_path)
    assert list(line) == ["step", "train/loss", "val/accuracy", "time"]
    assert (line["step"], line["train/loss"], line["val/accuracy"]) == (5, 0.5, 1.0)


def test_a_line_is_on_disk_at_once(tmp_path: Path) -> None:
    tracker = Tracker(tmp_path, tensorboard=False)
    tracker.log(1, {"loss": 0.1})
    assert len(lines(tmp_path)) == 1
    tracker.close()


def test_another_thread_may_sync_while_this_one_logs(tmp_path: Path) -> None:
    with Tracker(tmp_path) as tracker, ThreadPoolExecutor(1) as pool:
        for step in range(50):
            tracker.log(step, {"loss": 0.1, "accuracy": 0.2})
            synced = pool.submit(tracker.sync)
        synced.result()
        assert [line["step"] for line in lines(tmp_path)] == list(range(50))
        assert [event.step for event in events(tmp_path).Scalars("loss")] == list(range(50))


def test_a_log_does_not_wait_for_tensorboards_file(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    """The file is not written at all before the last of many values is logged."""
    logged, waited = threading.Event(), []
    real = RecordWriter.write

    def write(self: RecordWriter, data: bytes) -> None:
        waited.append(logged.wait(timeout=10))
        logged.set()
        real(self, data)

    with Tracker(tmp_path) as tracker:
        monkeypatch.setattr(RecordWriter, "write", write)
        tracker.log(1, {f"val_by_step/{number}": 0.5 for number in range(100)})
        logged.set()
    assert all(waited)
    assert len(events(tmp_path).Tags()["scalars"]) == 100


def test_floats_are_written_so_that_they_come_back_exactly(tmp_path: Path) -> None:
    value = float(torch.tensor(0.1, dtype=torch.float32)) / 3
    with Tracker(tmp_path, tensorboard=False) as tracker:
        tracker.log(1, {"loss": value})
    assert lines(tmp_path)[0]["loss"] == value


def test_a_value_that_is_not_finite_is_null_so_that_every_json_reader_can_read_the_line(tmp_path: Path) -> None:
    with Tracker(tmp_path, tensorboard=False) as tracker:
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
        Tracker(tmp_path, tensorboard=False)
    assert (tmp_path / "metrics.jsonl").read_bytes() == before


@pytest.mark.parametrize("resume_step", [None, 5])
@pytest.mark.parametrize("name", ["metrics.jsonl", "tensorboard"])
def test_a_link_in_a_run_folder_is_refused(tmp_path: Path, name: str, resume_step: int | None) -> None:
    run, victim = tmp_path / "run", tmp_path / "victim"
    run.mkdir()
    victim.mkdir()
    (victim / "diary").write_text("mine")
    (run / name).symlink_to(victim / "diary" if name == "metrics.jsonl" else victim)
    with pytest.raises(UserError, match=f"{name} is a link"):
        Tracker(run, resume_step=resume_step)
    assert [path.read_text() for path in victim.iterdir()] == ["mine"]


def test_a_planted_second_name_of_a_file_is_replaced_on_resume_and_the_file_stays(tmp_path: Path) -> None:
    (tmp_path / "diary").write_text("mine")
    (tmp_path / "run").mkdir()
    (tmp_path / "run/metrics.jsonl").hardlink_to(tmp_path / "diary")
    with Tracker(tmp_path / "run", tensorboard=False, resume_step=5) as tracker:
        tracker.log(6, {"loss": 1.0})
    assert (tmp_path / "diary").read_text() == "mine"


def test_a_folder_that_cannot_be_written_is_a_sentence(tmp_path: Path) -> None:
    (tmp_path / "file").write_text("")
    with pytest.raises(UserError, match="cannot write into the run folder"):
        Tracker(tmp_path / "file" / "run", tensorboard=False)


def test_tensorboard_shows_each_value_once_after_a_resume(tmp_path: Path) -> None:
    log_steps(tmp_path, 1, 5, tensorboard=True)
    second = int(time.time())
    while int(time.time()) == second:  # TensorBoard orders files by the second in their names, and then by a number as text
        time.sleep(0.01)
    log_steps(tmp_path, 4, 6, resume_step=3, tensorboard=True)
    scalars = events(tmp_path).Scalars("train/loss")
    assert [event.step for event in scalars] == [1, 2, 3, 4, 5, 6]
    assert [event.value for event in scalars] == pytest.approx([1 / step for step in range(1, 7)])


def test_a_figure_becomes_an_image_in_tensorboard(tmp_path: Path) -> None:
    from matplotlib.figure import Figure

    with Tracker(tmp_path) as tracker:
        assert tracker.draws_figures
        figure = Figure()
        figure.subplots().plot([1, 2])
        tracker.figure(7, "val/episode", figure)
    (image,) = events(tmp_path).Images("val/episode")
    assert image.step == 7
    assert image.encoded_image_string.startswith(b"\x89PNG")


def test_hparams_stand_in_the_run_folder_itself(tmp_path: Path) -> None:
    """The HPARAMS tab reads three summaries with the plugin's name; a subfolder would show as a second run."""
    from tensorboard.plugins.hparams.plugin_data_pb2 import HParamsPluginData

    with Tracker(tmp_path) as tracker:
        config = {"seed": 3, "algo": {"_target_": "metarun.algorithms.maml.Maml", "inner_lr": 0.4, "adapts": ["*"], "limit": None}}
        tracker.hparams(config, {"best/accuracy": 0.93}, step=10)
    assert [path.name for path in (tmp_path / "tensorboard").iterdir() if path.is_dir()] == []
    read = events(tmp_path)
    assert read.Scalars("best/accuracy")[0].value == pytest.approx(0.93)
    contents = read.summary_metadata["_hparams_/session_start_info"].plugin_data.content
    values = HParamsPluginData.FromString(contents).session_start_info.hparams
    assert values["algo"].string_value == "Maml"
    assert values["algo.inner_lr"].number_value == pytest.approx(0.4)
    assert values["algo.limit"].string_value == "null"
    assert values["seed"].number_value == 3


def test_without_tensorboard_nothing_of_it_is_imported(tmp_path: Path) -> None:
    script = (
        "import sys; from metarun.records.tracking import Tracker\n"
        "with Tracker(sys.argv[1], tensorboard=False) as t: t.log(1, {'loss': 1.0}); t.hparams({'a': 1}, {'b': 2.0}); t.sync()\n"
        "assert not {'tensorboard', 'matplotlib', 'tqdm'} & set(sys.modules)"
    )
    subprocess.run([sys.executable, "-c", script, str(tmp_path)], check=True)
    assert [path.name for path in tmp_path.iterdir()] == ["metrics.jsonl"]


def test_closing_twice_is_fine(tmp_path: Path) -> None:
    tracker = Tracker(tmp_path)
    tracker.close()
    tracker.close()


def test_a_config_flattens_to_dotted_scalars() -> None:
    config = {"seed": 0, "task": {"_target_": "pack.Glyphs", "ways": 5, "deep": {"x": True}}, "trust": [], "resume": None}
    assert dict(flatten(config)) == {"seed": 0, "task": "Glyphs", "task.ways": 5, "task.deep.x": True, "trust": "[]", "resume": "null"}
