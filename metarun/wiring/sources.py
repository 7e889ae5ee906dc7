"""The sources of a mixture, before and after they are built: which ones take part, the values that they share, and what they drew."""

from __future__ import annotations

import re
from collections.abc import Mapping
from typing import Any

from metarun.errors import UserError
from metarun.tasks.mixture import chosen
from metarun.types import TaskSource
from metarun.wiring.features import FEATURES, checked_splits, fill_drawn
from metarun.wiring.instantiate import TARGET, instantiate
from metarun.wiring.streams import STREAM

MIXTURE = "metarun.tasks.mixture.mixture"
SIZES = ("ways", "shots", "queries", "train_ways", "train_shots", "train_queries", "train_labels", "min_ways", "min_shots")
SHARED = (*SIZES, "image_size", "channels")
"""Keys of a mixture that set the key of the same name of every image source, before the source chooses what fits its images."""


def is_mixture(task: Any) -> bool:
    """Return whether a node is one of `task=mixture`, with a mapping of sources."""
    return isinstance(task, Mapping) and task.get(TARGET) == MIXTURE and isinstance(task.get("sources"), Mapping)


def with_sources(task: dict[str, Any]) -> dict[str, Any]:
    """Return the node of a mixture with the sources that its key `only` names, and with the shared values in its image sources.

    Other nodes stay as they are. Raises UserError where a name is no source.
    """
    if not is_mixture(task):
        return task
    taken = chosen(task["sources"], task.get("only"))
    values = {key: task[key] for key in SHARED if task.get(key) is not None}
    return {**task, "sources": {name: _with_values(name, node, values) for name, node in taken.items()}, "only": None}


def with_built(task: Mapping[str, Any], scored: str | None) -> dict[str, Any]:
    """Return the node of a task, ready for `instantiate`; that of a mixture has its sources built in place of their nodes.

    scored: the split that an evaluation scores; a source then checks this split only. None: all splits. A UserError of a source names the
    keys of this source.
    """
    node = {**task, **checked_splits(task, scored)}
    if is_mixture(task):
        node["sources"] = {name: _built(name, each, scored) if _is_node(each) else each for name, each in task["sources"].items()}
    return node


def _built(name: str, node: Mapping[str, Any], scored: str | None) -> TaskSource:
    try:
        source: TaskSource = instantiate(with_built(node, scored), name="task")
    except UserError as error:
        raise UserError(re.sub(r"\btask\.(?=\w)", f"task.sources.{name}.", str(error))) from error
    return source


def fill_sources(node: dict[str, Any], source: TaskSource) -> None:
    """Write the split that each source drew, and what else it chose, into its node, so that a checkpoint restores the same episodes."""
    fill_drawn(node, source)
    if not is_mixture(node):
        return
    built: Mapping[str, TaskSource] = getattr(source, "families", dict)()
    for name, each in node["sources"].items():
        if _is_node(each) and name in built:
            fill_sources(each, built[name])


def _with_values(name: str, node: Any, values: Mapping[str, Any]) -> Any:
    if not _is_node(node):
        return node
    if node[TARGET] == FEATURES:
        raise UserError(
            f"the source '{name}' of the mixture is task=features, which needs a network of its own; mix the images, and give a frozen "
            "network with backbone=…."
        )
    if node[TARGET] == STREAM:
        raise UserError(f"the source '{name}' of the mixture is task=stream, which is scored class by class; mix its images instead.")
    if is_mixture(node):
        return with_sources({**node, **{key: value for key, value in values.items() if node.get(key) is None}})
    return {**node, **{key: value for key, value in values.items() if key in node}} if "ways" in node else node


def _is_node(value: Any) -> bool:
    return isinstance(value, Mapping) and TARGET in value
