"""A run that is killed, and the same run resumed, under a logger of an optional package; and what the package's own reader finds.

Each part runs in a process of its own: `python logged_runs.py LOGGER PART FOLDER`. Nothing of it uses a network.
"""

from __future__ import annotations

import importlib.util
import json
import os
import struct
import subprocess
import sys
from collections.abc import Iterator
from pathlib import Path
from typing import Any

import pytest

KILLED = 9
CONFIG = {"seed": 1, "algo": {"_target_": "metarun.algorithms.maml.Maml", "inner_lr": 0.4}}


def values(step: int) -> dict[str, float]:
    return {"train/loss": 1 / step, "val/accuracy": step / 300, "val/accuracy/letters": 0.1 + step / 1000}


def skip_without(package: str) -> None:
    """Skip a test where the package is missing; look for it without importing it."""
    if importlib.util.find_spec(package) is None:
        pytest.skip(f"the package {package} is missing: pip install 'metarun[{package}]'")


def run(logger: str, part: str, folder: Path) -> str:
    """Run a part in a process of its own and return its output."""
    private = {"HOME": str(folder), "WANDB_MODE": "offline", "WANDB_ERROR_REPORTING": "false", "TRACKIO_DIR": str(folder / "trackio")}
    silent = {"MLFLOW_DISABLE_TELEMETRY": "true", "DO_NOT_TRACK": "true", "HF_HUB_OFFLINE": "1", "HF_HUB_DISABLE_TELEMETRY": "1"}
    path = os.pathsep.join(part for part in sys.path if part)
    done = subprocess.run(
        [sys.executable, __file__, logger, part, str(folder)],
        env={**os.environ, **private, **silent, "PYTHONPATH": path},
        cwd=folder,
        capture_output=True,
        text=True,
        check=False,
    )
    assert done.returncode == (KILLED if part == "first" else 0), done.stdout + done.stderr
    return done.stdout


def recorded(folder: Path) -> dict[int, dict[str, float]]:
    """Return step -> the values of the run's metrics.jsonl."""
    found: dict[int, dict[str, float]] = {}
    for line in (folder / "run/metrics.jsonl").read_text().splitlines():
        row = json.loads(line)
        row.pop("time")
        found.setdefault(row.pop("step"), {}).update(row)
    return found


def made(logger: str, folder: Path) -> Any:
    from metarun.records.loggers.mlflow import MLflow
    from metarun.records.loggers.trackio import Trackio
    from metarun.records.loggers.wandb import WandB

    if logger == "mlflow":
        return MLflow(tracking_uri=os.environ.get("STORE", f"file:{folder}/mlruns"), tags={"who": "me"})
    return {"wandb": WandB(tags=["mine"]), "trackio": Trackio()}[logger]


def first(logger: str, folder: Path) -> None:
    """Log steps 10 to 50 and a picture, and end as a kill does."""
    from matplotlib.figure import Figure

    from metarun.records.tracking import Tracker

    tracker = Tracker(folder / "run", config=CONFIG, **{logger: made(logger, folder)})
    for step in range(10, 60, 10):
        tracker.log(step, values(step))
    figure = Figure(figsize=(2, 1))
    figure.subplots().plot([1, 2])
    tracker.figure(50, "val/episode_0", figure)
    tracker.sync()
    os._exit(KILLED)


def second(logger: str, folder: Path) -> None:
    """Go on from the checkpoint of step 30, and finish at step 60."""
    from metarun.records.tracking import Tracker

    with Tracker(folder / "run", config=CONFIG, resume_step=30, **{logger: made(logger, folder)}) as tracker:
        for step in range(40, 70, 10):
            tracker.log(step, values(step))
        tracker.log(60, {"val/loss": float("nan"), "train/lr": 0.5})
        tracker.result(60, {"best/accuracy": 0.2})


