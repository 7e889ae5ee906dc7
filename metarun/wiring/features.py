"""Build the two parts of `task=features`: the image source, and the frozen network that embeds its images."""

from __future__ import annotations

import dataclasses
from collections.abc import Mapping
from typing import Any

from torch import Tensor

from metarun import draws
from metarun.errors import UserError
from metarun.tasks.features import Embedder
from metarun.tasks.preparing.feature_preparation import FeaturePreparation
from metarun.tasks.preparing.preparation import Preparation
from metarun.types import TaskSource
from metarun.wiring.around import divided
from metarun.wiring.backbones import build_from, check_embedding
from metarun.wiring.fitting import annotations_of
from metarun.wiring.instantiate import TARGET, instantiate, locate
from metarun.wiring.module_checks import check_vectors, sample_of

FEATURES = "metarun.tasks.features.features"


def has_embedder(task: Mapping[str, Any]) -> bool:
    """Return whether a task's node is one of `task=features`, with nodes for its images and its backbone."""
    nodes = [task.get(key) for key in ("images", "backbone")]
    return task.get(TARGET) == FEATURES and all(isinstance(node, Mapping) and TARGET in node for node in nodes)


def with_embedder(task: dict[str, Any], seed: int, device: str, scored: str | None = None) -> dict[str, Any]:
    """Return a node of `task=features` with the image source and the embedder in place of their nodes.

    Writes values from the data and from the weights into the node: the drawn split, and the mean of each channel.
    seed: of weights that are not loaded. device: where the network computes. scored: see `metarun.wiring.build.build`.
    """
    images: TaskSource = instantiate(task["images"], name="task.images", **checked_splits(task["images"], scored))
    fill_drawn(task["images"], images)
    x = sample_of(images.episode(scored or "train", 0)).cpu()
    return {**task, "images": images, "backbone": _embedder(task["backbone"], x, seed, device)}


def with_network(preparation: Preparation, config: Mapping[str, Any], device: str) -> Preparation:
    """Return the preparation of a checkpoint with the network of the features, built from its config; other preparations as they are.

    Raises UserError where the network has other weights than in the training.
    """
    if not isinstance(preparation, FeaturePreparation):
        return preparation
    if not has_embedder(config["task"]):
        raise UserError("the inputs of the checkpoint are features, but its config names no network for them; take another checkpoint.")
    x = draws.uniform(draws.key(0, "sample"), 4, *preparation.images.shape)
    embedder = _embedder(dict(config["task"]["backbone"]), x, config["seed"], device)
    if embedder.weights != preparation.weights:
        raise UserError(
            f"the weights of the backbone {embedder.name} are not those of the training, so its features would be others; put "
            "the weights of the training back, or train the run again."
        )
    return dataclasses.replace(preparation, embed=embedder)


def fill_drawn(node: dict[str, Any], source: TaskSource) -> None:
    """Write the split that a source drew, and what else it chose, into its node, so that a checkpoint restores the same episodes."""
    for key in ("classes", "tasks"):
        if key in node and node[key] is None:
            node[key] = getattr(source, key)
    for key, value in getattr(source, "chosen", {}).items():
        if key in node and node[key] is None:
            node[key] = value


def checked_splits(node: Mapping[str, Any], scored: str | None) -> dict[str, Any]:
    """Return the argument by which a source checks only the split that an evaluation scores; {} where it has no such argument."""
    return {"used": (scored,)} if scored is not None and "used" in annotations_of(locate(node.get(TARGET, ""))) else {}


def _embedder(node: dict[str, Any], x: Tensor, seed: int, device: str) -> Embedder:
    rest, around = divided(node, "task.backbone")
    around = dataclasses.replace(around, frozen=True)
    name = rest[TARGET]
    made, other = (build_from(number, rest, around, x, key="task.backbone") for number in (seed, seed + 1))
    width = check_vectors(made.module, x, name)
    check_embedding(made, other, x, name)
    node |= {key: value for key, value in dataclasses.asdict(made.around).items() if key in node and key != "frozen"}
    facts = {key: value for key, value in dataclasses.asdict(made.around).items() if key in ("mean", "std", "without")}
    return Embedder(made.module.to(device), width, name, {**facts, "shape": list(x.shape[1:])}, device)
