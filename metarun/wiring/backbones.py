"""Build the network of a config: a backbone, with a head where the algorithm has one."""

from __future__ import annotations

from collections.abc import Mapping
from typing import Any

import torch
from torch import nn

from metarun.backbones.classifier import Classifier
from metarun.compute.memory import allocating
from metarun.errors import UserError, first_line
from metarun.network import Network
from metarun.types import Episode
from metarun.wiring.checking import largest_key
from metarun.wiring.instantiate import TARGET, instantiate
from metarun.wiring.lazy import materialise
from metarun.wiring.module_checks import Torchs, check_adopted, check_saved, examine, sample_of


def is_own(node: Any) -> bool:
    """Return whether a part of a config names code of the user's."""
    if isinstance(node, Mapping):
        return not str(node.get(TARGET, "metarun.")).startswith("metarun.") or any(is_own(value) for value in node.values())
    return isinstance(node, list | tuple) and any(is_own(value) for value in node)


def build_network(config: Mapping[str, Any], episodes: Mapping[str, Episode], *, head: bool, algorithm: str) -> Network:
    """Build the network for these episodes, by split. head: whether it has a linear head. algorithm: its name, for messages.

    Raises UserError for a backbone that does not suit the episodes, and for one of the user's that metarun cannot run as torch does.
    """
    node = dict(config["backbone"])
    norm, head_init = node.pop("norm", "batch"), node.pop("head_init", None)
    if "input_shape" in node and node["input_shape"] is None:
        node["input_shape"] = list(episodes["train"].support.x.shape[1:])
    outputs = {split: episode.support.y.shape[-1] for split, episode in episodes.items()}
    if head and outputs["train"] != outputs["val"]:
        raise UserError(
            f"{algorithm} trains a head of {outputs['train']} outputs, and validation needs {outputs['val']}; "
            + ("set task.train_ways to the value of task.ways." if "train_ways" in config["task"] else "take a task with equal numbers.")
        )
    if head_init is not None and not head:
        raise UserError(f"{algorithm} has no linear head to initialise; leave out backbone.head_init={head_init}.")
    with torch.random.fork_rng(devices=[]):
        torch.manual_seed(config["seed"])
        backbone = _backbone(node, episodes["train"])
        module = Classifier(backbone, outputs["train"], head_init) if head else backbone
        name, torchs = node[TARGET], None
        if is_own(node):
            torchs = examine(backbone, sample_of(episodes["train"]), name)
        network = Network(module, norm, copy_input=torchs is not None and torchs.changes_input)
        _check_forward(network, episodes["train"], name)
        if torchs is not None:
            _check_own(backbone, torchs, node, config["seed"], episodes["train"])
    return network


def _backbone(node: Mapping[str, Any], episode: Episode) -> nn.Module:
    """Return the backbone, with its lazy layers made for the episode's inputs."""
    with allocating(f"backbone {node[TARGET]}", f"lower {largest_key({'backbone': node}, ['backbone'])}", counted=True):
        backbone = instantiate(node, name="backbone")
        if not isinstance(backbone, nn.Module):
            raise UserError(f"{node[TARGET]} gives a {type(backbone).__name__}; a backbone is a torch.nn.Module.")
        materialise(backbone, sample_of(episode), node[TARGET])
    return backbone


def _check_own(backbone: nn.Module, torchs: Torchs, node: Mapping[str, Any], seed: int, episode: Episode) -> None:
    """Raise UserError where the user's module cannot be run as a pure function, or cannot be restored from a checkpoint."""
    check_adopted(backbone, torchs, node[TARGET])
    torch.manual_seed(seed + 1)
    check_saved(_backbone(node, episode), backbone, torchs, node[TARGET])


def _check_forward(network: Network, episode: Episode, name: str) -> None:
    """Run the network once, so that metarun refuses an unsuitable backbone before any work."""
    params, state = network.init()
    with torch.no_grad():
        try:
            with allocating(f"backbone {name}, in one pass over a support set,", "lower its sizes, task.shots or task.ways"):
                outputs = network.on_support(params, state, episode.support, training=True)
        except RuntimeError as error:
            shape = tuple(episode.support.x.shape[1:])
            raise UserError(f"backbone {name} cannot take this task's inputs of shape {shape}: {first_line(error)}") from error
    if outputs.dim() != 2:
        raise UserError(f"backbone {name} gives outputs of shape {tuple(outputs.shape)}; it must give one vector per example.")
