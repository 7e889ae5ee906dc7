"""MLflow with a folder of files and with a database: the values are those of metrics.jsonl, each once, after a kill and a resume."""

from __future__ import annotations

import importlib.util
import json
from pathlib import Path

import logged_runs
import pytest

from metarun.records.loggers.mlflow import _name


@pytest.mark.parametrize("store", ["folder", "database"])
def test_a_run_that_was_killed_and_resumed_has_the_values_of_the_record(
    store: str, tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    logged_runs.skip_without("mlflow")
    if store == "database":
        if importlib.util.find_spec("sqlalchemy") is None or importlib.util.find_spec("alembic") is None:
            pytest.skip("MLflow needs the packages sqlalchemy and alembic for a database, and mlflow-skinny does not bring them")
        monkeypatch.setenv("STORE", f"sqlite:///{tmp_path}/mlflow.db")
    for part in ("first", "second"):
        logged_runs.run("mlflow", part, tmp_path)
    found = json.loads(logged_runs.run("mlflow", "stored", tmp_path))
    record = [(step, _name(name), value) for step, row in logged_runs.recorded(tmp_path).items() for name, value in row.items()]
    expected = [entry for entry in record if entry[2] is not None] + [(60, "best/accuracy", 0.2)]
    assert sorted(map(tuple, found["values"])) == sorted(expected)
    assert (found["name"], found["status"], found["who"]) == ("run", "FINISHED", "me")
    assert (found["params"]["algo"], found["params"]["algo.inner_lr"], found["params"]["seed"]) == ("Maml", "0.4", "1")
    assert found["pictures"] == ["val/episode_0/step_50.png"]


@pytest.mark.parametrize(
    ("name", "allowed"),
    [
        ("train/loss", "train/loss"),
        ("val/accuracy/omniglot", "val/accuracy.omniglot"),
        ("val/ndcg@5", "val/ndcg_5"),
        ("val/rmse/Größe in m", "val/rmse.Gr__e_in_m"),
    ],
)
def test_a_name_has_the_letters_that_mlflow_allows(name: str, allowed: str) -> None:
    assert _name(name) == allowed
