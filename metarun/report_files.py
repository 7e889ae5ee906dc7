"""What a run and an evaluation leave to read: one line for a person, report.json, scores by episode, the classes of each split."""

from __future__ import annotations

import csv
import json
import math
from collections.abc import Mapping
from pathlib import Path
from typing import Any

from metarun.evaluation import Report


def sentence(report: Report, facts: Mapping[str, Any]) -> str:
    """Return the result as one line for a person."""
    if report.metric == "accuracy":
        score = f"accuracy {100 * report.mean:.2f} % ± {100 * report.ci95:.2f}"
        task = f"{facts['ways']}-way {facts['shots']}-shot, {facts['queries']} queries a class"
    else:
        score = f"{report.metric} {report.mean:.4f} ± {report.ci95:.4f} (median {report.median:.4f}, mean predictor {report.baseline:.4f})"
        task = f"{facts['shots']} shots, {facts['queries']} queries"
    norm = f"norm={facts['norm']}, " if facts["norm"] else ""
    diverged = f", {report.diverged} diverged" if report.diverged else ""
    return f"{score}  [95 % CI of {report.episodes} {facts['split']} episodes, {task}, {norm}{facts['inner_steps']} inner steps, seed {facts['seed']}{diverged}]"


def write_splits(config: Mapping[str, Any], folder: Path) -> None:
    """Write the classes or tasks of each split beside the run, where the source drew them from the user's own data."""
    for key in ("classes", "tasks"):
        if config["task"].get(key):
            write_json(folder / f"{key}.json", config["task"][key])


def write_json(path: Path, content: Any) -> None:
    """Write a JSON file; numbers that are not finite become null, as JSON has none."""

    def finite(value: Any) -> Any:
        if isinstance(value, Mapping):
            return {key: finite(item) for key, item in value.items()}
        if isinstance(value, (list, tuple)):
            return [finite(item) for item in value]
        return None if isinstance(value, float) and not math.isfinite(value) else value

    path.parent.mkdir(parents=True, exist_ok=True)
    path.write_text(json.dumps(finite(content), indent=2) + "\n", encoding="utf-8")


def write_scores(path: Path, report: Report) -> None:
    """Write the score of each episode as CSV."""
    with path.open("w", newline="", encoding="utf-8") as file:
        writer = csv.writer(file)
        writer.writerow(["episode", report.metric])
        writer.writerows(enumerate(report.scores))
