"""Build the network of a config: a backbone, with a head where the algorithm has one."""

from __future__ import annotations

import dataclasses
import logging
from collections.abc import Mapping
from typing import Any, NamedTuple

import torch
from torch import Tensor, nn

from metarun.backbones.classifier import Classifier
from metarun.compute.memory import allocating
from metarun.errors import UserError, first_line
from metarun.network import Network
from metarun.types import Episode
from metarun.wiring.around import Around, divided
from metarun.wiring.checking import largest_key
from metarun.wiring.instantiate import TARGET, instantiate
from metarun.wiring.lazy import materialise
from metarun.wiring.module_checks import check_adopted, check_saved, examine, sample_of
from metarun.wiring.pretrained import BORROWED, check_no_classifier, completed, fit, give_width

log = logging.getLogger(__name__)


def is_own(node: Any) -> bool:
    """Return whether a part of a config names code of the user's."""
    if isinstance(node, Mapping):
        target = str(node.get(TARGET, "metarun."))
        return not target.startswith("metarun.") or target in BORROWED or any(is_own(value) for value in node.values())
    return isinstance(node, list | tuple) and any(is_own(value) for value in node)


def build_network(config: dict[str, Any], episodes: Mapping[str, Episode], *, head: bool, algorithm: str) -> Network:
    """Build the network for these episodes, by split. head: whether it has a linear head. algorithm: its name, for messages.

    Writes into the config what the weights of the backbone say about themselves, such as the mean of each channel, where a key is null.
    Raises UserError for a backbone that does not suit the episodes, and for one of the user's that metarun cannot run as torch does.
    """
    node, around = divided(config["backbone"])
    outputs = {split: episode.support.y.shape[-1] for split, episode in episodes.items()}
    if head and outputs["train"] != outputs["val"]:
        raise UserError(
            f"{algorithm} trains a head of {outputs['train']} outputs, and validation needs {outputs['val']}; "
            + _equal_numbers(config["task"])
        )
    if around.head_init is not None and not head:
        raise UserError(f"{algorithm} has no linear head to initialise; leave out backbone.head_init={around.head_init}.")
    x = sample_of(episodes["train"])
    with torch.random.fork_rng(devices=[]):
        torch.manual_seed(config["seed"])
        made = build_backbone(node, around, x)
        config["backbone"] |= {key: value for key, value in dataclasses.asdict(made.around).items() if key in config["backbone"]}
        module = Classifier(made.module, outputs["train"], around.head_init) if head else made.module
        name, torchs = node[TARGET], None
        if is_own(node):
            torchs = examine(made.module, x, name)
            torch.manual_seed(config["seed"] + 1)
            other = build_backbone(node, around, x)
            check_embedding(made, other, x, name)
        network = Network(module, around.norm, copy_input=torchs is not None and torchs.changes_input)
        _check_forward(network, episodes["train"], name)
        if torchs is not None:
            check_adopted(made.module, torchs, name)
            check_saved(other.module, made.module, torchs, name)
    _say_unused_statistics(network)
    return network


def _equal_numbers(task: Mapping[str, Any]) -> str:
    """Return what to do about different numbers of outputs in training and validation."""
    if "train_classes" in task:
        return (
            "set task.train_classes, task.val_classes and task.classes to one number, or take an algorithm without a fixed head, such as "
            "oml or protonet."
        )
    return "set task.train_ways to the value of task.ways." if "train_ways" in task else "take a task with equal numbers."


class Made(NamedTuple):
    """A backbone's module, ready for its inputs.

    around: the keys around it, with what the weights say. stated: whether its own code sets `out_features`.
    """

    module: nn.Module
    around: Around
    stated: bool


def build_backbone(node: Mapping[str, Any], around: Around, x: Tensor, *, key: str = "backbone") -> Made:
    """Build a backbone for inputs x (B, ...), with its lazy layers made, frozen where it is to be.

    node: the arguments of its class. key: the place of the node in the config, for messages.
    """
    node = dict(node)
    if "input_shape" in node and node["input_shape"] is None:
        node["input_shape"] = list(x.shape[1:])
    with allocating(f"backbone {node[TARGET]}", f"lower {largest_key({key: node}, [key])}", counted=True):
        module = instantiate(node, name=key)
        if not isinstance(module, nn.Module):
            raise UserError(f"{node[TARGET]} gives a {type(module).__name__}; a backbone is a torch.nn.Module.")
        stated = isinstance(getattr(module, "out_features", None), int)
        around = completed(around, module, pretrained=node.get("pretrained") is not False)
        fit(module, around, x, node[TARGET])
        materialise(module, x, node[TARGET])
        give_width(module, x)
    return Made(module, around, stated)


def build_from(seed: int, node: Mapping[str, Any], around: Around, x: Tensor, *, key: str) -> Made:
    """Build a backbone whose new weights come from a seed; torch's own generator stays as it is. Otherwise as `build_backbone`."""
    with torch.random.fork_rng(devices=[]):
        torch.manual_seed(seed)
        return build_backbone(node, around, x, key=key)


def check_embedding(made: Made, other: Made, x: Tensor, name: str) -> None:
    """Raise UserError where the embedding comes from a classification layer, unless the user wants it. other: of another seed."""
    if not made.around.keep_classifier:
        check_no_classifier(made.module, other.module, x, name, stated=made.stated)


def _say_unused_statistics(network: Network) -> None:
    """Log that the running statistics of loaded weights have no effect, where the mode of normalisation does not use them."""
    loaded = any(layer.running_mean is not None and bool(layer.running_mean.any()) for layer in network.norms)
    if loaded and network.norm != "running":
        log.warning(
            "backbone.norm=%s does not use the running statistics of the loaded weights; backbone.norm=running starts from them, and "
            "backbone.frozen=true keeps them",
            network.norm,
        )


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
