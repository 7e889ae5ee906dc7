"""Configs of short runs on small images and on sinusoids, and their evaluation."""

from __future__ import annotations

import json
from pathlib import Path
from typing import Any

from small import composed

from metarun.commands.evaluate import evaluate as run_evaluation
from metarun.commands.predict import predict as run_prediction

IMAGES = {
    "_target_": "small.split_images",
    "ways": 3,
    "shots": 2,
    "min_shots": None,
    "queries": 3,
    "seed": 0,
    "eval_seed": 0,
    "classes": None,
}
CONV = {"_target_": "small.SmallConv", "filters": 2, "norm": "batch"}
SHORT = ("steps=4", "tasks_per_step=2", "eval_every=2", "eval_episodes=3", "logger=jsonl", "device=cpu", "device.threads=1")
SHORTER = {"inner_steps", "test_inner_steps", "cg_steps", "samples", "train_samples", "passes"}
SINUSOID = ("task=sinusoid", "backbone=mlp", "backbone.widths=[4]", "task.queries=5")


def image_config(*overrides: str) -> dict[str, Any]:
    """Return the config of a training on small images."""
    return {**composed(*SHORT, *overrides), "task": dict(IMAGES), "backbone": dict(CONV)}


def shortened(config: dict[str, Any]) -> dict[str, Any]:
    """Return a config whose algorithm takes one inner step where it takes some, and two samples or passes."""
    shorter = {key: 1 if "steps" in key else 2 for key in SHORTER & config["algo"].keys() if config["algo"][key] is not None}
    return {**config, "algo": {**config["algo"], **shorter}}


def evaluate(run: Path | list[Path], folder: Path, **options: Any) -> dict[str, Any]:
    """Evaluate a run, or a list of runs, on four test episodes unless told otherwise."""
    named = [str(each) for each in run] if isinstance(run, list) else str(run)
    request = {"checkpoint": named, "split": "test", "episodes": 4, "seed": 0, "inner_steps": None, "norm": None, "save": None}
    groups: dict[str, Any] = {"algo": {}, "task": {}, "backbone": {}, "device": {}, "trust": ["small"], "options": {}}
    return run_evaluation({**request, **groups, **options}, folder)


def predict(run: Path | str, support: Path, query: Path | None, folder: Path, **options: Any) -> dict[str, Any]:
    """Run `metarun predict` into a folder and return its report."""
    folder.mkdir(parents=True, exist_ok=True)
    named = {"checkpoint": str(run), "support": str(support), "query": None if query is None else str(query)}
    others = {"out": None, "abstain": None, "top": None, "user": None}
    run_prediction({**named, **others, "trust": ["small"], "device": {"name": "cpu"}, **options}, folder)
    report: dict[str, Any] = json.loads((folder / "report.json").read_text(encoding="utf-8"))
    return report
