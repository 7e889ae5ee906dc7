"""Weights & Biases offline: the values in its file are those of metrics.jsonl, each once, after a kill and a resume."""

from __future__ import annotations

import json
import math
from pathlib import Path
from typing import Any

import logged_runs
import pytest

from metarun.records.loggers import wandb
from metarun.records.loggers.logger import RunStart
from metarun.records.loggers.wandb import WandB


def test_an_offline_run_that_was_killed_and_resumed_has_the_values_of_the_record(tmp_path: Path) -> None:
    logged_runs.skip_without("wandb")
    for part in ("first", "second"):
        logged_runs.run("wandb", part, tmp_path)
    found = json.loads(logged_runs.run("wandb", "stored", tmp_path))
    record = {(step, name): value for step, row in logged_runs.recorded(tmp_path).items() for name, value in row.items()}
    finite = [entry for entry in found["values"] if not math.isnan(entry[2])]
    known = {(step, name): value for step, name, value in finite}
    assert len(known) == len(finite), "a value stands there twice"
    assert known == {key: value for key, value in record.items() if value is not None}
    assert found["summary"]["best/accuracy"] == 0.2
    assert (found["name"], found["tags"]) == ("run", ["mine"])
    identity = json.loads((tmp_path / "run/loggers.json").read_text())["wandb"]
    assert found["ids"] == [f"run-{identity}.wandb"], "both parts have one id"


class Server:
    """Stands for the package, whose server has the steps below `step` of the run."""

    def __init__(self, step: int) -> None:
        self.step, self.url = step, "https://example.org/run"
        self.logged: list[int] = []
        self.given: dict[str, Any] = {}

    def init(self, **given: Any) -> Server:
        self.given = given
        return self

    def log(self, values: Any, step: int) -> None:
        self.logged.append(step)

    def Settings(self, **given: Any) -> None:
        return None


@pytest.mark.parametrize(("known", "sent"), [(51, [60]), (41, [50, 60]), (0, [10, 20, 30, 40, 50, 60])])
def test_online_a_resumed_run_sends_what_the_server_lacks(
    tmp_path: Path, monkeypatch: pytest.MonkeyPatch, known: int, sent: list[int]
) -> None:
    """The checkpoint is of step 30. A server without the run gets the history too."""
    server = Server(known)
    monkeypatch.setattr(wandb, "package", lambda name, extra: server)
    (tmp_path / "loggers.json").write_text('{"wandb": "abc"}')
    logger = WandB(mode="online", entity="team", group="g")
    logger.start(RunStart(tmp_path, 30, history=lambda: iter([(step, {}) for step in (10, 20, 30)])))
    for step in (40, 50, 60):
        logger.log(step, {})
    assert server.logged == sent
    assert {name: server.given[name] for name in ("id", "resume", "entity", "group", "mode")} == {
        "id": "abc",
        "resume": "allow",
        "entity": "team",
        "group": "g",
        "mode": "online",
    }
