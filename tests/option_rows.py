"""The options of the groups of `configs/`, several of them in one config, so that few configs are composed for all of them."""

from __future__ import annotations

from functools import cache
from itertools import zip_longest
from pathlib import Path
from typing import Any

from small import composed

CONFIGS = Path(__file__).parents[1] / "configs"
GROUPS = sorted(folder.name for folder in CONFIGS.iterdir() if folder.is_dir() and not folder.name.startswith("_"))
NEEDED = {
    "table": ("task.path=x.csv", "task.task_column=t", "task.target=y"),
    "timm": ("backbone.name=resnet18",),
    "features": ("task.backbone.name=resnet18",),
}
"""The words that an option needs beside its name."""


def options(group: str) -> list[str]:
    """Return the names of a group's options."""
    return sorted(file.stem for file in (CONFIGS / group).glob("*.yaml") if not file.stem.endswith("_"))


@cache
def rows() -> list[dict[str, str]]:
    """Return rows of group -> option, which hold each option once. Without `algo` and `experiment`, whose options bring keys of others."""
    groups = [group for group in GROUPS if group not in ("algo", "experiment")]
    listed = zip_longest(*(options(group) for group in groups))
    return [{group: option for group, option in zip(groups, row, strict=True) if option} for row in listed]


def config_of(row: dict[str, str]) -> dict[str, Any]:
    """Return a config with all options of a row."""
    chosen = (f"{group}={option}" for group, option in row.items())
    return composed(*chosen, *(word for option in row.values() for word in NEEDED.get(option, ())))
