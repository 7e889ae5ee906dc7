"""Build the two parts of `task=features`: the image source, and the frozen network that embeds its images."""

from __future__ import annotations

import dataclasses
from collections.abc import Mapping
from typing import Any

from metarun.tasks.features import Embedder
from metarun.types import TaskSource
from metarun.wiring.around import divided
from metarun.wiring.backbones import build_from, check_embedding
from metarun.wiring.instantiate import TARGET, instantiate
from metarun.wiring.module_checks import check_vectors, sample_of

FEATURES = "metarun.tasks.features.features"


def has_embedder(task: Mapping[str, Any]) -> bool:
    """Return whether a task's node is one of `task=features`, with nodes for its images and its backbone."""
    nodes = [task.get(key) for key in ("images", "backbone")]
    return task.get(TARGET) == FEATURES and all(isinstance(node, Mapping) and TARGET in node for node in nodes)


def with_embedder(task: dict[str, Any], seed: int, device: str) -> dict[str, Any]:
    """Return a node of `task=features` with the image source and the embedder in place of their nodes.

    Writes into the node what comes from the data and from the weights: the drawn split, and the mean of each channel.
    seed: of weights that are not loaded. device: where the network computes.
    """
    images: TaskSource = instantiate(task["images"], name="task.images")
    fill_drawn(task["images"], images)
    return {**task, "images": images, "backbone": _embedder(task["backbone"], images, seed, device)}


def fill_drawn(node: dict[str, Any], source: TaskSource) -> None:
    """Write the split that a source drew into its node, so that a checkpoint restores the same split."""
    for key in ("classes", "tasks"):
        if key in node and node[key] is None:
            node[key] = getattr(source, key)


def _embedder(node: dict[str, Any], images: TaskSource, seed: int, device: str) -> Embedder:
    rest, around = divided(node, "task.backbone")
    around = dataclasses.replace(around, frozen=True)
    x, name = sample_of(images.episode("train", 0)).cpu(), rest[TARGET]
    made, other = (build_from(number, rest, around, x, key="task.backbone") for number in (seed, seed + 1))
    width = check_vectors(made.module, x, name)
    check_embedding(made, other, x, name)
    node |= {key: value for key, value in dataclasses.asdict(made.around).items() if key in node and key != "frozen"}
    facts = {key: value for key, value in dataclasses.asdict(made.around).items() if key in ("mean", "std", "without")}
    return Embedder(made.module.to(device), width, name, {**facts, "shape": list(x.shape[1:])}, device)
