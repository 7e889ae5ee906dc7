"""Check every value of a config before anything is built: each key against the annotation of the argument that takes the value.

No object is made here, so the check takes milliseconds and reads no data.
"""

from __future__ import annotations

import inspect
from collections.abc import Collection, Mapping, Sequence
from dataclasses import dataclass
from typing import Annotated, Any

from metarun.backbones.conv4 import Output, Pooling
from metarun.compute.device import DeviceKeys
from metarun.engine.optimizer import OuterOptimizer, Schedule
from metarun.engine.patience import check_patience
from metarun.engine.training import Settings
from metarun.errors import UserError, nearest, printable
from metarun.records.tracking import Tracker
from metarun.tasks.sampling import FewShot
from metarun.tasks.stream import Streams
from metarun.values import Count, CountOrZero, Keys, NormMode, NotNegative
from metarun.wiring.around import divided
from metarun.wiring.fitting import annotations_of, fit, fit_keys, passes_known_keys
from metarun.wiring.instantiate import TARGET, instantiate, locate

GROUPS = ("task", "algo", "backbone", "device")
"""The groups that training and evaluation need."""
TRAINED = (*GROUPS, "optimizer", "logger")
"""The groups that training needs."""

INTERVALS = ("eval_every", "save_every", "save_minutes", "log_every")
FOLLOWING = ("steps", "tasks_per_step", "eval_episodes")
"""The settings whose defaults are keys of groups, `algo.recipe` and `task.trajectories`; they are checked after these keys."""
SETTINGS = ("seed", *FOLLOWING, *INTERVALS, "select", "patience", "keep")


@dataclass(frozen=True)
class Recipe:
    """The keys of `recipe` in an algorithm's file: the defaults of other keys. A user's file may have further ones."""

    steps: CountOrZero
    tasks_per_step: Count
    lr: NotNegative
    schedule: Schedule
    final_lr: NotNegative
    norm: NormMode
    pooling: Pooling
    output: Output


RECIPE = Annotated[Mapping[str, Any], Keys(Recipe, closed=False)]
SAMPLED = ("train_ways", "train_shots", "train_queries", "train_labels")
"""The keys of a recipe that are keys of an image source."""
STREAMED = ("train_classes", "train_per_class", "remember")
"""The keys of a recipe that are keys of a stream."""
OF_THE_TASK = ("input_shape", "columns")
"""The keys of a backbone that are null for what the task has."""


def check_values(config: Mapping[str, Any], groups: Collection[str] = GROUPS) -> dict[str, Any]:
    """Return the config with the engine's settings converted to their types; raise UserError for the first value that does not fit.

    groups: those that the command needs.
    """
    hints = {name: hint for name, hint in annotations_of(Settings).items() if name in SETTINGS}
    settled = fit_keys(config, {name: hint for name, hint in hints.items() if name not in FOLLOWING})
    for group in groups:
        if not isinstance(config.get(group), Mapping):
            raise UserError(f"the config has no {group}; choose one with {group}=… (`metarun list` names them).")
    for group in groups:
        _check_group(config[group], group)
    settled = fit_keys(settled, {name: hint for name, hint in hints.items() if name in FOLLOWING})
    check_patience(settled.get("patience"), settled.get("eval_every", 1))
    return settled


def _check_group(node: Mapping[str, Any], group: str) -> None:
    if group == "device":
        hints = annotations_of(DeviceKeys)
        for key in node:
            if key not in hints:
                raise UserError(f"device.{key} is not a key of the device.{nearest(str(key), hints)}")
        fit_keys(node, hints, "device.")
        return
    rest = dict(node)
    if group == "logger":
        _check_loggers(rest)
    if group == "algo" and "recipe" in rest:
        _check_recipe(rest.pop("recipe"))
    if group == "backbone":
        rest = _check_backbone(rest)
    _check_node(rest, group)
    if group == "optimizer" and locate(rest.get(TARGET, "")) is OuterOptimizer:
        instantiate(rest, name="optimizer", params={}, steps=1)  # torch knows the options of its optimizers


