"""Trackio on this computer: the values in its database are those of metrics.jsonl, each once, after a kill and a resume."""

from __future__ import annotations

import json
from pathlib import Path

import logged_runs


def test_a_local_run_that_was_killed_and_resumed_has_the_values_of_the_record(tmp_path: Path) -> None:
    logged_runs.skip_without("trackio")
    for part in ("another", "first", "second"):
        assert logged_runs.run("trackio", part, tmp_path) == "", "the package prints nothing into the output of a training"
    found = json.loads(logged_runs.run("trackio", "stored", tmp_path))
    record = [(step, name, value) for step, row in logged_runs.recorded(tmp_path).items() for name, value in row.items()]
    expected = [entry for entry in record if entry[2] is not None] + [(60, "best/accuracy", 0.2)]
    assert sorted(map(tuple, found["values"])) == sorted(expected)
    assert found["name"] == "run"
    assert found["others"] == ["run"], "the resumed run replaces itself, and no run of the same name"
    assert found["config"]["algo.inner_lr"] == 0.4
