"""Build objects from a config. No other module knows both the keys of the YAML files and the classes that they describe.

The config is a plain, resolved dictionary from Hydra or from a checkpoint. metarun reads it literally.
"""

from __future__ import annotations

import copy
import dataclasses
import inspect
import logging
import math
from collections.abc import Mapping
from dataclasses import dataclass
from typing import Any

import torch
from torch import Tensor
from torch.utils._pytree import tree_map_only

from metarun import draws
from metarun.compute.device import choose_device, place
from metarun.compute.memory import allocating
from metarun.compute.plan import Device, Plan, Work, plan_for, work_of, work_of_pass
from metarun.engine.optimizer import OuterOptimizer
from metarun.engine.selection import Selection
from metarun.engine.training import Position, Settings
from metarun.errors import UserError, printable
from metarun.network import FROZEN, network_of
from metarun.objectives import objective
from metarun.processes.ranks import here
from metarun.records import checkpoint
from metarun.records.display import doing
from metarun.tasks.converted import fit_images
from metarun.tasks.sampling import FewShot
from metarun.tasks.stream import Streams
from metarun.types import (
    Algorithm,
    Episode,
    Params,
    State,
    TaskSource,
    WithClassNumbers,
    WithDevice,
    WithInnerSteps,
    WithTrainLabels,
    adapts_backbone,
    part_of,
    prefixed,
    traits_of,
)
from metarun.wiring.backbones import build_network, is_own
from metarun.wiring.checking import SETTINGS, check_values, largest_key
from metarun.wiring.columns import fill_columns, has_columns
from metarun.wiring.episode_checks import check_episodes
from metarun.wiring.estimates import check_copies, check_step
from metarun.wiring.features import has_embedder, with_embedder
from metarun.wiring.instantiate import TARGET, instantiate, locate
from metarun.wiring.members import check_members
from metarun.wiring.rehearsal import rehearse
from metarun.wiring.shapes import Shapes
from metarun.wiring.sources import fill_sources, with_built, with_sources
from metarun.wiring.streams import has_source, with_source
from metarun.wiring.tensors import check_type, is_alike

log = logging.getLogger(__name__)


@dataclass(frozen=True)
class Parts:
    """The objects that a config describes. config: the config, with the values that come from the data (class splits, input shape)."""

    config: dict[str, Any]
    source: TaskSource
    algorithm: Algorithm
    device: Device
    shown: Episode
    """The first training episode, which gives the shapes."""
    work: dict[str, Work]
    """The work of one task, by split ("train", "val")."""


def build(typed: Mapping[str, Any], *, scored: str | None = None) -> Parts:
    """Build the task source, the network and the algorithm of a config; UserError where the parts do not fit each other.

    typed: the config; `build` does not change it. A config from a checkpoint must pass `metarun.wiring.stored.accepted` first.
    scored: the split that an evaluation scores. Only this split then needs enough classes and examples, and it stands in for others that
        have too few. None for a training, whose later test needs all splits.
    """
    config: dict[str, Any] = copy.deepcopy(check_values(typed))
    device = choose_device(config["device"])
    lower = f"lower {largest_key(config, ['task'])}"
    with allocating("the data of the task", lower), doing("loading the data"):
        source = build_source(config, scored)
    if device.name != "cpu" and isinstance(source, WithDevice):
        source = source.to(device.name)
    if isinstance(source, FewShot | Streams) and config.get("input_shape") is not None:  # the training's; this task may have another
        source = fit_images(source, config["input_shape"])
    return _built(config, source, device, scored)


def build_without_data(typed: Mapping[str, Any], shapes: Shapes) -> Parts:
    """Build the network and the algorithm of a checkpoint's config for examples of these shapes; the task source stays unbuilt.

    The `source` of the result deals episodes that only have the shapes. typed, errors: as in `build`.
    """
    config = copy.deepcopy(check_values(typed, ("algo", "backbone", "device")))
    return _built(config, shapes, choose_device(config["device"]))


def _built(config: dict[str, Any], source: TaskSource, device: Device, scored: str | None = None) -> Parts:
    """Build the algorithm for the first episodes of a source."""
    lower = f"lower {largest_key(config, ['task'])}"
    with allocating("an episode", lower, counted=True), doing("dealing the first episodes"):
        episodes = _first_episodes(source, scored)
    check_episodes(episodes, config["task"][TARGET])
    config["input_shape"] = list(episodes["train"].support.x.shape[1:])
    fill_columns(config, source)
    lower = f"lower {largest_key(config, ['algo', 'backbone', 'task'])}"
    with allocating("the algorithm", lower):
        algorithm = _build_algorithm(config, source, episodes)
    check_copies(algorithm)
    source = _with_class_numbers(source, algorithm, scored or "train")
    if is_own(config["backbone"]) or is_own(config["algo"]):
        with doing("trying an evaluation" if scored else "trying a step and an evaluation"):
            device = dataclasses.replace(device, loop=rehearse(algorithm, episodes, device, trains=scored is None))
    with allocating("the algorithm", lower, counted=True):
        work = {split: _work(algorithm, episode) for split, episode in episodes.items()}
    return Parts(config, source, algorithm, device, episodes["train"], work)


