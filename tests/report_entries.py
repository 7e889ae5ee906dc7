"""Hand-made entries for the tests of the report's sections."""

from __future__ import annotations

from pathlib import Path
from typing import Any

from metarun.commands.reporting.entries import Entry


def entry(name: str = "maml", group: str = "", **keys: Any) -> Entry:
    """Return an entry of a classification with an evaluation. Keys that are fields of Entry replace it; others go into its report."""
    fields = {key: keys.pop(key) for key in list(keys) if key in Entry.__dataclass_fields__}
    report = {"metric": "accuracy", "mean": 0.9, "ci95": 0.01, "episodes": 4, "ways": 5, "split": "test", "seed": 0, "step": 60, **keys}
    training = {"metric": "accuracy", "steps": 60, "select": "mean accuracy over the validation tasks", "best": {"score": 0.8, "step": 40}}
    made: dict[str, Any] = {
        "folder": Path("runs") / name,
        "training": training,
        "report": report,
        "scores": [0.8, 1.0, 0.9, 0.9],
        "seconds": 90.0,
    }
    return Entry(name, group or name, **{**made, **fields})


def regression(name: str = "maml", **keys: Any) -> Entry:
    """Return an entry of a regression with an evaluation."""
    training = {"metric": "mse", "steps": 60, "select": "median mse over the validation tasks", "best": {"score": 0.5, "step": 40}}
    given = {"metric": "mse", "mean": 0.5, "ci95": 0.05, "median": 0.3, "baseline": 4.0, "ways": None, "training": training, **keys}
    return entry(name, **given)