def _check_loggers(node: Mapping[str, Any]) -> None:
    """Refuse a value in the place of a logger, such as logger.wandb=5."""
    if locate(node.get(TARGET, "")) is not Tracker:
        return
    for name, each in node.items():
        if name != TARGET and not (each is None or (isinstance(each, Mapping) and TARGET in each)):
            raise UserError(
                f"logger.{printable(name)}={printable(each)} is no logger; choose loggers with logger=NAME or logger=[NAME,NAME], and set "
                f"their keys with logger.NAME.KEY=VALUE."
            )


def _check_backbone(node: Mapping[str, Any], name: str = "backbone") -> dict[str, Any]:
    """Check the keys around a backbone; return the arguments of its class."""
    rest, _ = divided(node, name)
    return {key: value for key, value in rest.items() if value is not None or key not in OF_THE_TASK}


def _check_recipe(recipe: Any) -> None:
    fit(recipe, RECIPE, "algo.recipe")
    for source, keys in ((FewShot, SAMPLED), (Streams, STREAMED)):
        hints = annotations_of(source)
        fit_keys(recipe, {name: hints[name] for name in keys}, "algo.recipe.")


class Unbuilt:
    """Stands for the object of a nested `_target_`. It fits every annotation until the object is made."""

    def __repr__(self) -> str:
        return "{_target_: …}"


def _check_node(node: Mapping[str, Any], name: str) -> Unbuilt:
    """Check the arguments of a node, and then the nodes inside, whose values may follow from the arguments."""
    if TARGET not in node:
        raise UserError(f"{name} has no {TARGET}, so there is nothing to build.")
    path = node[TARGET]
    target = locate(path)
    hints = annotations_of(target) if callable(target) else {}
    closed = callable(target) and passes_known_keys(target)
    for key, value in sorted(node.items(), key=lambda item: isinstance(item[1], Mapping)):
        if key == TARGET:
            continue
        if name.startswith("task") and key == "backbone" and isinstance(value, Mapping) and TARGET in value:
            value = _check_backbone(value, f"{name}.backbone")
        inside = _check_inside(value, f"{name}.{key}")
        if closed and key not in hints and key not in inspect.signature(target).parameters:
            raise UserError(f"{name}.{key} is not an argument of {path}.{nearest(str(key), hints)}")
        if key in hints and not isinstance(inside, Unbuilt):
            fit(inside, hints[key], f"{name}.{key}")
    return Unbuilt()


def _check_inside(value: Any, name: str) -> Any:
    """Check the nodes inside a value, and return the value with an `Unbuilt` for each of them."""
    if isinstance(value, Mapping):
        return _check_node(value, name) if TARGET in value else {key: _check_inside(item, f"{name}.{key}") for key, item in value.items()}
    if isinstance(value, list):
        return [_check_inside(item, f"{name}[{i}]") for i, item in enumerate(value)]
    return value


def largest_key(config: Mapping[str, Any], names: Sequence[str]) -> str:
    """Return the key with the largest whole number in these groups or keys, such as "backbone.filters=3000000000".

    This number is most likely the reason why the memory is too small.
    """
    found = [pair for name in names if name in config for pair in _numbers(config[name], name)]
    key, value = max(found, key=lambda pair: pair[1], default=("the sizes", 0))
    return f"{key}={value}" if found else key


def _numbers(value: Any, name: str) -> list[tuple[str, int]]:
    if isinstance(value, Mapping):
        inside = [(item, f"{name}.{key}") for key, item in value.items() if key not in ("recipe", "input_shape")]
        return [pair for item, key in inside for pair in _numbers(item, key)]
    if isinstance(value, (list, tuple)):
        return [(name, pair[1]) for item in value for pair in _numbers(item, name)]
    word = name.rsplit(".", 1)[-1].rsplit("_", 1)[-1]
    return [(name, value)] if isinstance(value, int) and not isinstance(value, bool) and word != "seed" else []
