"""The problem of a row in plain torch: the same network, initial weights and episodes, with stock layers and torch's default layout.

This module does not touch the process-wide settings that metarun's engine changes.
"""

from __future__ import annotations

from dataclasses import dataclass
from typing import Any, NamedTuple

import torch
from torch import Tensor, nn

from metarun.backbones.classifier import Classifier
from metarun.episodes import deal
from metarun.types import Episode, Examples, TaskSource, traits_of
from metarun.wiring.build import build_source
from metarun.wiring.instantiate import instantiate, locate


class Task(NamedTuple):
    """One episode as the plain loops hold it: x (B, ...), y (B,) class numbers or (B, D) targets, of support and query."""

    support_x: Tensor
    support_y: Tensor
    query_x: Tensor
    query_y: Tensor


@dataclass(frozen=True)
class Problem:
    """config: of `metarun train`. network: with metarun's initial weights. source: the episodes."""

    config: dict[str, Any]
    network: nn.Module
    source: TaskSource

    def tasks(self, split: str, first: int, count: int) -> list[Task]:
        """Deal episodes number `first` and following, one by one in memory."""
        return [self._task(deal(self.source, split, torch.tensor([index]))) for index in range(first, first + count)]

    def _task(self, batch: Episode) -> Task:
        if any(part.mask is not None for part in batch):
            raise ValueError("the plain loops take episodes of a fixed size only")
        return Task(*(tensor for part in batch for tensor in self._examples(part)))

    def _examples(self, examples: Examples) -> tuple[Tensor, Tensor]:
        y = examples.y[0]
        return examples.x[0].contiguous(), y.argmax(dim=-1) if self.source.objective == "classification" else y.contiguous()


def problem_of(config: dict[str, Any]) -> Problem:
    """Return the problem that a config describes."""
    source = build_source(config)
    return Problem(config, _network(config, source.episode("train", 0)), source)


def _network(config: dict[str, Any], episode: Episode) -> nn.Module:
    node = {key: value for key, value in config["backbone"].items() if key not in ("norm", "head_init")}
    if "input_shape" in node and node["input_shape"] is None:
        node["input_shape"] = list(episode.support.x.shape[1:])
    with torch.random.fork_rng(devices=[]):
        torch.manual_seed(config["seed"])
        network: nn.Module = instantiate(node, name="backbone")
        if traits_of(locate(config["algo"]["_target_"])).head:
            network = Classifier(network, episode.support.y.shape[-1])
    norm = config["backbone"].get("norm", "batch")
    if norm == "instance":
        _normalise_each_image(network)
    if norm == "batch":
        for layer in network.modules():
            if isinstance(layer, nn.BatchNorm2d):  # as made with track_running_stats=False
                layer.track_running_stats = False
                layer.running_mean = layer.running_var = layer.num_batches_tracked = None
    return network


def _normalise_each_image(network: nn.Module) -> None:
    """Replace the batch normalisations of a network by instance normalisations with the same weights."""
    for parent in network.modules():
        for name, child in parent.named_children():
            if isinstance(child, nn.BatchNorm2d):
                instance = nn.InstanceNorm2d(child.num_features, child.eps, affine=True)
                instance.load_state_dict(dict(child.named_parameters()))
                setattr(parent, name, instance)
