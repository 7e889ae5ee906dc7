"""Every algorithm of `configs/algo` trains on ratings, or refuses them with one sentence before any work."""

from __future__ import annotations

import math
from pathlib import Path

import pytest
from small import composed

from metarun.commands.train import train
from metarun.errors import UserError
from metarun.types import traits_of
from metarun.wiring.instantiate import locate

ALGORITHMS = [file.stem for file in sorted((Path(__file__).parents[2] / "configs/algo").glob("*.yaml")) if not file.stem.endswith("_")]
SIZES = ("task.made_users=30", "task.made_items=40", "task.queries=3", "backbone.dimension=4", "backbone.widths=[8]")
SHORT = ("steps=1", "tasks_per_step=2", "eval_every=0", "save_every=0", "eval_episodes=2", "logger=jsonl", "device=cpu", "device.threads=1")


@pytest.mark.parametrize("name", ALGORITHMS)
def test_every_algorithm_trains_on_ratings_or_refuses_them(name: str, tmp_path: Path):
    config = composed(f"algo={name}", "task=ratings", "backbone=embeddings", *SIZES, *SHORT)
    config["algo"] |= {key: 2 for key in ("max_inner_steps", "test_inner_steps") if key in config["algo"]}
    if "regression" in traits_of(locate(config["algo"]["_target_"])).objectives:
        assert math.isfinite(train(config, tmp_path / "run"))
    else:
        with pytest.raises(UserError, match="does classification only, and this task is regression"):
            train(config, tmp_path / "run")
