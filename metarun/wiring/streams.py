"""Build the image source of `task=stream`, and name the keys of the stream in its messages."""

from __future__ import annotations

import re
from collections.abc import Mapping
from typing import Any

from metarun.errors import UserError
from metarun.types import TaskSource
from metarun.wiring.features import checked_splits, fill_drawn
from metarun.wiring.instantiate import TARGET, instantiate

STREAM = "metarun.tasks.stream.Streams"
FOLLOWING = {"shots": "per_class", "queries": "held_out", "train_shots": "train_per_class", "train_queries": "held_out"}
"""Keys of the source that follow from keys of the stream."""


def has_source(task: Mapping[str, Any]) -> bool:
    """Return whether a task's node is one of `task=stream`, with a node for its images."""
    source = task.get("source")
    return task.get(TARGET) == STREAM and isinstance(source, Mapping) and TARGET in source


def with_source(task: dict[str, Any], scored: str | None = None) -> dict[str, Any]:
    """Return a node of `task=stream` with the image source in place of its node. Writes the split that the source drew into the node.

    scored: see `metarun.wiring.build.build`.
    """
    node = task["source"]
    try:
        source: TaskSource = instantiate(node, name="task.source", **checked_splits(node, scored))
    except UserError as error:
        raise UserError(renamed(str(error))) from error
    fill_drawn(node, source)
    return {**task, "source": source}


def renamed(message: str) -> str:
    """Return a message of an image source with the keys of the stream: "task.shots" becomes "task.per_class"."""
    message = re.sub(r"(\d+) shots? \+ (\d+) quer(?:y|ies)\b", r"\1 in the stream + \2 held out", message)
    return re.sub(r"\btask\.(?!source\.)(\w+)", lambda found: f"task.{FOLLOWING.get(found[1], f'source.{found[1]}')}", message)