def _first_episodes(source: TaskSource, scored: str | None) -> dict[str, Episode]:
    """Return an episode of training and one of validation, on the CPU; in an evaluation, the split that it scores is the validation."""
    shown = source.episode(scored or "val", 0)
    try:
        first = source.episode("train", 0)
    except UserError:
        if scored is None or scored == "train":
            raise
        first = shown
    return {split: tree_map_only(Tensor, Tensor.cpu, each) for split, each in (("train", first), ("val", shown))}


def build_source(config: dict[str, Any], scored: str | None = None) -> TaskSource:
    """Build the task source. Write the split that it drew, and what else it chose, into the config, so that a checkpoint restores it.

    scored: see `build`.
    """
    task = config["task"] = with_sources(config["task"])
    if has_embedder(task):
        task = with_embedder(task, config["seed"], choose_device(config["device"]).name, scored)
    if has_source(task):
        task = with_source(task, scored)
    source: TaskSource = instantiate(with_built(task, scored), name="task")
    for name in ("objective", "episode"):
        if not hasattr(source, name):
            raise UserError(
                f"{config['task']['_target_']} gives a {type(source).__name__}, which has no `{name}` and so is no task source."
            )
    fill_sources(config["task"], source)
    return source


def _with_class_numbers(source: TaskSource, algorithm: Algorithm, split: str) -> TaskSource:
    """Return the source with class numbers in its episodes, where the algorithm reads them; log a warning where the source has none."""
    if not traits_of(algorithm).class_numbers or source.objective != "classification":
        return source
    if isinstance(source, WithClassNumbers):
        source = source.numbered()
    if source.episode(split, 0).support.classes is None:
        log.warning(
            "%s deals episodes without class numbers (`Examples.classes`), so %s cannot tell an episode's own classes from others",
            type(source).__name__,
            type(algorithm).__name__,
        )
    return source


def start(parts: Parts, settings: Settings) -> tuple[Position, OuterOptimizer]:
    """Return the position before the first step, and the optimizer of its parameters."""
    with allocating("the algorithm", f"lower {largest_key(parts.config, ['algo', 'backbone'])}", counted=True):
        params, state = parts.algorithm.init(draws.key(settings.seed, "init"))
    if parts.config.get("init_from") is not None:
        params, state = warm_start(params, state, parts.config["init_from"])
    position = Position(0, place(params, settings.device), place(state, settings.device))
    return position, build_optimizer(parts.config, position.params, settings.steps)


def warm_start(params: Params, state: State, path: str) -> tuple[Params, State]:
    """Return parameters and state, with the values of a checkpoint where the names agree.

    The names of a backbone's parameters begin with `body.` if the network has a head, and have no prefix if it has none (`protonet`). A run
    with a head can start from a run without one, and the reverse.

    Raises UserError where the checkpoint has none of the parameters, or one of another shape.
    """
    file, stored, note = checkpoint.find(path)
    if note is not None:
        log.warning("init_from: %s", printable(note))
    values = part_of(stored.state, FROZEN) | stored.params  # a parameter may learn in one of the runs and be frozen in the other
    shared, frozen = _renamed(values, params), prefixed(FROZEN, _renamed(values, part_of(state, FROZEN)))
    if not shared and not frozen:
        raise UserError(f"init_from={path}: that run shares no parameter name with this one; both must have the same backbone.")
    for name, value in (shared | frozen).items():
        was, now = tuple(value.shape), tuple((params | state)[name].shape)
        if was != now:
            raise UserError(
                f"init_from={path}: its '{name}' has shape {was} and here it has {now}; train that run with the same task and backbone."
            )
        check_type(name, value, (params | state)[name])
    log.info("%d of %d parameters start from %s", len(shared | frozen), len(params) + len(part_of(state, FROZEN)), file)
    carried = {name: value for name, value in _renamed(stored.state, state).items() if is_alike(value, state[name])}
    return params | shared, state | carried | frozen


def _renamed(stored: Mapping[str, Tensor], wanted: Mapping[str, Tensor]) -> dict[str, Tensor]:
    """Return the stored tensors under the wanted names. A name counts as the same with and without `body.`."""
    known = {_bare(name): value for name, value in stored.items()}
    return {name: known[_bare(name)] for name in wanted if _bare(name) in known}


