"""Run folders written by hand: a run with its log and its report, and an evaluation with its scores by episode."""

from __future__ import annotations

import json
from collections.abc import Mapping, Sequence
from pathlib import Path
from typing import Any

import yaml


def config_of(algo: str = "maml", task: str = "glyphs", seed: int = 0, **keys: Any) -> dict[str, Any]:
    """A resolved config. keys: others of the top, or of a group as `algo__inner_lr`."""
    config: dict[str, Any] = {"seed": seed, "steps": 60, "select": None, "algo": {"inner_lr": 0.1}, "backbone": {"filters": 8}}
    config["task"] = {"ways": 5, "shots": 1, "seed": seed, "train_ways": 5}
    for key, value in keys.items():
        group, nested, name = key.partition("__")
        if nested:
            config[group][name] = value
        else:
            config[key] = value
    return {**config, "options": {"algo": algo, "task": task, "backbone": "conv4"}}


def write_run(
    folder: Path,
    scores: Sequence[float | None] = (0.4, 0.5),
    *,
    metric: str = "accuracy",
    typed: Sequence[str] | None = None,
    finished: bool = True,
    **config: Any,
) -> Path:
    """Write a run with a validation each 30 steps; with a report of its end, where it is `finished`. config: as of `config_of`."""
    (folder / "checkpoints").mkdir(parents=True)
    (folder / "checkpoints" / "best.pt").write_bytes(b"")
    (folder / "config.json").write_text(json.dumps(config_of(**config)))
    lines = [
        {"step": 30 * place, f"val/{metric}": score, "val/ci95": 0.02, "val/selected": score, "time": 10.0 * place}
        for place, score in enumerate(scores, start=1)
    ]
    (folder / "metrics.jsonl").write_text("".join(f"{json.dumps(line)}\n" for line in lines))
    if typed is not None:
        write_typed(folder, typed)
    if finished:
        known = [(line["val/selected"], line["step"]) for line in lines if line["val/selected"] is not None]
        score, step = (max if metric == "accuracy" else min)(known)
        best = {"score": score, "mean": score, "step": step}
        (folder / "report.json").write_text(json.dumps({"split": "val", "metric": metric, "steps": 30 * len(lines), "best": best}))
    return folder


def write_typed(folder: Path, words: Sequence[str]) -> None:
    """Write what Hydra notes about a job."""
    (folder / ".hydra").mkdir(parents=True, exist_ok=True)
    (folder / ".hydra" / "overrides.yaml").write_text(yaml.safe_dump(list(words)))
    job = {
        "hydra": {"job": {"name": "metarun", "config_name": "train"}, "runtime": {"choices": {"algo": "maml", "hydra/launcher": "basic"}}}
    }
    (folder / ".hydra" / "hydra.yaml").write_text(yaml.safe_dump(job))


def write_evaluation(
    folder: Path,
    scores: Sequence[float],
    *,
    run: Path | None = None,
    metric: str = "accuracy",
    settings: Mapping[str, Any] | None = None,
    families: Sequence[str] = (),
    csv: bool = True,
    report: Mapping[str, Any] | None = None,
    **config: Any,
) -> Path:
    """Write an evaluation with the mean of the scores, of the checkpoint of a run at step 60, on the episodes of the test split."""
    folder.mkdir(parents=True, exist_ok=True)
    checkpoint = str((run or folder.parents[1]) / "checkpoints" / "best.pt")
    figures = {"metric": metric, "mean": sum(scores) / len(scores), "ci95": 0.01, "episodes": len(scores), "split": "test", "seed": 0}
    facts = {"settings": {"episodes": len(scores), **(settings or {})}, "step": 60, "checkpoint": checkpoint, "config": config_of(**config)}
    (folder / "report.json").write_text(json.dumps({**figures, **facts, **(report or {})}))
    if csv:
        head = f"episode,{metric}" + (",family" if families else "")
        rows = [f"{n},{score}" + (f",{families[n]}" if families else "") for n, score in enumerate(scores)]
        (folder / "episodes.csv").write_text("\n".join([head, *rows]) + "\n")
    return folder
