"""Build the image source of `task=stream`, and name the keys of the stream in its messages."""

from __future__ import annotations

import re
from collections.abc import Mapping
from typing import Any

from metarun.errors import UserError
from metarun.tasks.stream import Streams
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
        source: TaskSource = instantiate({**node, **_in_training(task)}, name="task.source", **checked_splits(node, scored))
    except UserError as error:
        raise UserError(renamed(str(error), whole=_is_global(task))) from error
    fill_drawn(node, source)
    return {**task, "source": source}


def _is_global(task: Mapping[str, Any]) -> bool:
    """Return whether a training trajectory has no held-out examples."""
    return task.get("train_labels") == "global"


def _in_training(task: Mapping[str, Any]) -> dict[str, int]:
    """Return the sizes with which a source that may leave small classes out checks its training classes; {} for another source.

    Together they are the number of images that a training trajectory takes of a class. Without held-out examples, the source counts one of
    these images as a query, since it has no episodes without queries; `renamed` names the whole number.
    """
    if "skip_small" not in task["source"]:
        return {}
    images = task.get("train_per_class") or task.get("per_class", Streams.per_class)
    if _is_global(task):
        return {"train_shots": max(images - 1, 1), "train_queries": 1}
    return {"train_shots": images, "train_queries": task.get("held_out", Streams.held_out)}


def renamed(message: str, *, whole: bool = False) -> str:
    """Return a message of an image source with the keys of the stream: "task.shots" becomes "task.per_class".

    whole: whether a training class needs a number of images for the stream alone.
    """
    if whole:
        needs = r"\d+ shots? \+ 1 query need (\d+)\. Lower task\.train_queries or task\.train_shots"
        message = re.sub(needs, r"\1 in the stream need \1. Lower task.train_shots", message)
    message = re.sub(r"(\d+) shots? \+ (\d+) quer(?:y|ies)\b", r"\1 in the stream + \2 held out", message)
    return re.sub(r"\btask\.(?!source\.)(\w+)", lambda found: f"task.{FOLLOWING.get(found[1], f'source.{found[1]}')}", message)
