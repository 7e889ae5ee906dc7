"""The configs of the check: one small config for each algorithm and kind of task, and the rows that are timed."""

from __future__ import annotations

from pathlib import Path
from typing import Any

from benchmarks.variants import composed

from metarun.types import traits_of
from metarun.wiring.instantiate import locate

__all__ = ["ROWS", "TASKS", "algorithms", "composed", "does", "row", "short"]

CONFIGS = Path(__file__).parents[2] / "configs"
GLYPHS = ("task=glyphs", "task.queries=3", "task.train_queries=3", "backbone.filters=8")
SINUSOID = ("task=sinusoid", "backbone=mlp")
TASKS = {"classification": GLYPHS, "regression": SINUSOID, "ratings": ("task=ratings", "backbone=embeddings")}
"""The overrides of each task of the check."""
FOR_RATINGS = ("melu",)
MOST = {"inner_steps": 2, "layers": 2, "cg_steps": 2, "samples": 2}
"""The largest number for keys of an algorithm that end so: a check of each operation needs no more."""
SMALL = {
    "maml": ("backbone.filters=4", "tasks_per_step=4"),
    "protonet": ("backbone.filters=4", "task.train_ways=10"),
    "reptile": ("backbone.filters=4", "tasks_per_step=2"),
    "sinusoid": (),
}
"""Further overrides of the rows on a CPU."""

ROWS = {
    "maml": ("algo=maml", "task=glyphs", "task.train_queries=15", "tasks_per_step=32", "algo.inner_steps=1"),
    "protonet": ("algo=protonet", "task=glyphs", "task.train_ways=60", "task.train_queries=5", "tasks_per_step=1"),
    "reptile": ("algo=reptile", "task=glyphs"),
    "sinusoid": ("experiment=sinusoid_maml",),
}
"""The overrides of the steps that are timed, on conv4 with 64 filters and on the built-in glyphs, which need no data."""


def row(name: str, *, small: bool) -> tuple[str, ...]:
    """Return the overrides of a row."""
    return (*ROWS[name], *(SMALL[name] if small else ()))


def algorithms() -> list[str]:
    """Return the options of the group `algo`."""
    return sorted(file.stem for file in (CONFIGS / "algo").glob("*.yaml"))


def does(option: str, kind: str) -> bool:
    """Return whether to compare an algorithm on a task: where it does this kind, and on ratings where it is made for them."""
    config = composed((f"algo={option}", *TASKS[kind]))
    kinds = traits_of(locate(config["algo"]["_target_"])).objectives
    return option in FOR_RATINGS if kind == "ratings" else kind in kinds


def short(option: str, kind: str, device: str) -> dict[str, Any]:
    """Return a config of an algorithm with few inner steps, few samples and few layers."""
    config = composed((f"algo={option}", *TASKS[kind], "tasks_per_step=4", "eval_episodes=4", f"device={device}", "device.compile=false"))
    for key, value in config["algo"].items():
        most = next((most for end, most in MOST.items() if key.endswith(end)), None)
        if most is not None and isinstance(value, int):
            config["algo"][key] = min(value, most)
    config["device"]["kernels"] = "torch"
    return config