def _bare(name: str) -> str:
    return name.replace("body.", "", 1)


def build_optimizer(config: Mapping[str, Any], params: dict[str, Tensor], steps: int) -> OuterOptimizer:
    """Return the outer optimizer of these parameters."""
    if not isinstance(config.get("optimizer"), Mapping):
        raise UserError("the config has no optimizer; choose one with optimizer=… (adam, sgd, reptile).")
    optimizer: OuterOptimizer = instantiate(config["optimizer"], name="optimizer", params=params, steps=max(steps, 1))
    return optimizer


def build_settings(parts: Parts) -> Settings:
    """Return the engine's settings from the top-level keys, with the device's plans for a step and for a validation."""
    config, device = parts.config, parts.device
    keys = {"_target_": "metarun.engine.training.Settings", **{name: config[name] for name in SETTINGS if name in config}}
    settings: Settings = instantiate(keys, name="train", device=device.name)
    check_step(parts.shown, settings.tasks_per_step)
    Selection.of(settings.select, parts.algorithm.objective)
    plan = plan_for(device, parts.work["train"], settings.tasks_per_step, settings.steps)
    # A chunk of the training's size is known to fit into memory. A checkpoint stores the training's plan only. So a validation takes its
    # largest chunk and its kernels from that plan: a resumed run then validates with the same values.
    largest = plan.chunk * plan.workers if plan.kernels == "c" else plan.chunk
    validating = dataclasses.replace(device, chunk=None, compile=False, kernels=plan.kernels)
    eval_plan = validating.plan(parts.work["val"], settings.eval_episodes, largest=largest)
    return dataclasses.replace(settings, plan=plan, eval_plan=eval_plan, ranks=here())


def evaluation_plan(parts: Parts, episodes: int) -> Plan:
    """Return the plan for scoring this number of episodes. Raises UserError where the config names C kernels that are missing."""
    return plan_for(parts.device, parts.work["val"], episodes, steps=0)


def _build_algorithm(config: dict[str, Any], source: TaskSource, episodes: dict[str, Episode]) -> Algorithm:
    """Build the algorithm with the source's objective and, where its class takes them, a network, the sizes and the training classes."""
    node = {key: value for key, value in config["algo"].items() if key != "recipe"}
    kind = locate(node.get("_target_", ""))
    goal = objective(source.objective)
    if inspect.isclass(kind):
        check_members(kind)
    traits = traits_of(kind)
    if goal.kind not in traits.objectives:
        raise UserError(
            f"algo {kind.__name__} does {' and '.join(traits.objectives)} only, and this task is {goal.kind}; choose another algo or task."
        )
    extra: dict[str, Any] = {"objective": goal}
    if traits.takes_sizes:
        x, y = episodes["train"].support[:2]
        extra |= {"inputs": math.prod(x.shape[1:]), "outputs": y.shape[-1]}
        if has_columns(config) and "embed" in inspect.signature(kind).parameters:
            extra["embed"] = build_network(config, episodes, head=False, algorithm=kind.__name__)
            extra["inputs"] = extra["embed"].module.out_features
    if traits.learns_all_classes:
        if isinstance(source, WithTrainLabels) and source.train_labels not in ("global", None):  # None: of shapes without such labels
            remedy = "set task.train_labels=global" if "train_labels" in config["task"] else "make the task with train_labels=global"
            raise UserError(f"{kind.__name__} trains a head over all training classes, so labels must count them all; {remedy}.")
        extra["train_classes"] = episodes["train"].support.y.shape[-1]
    if "network" in inspect.signature(kind).parameters:
        extra["network"] = build_network(config, episodes, head=traits.head, algorithm=kind.__name__)
    algorithm: Algorithm = instantiate(node, name="algo", **extra)
    check_members(type(algorithm))  # `_target_` may be a function that returns an algorithm
    return algorithm


def _work(algorithm: Algorithm, episode: Episode) -> Work:
    """Return the work of one task of this size."""
    traits, network = traits_of(algorithm), network_of(algorithm)
    if traits.takes_sizes:
        key = torch.tensor(0)
        params, state = algorithm.init(key)
        return work_of_pass(lambda: algorithm.predict(algorithm.adapt(params, state, episode.support, key), episode.query.x))
    inner_steps = algorithm.inner_steps if isinstance(algorithm, WithInnerSteps) else 1
    module = None if network is None else network.module
    return work_of(module, episode, inner_steps, sequential=traits.sequential, shared=not adapts_backbone(algorithm))