def another(logger: str, folder: Path) -> None:
    """Log one step of a run with the same name, whose folder is elsewhere."""
    from metarun.records.tracking import Tracker

    (folder / "elsewhere").mkdir()
    os.chdir(folder / "elsewhere")
    with Tracker(Path("run"), config=CONFIG, **{logger: made(logger, folder)}) as tracker:
        tracker.log(10, values(10))


def stored(logger: str, folder: Path) -> None:
    """Print what the package has of the run, as JSON: the values as a list of [step, name, value], and what else there is."""
    print(json.dumps({"wandb": of_wandb, "mlflow": of_mlflow, "trackio": of_trackio}[logger](folder)))


def of_wandb(folder: Path) -> dict[str, Any]:
    """Read the newest file of the run; `wandb sync` uploads its records."""
    newest = max(folder.glob("run/wandb/offline-run-*/run-*.wandb"), key=lambda path: path.stat().st_mtime)
    found: dict[str, Any] = {"values": [], "summary": {}, "ids": sorted({path.name for path in folder.glob("run/wandb/*/run-*.wandb")})}
    for record in wandb_records(newest.read_bytes()):
        kind = record.WhichOneof("record_type")
        if kind == "run":
            found |= {"name": record.run.display_name, "id": record.run.run_id, "tags": list(record.run.tags)}
        if kind == "history":
            row = {item.key or ".".join(item.nested_key): json.loads(item.value_json) for item in record.history.item}
            found["values"] += [[row["_step"], name, value] for name, value in row.items() if not name.startswith("_")]
        if kind == "summary":
            found["summary"] |= {item.key or ".".join(item.nested_key): json.loads(item.value_json) for item in record.summary.update}
    return found


def wandb_records(content: bytes) -> Iterator[Any]:
    """Yield the records of a file: after 7 bytes, a log in LevelDB's format, in blocks of 32 KiB, of protocol buffers.

    github.com/google/leveldb, doc/log_format.md: checksum (4 bytes), length (2), type (1: whole, 2: first, 3: middle, 4: last part).
    """
    from wandb.proto.wandb_internal_pb2 import Record

    block, at, parts = 32768, 7, b""
    while at + 7 <= len(content):
        if block - at % block < 7:
            at += block - at % block
            continue
        length, kind = struct.unpack_from("<HB", content, at + 4)
        parts += content[at + 7 : at + 7 + length]
        at += 7 + length
        if kind in (1, 4):
            record = Record()
            record.ParseFromString(parts)
            yield record
            parts = b""


def of_mlflow(folder: Path) -> dict[str, Any]:
    from mlflow.tracking import MlflowClient

    os.environ["MLFLOW_ALLOW_FILE_STORE"] = "true"
    client = MlflowClient(tracking_uri=os.environ.get("STORE", f"file:{folder}/mlruns"))
    experiment = client.get_experiment_by_name("metarun")
    assert experiment is not None
    runs = client.search_runs([experiment.experiment_id])
    assert len(runs) == 1
    (one,) = runs
    entries = [[each.step, name, each.value] for name in one.data.metrics for each in client.get_metric_history(one.info.run_id, name)]
    pictures = [entry.path for entry in client.list_artifacts(one.info.run_id, "val/episode_0")]
    facts = {"name": one.info.run_name, "status": one.info.status, "who": one.data.tags["who"], "params": one.data.params}
    return {"values": entries, "pictures": pictures, **facts}


def of_trackio(folder: Path) -> dict[str, Any]:
    import trackio
    from trackio.sqlite_storage import SQLiteStorage

    runs = {each.id: each for each in trackio.Api().runs("metarun")}
    one = runs.pop(json.loads((folder / "run/loggers.json").read_text())["trackio"])
    rows = SQLiteStorage.get_logs("metarun", one.name, run_id=one.id)
    numbers = [[row["step"], name, value] for row in rows for name, value in row.items() if name not in ("step", "timestamp")]
    return {"values": numbers, "name": one.name, "config": one.config, "others": [each.name for each in runs.values()]}


if __name__ == "__main__":
    logger, part, folder = sys.argv[1:]
    {"first": first, "another": another, "second": second, "stored": stored}[part](logger, Path(folder))
