"""A checkpoint's config, and what the user may change of it to resume a run or to evaluate it. Plain dictionaries in and out."""

from __future__ import annotations

from collections.abc import Collection, Mapping
from typing import Any

from metarun.errors import UserError, nearest
from metarun.records.checkpoint import Checkpoint

MAY_CHANGE = ("steps", "eval_every", "save_every", "trust", "logger", "device")
"""What may differ from the checkpoint when a run is resumed; the first four are keys, the others groups."""

BEFORE = {"kernels": "torch"}
"""Of a run's choices, those that an older metarun did not write down, since it had no other."""


def resume_config(stored: Checkpoint, overrides: Mapping[str, Any], groups: Mapping[str, Any]) -> dict[str, Any]:
    """Return the config of a checkpoint with those overrides that may change; UserError for any other that differs from it."""
    config = dict(stored.config)
    device = dict(config["device"])
    choices = BEFORE | stored.choices
    for key, chosen in (("task_chunk", "chunk"), ("threads", "threads"), ("compile", "compile"), ("kernels", "kernels")):
        if device.get(key, "auto") == "auto":  # what it chose then is used again
            device[key] = choices.get(chosen, "auto")
    config["device"] = device
    for key, value in overrides.items():
        group = key.split(".")[0]
        if group not in MAY_CHANGE:
            before = stored.config.get("chosen", {}).get(key) if key in stored.config.get("chosen", {}) else look_up(stored.config, key)
            if before != value:
                raise UserError(
                    f"{key}={value} differs from the run's {before}; on resume only {', '.join(MAY_CHANGE)} may change. Start a new run for it."
                )
        elif key in groups:
            config[key] = groups[key]
        else:
            config = put(config, key, value)
    return config


def evaluation_config(stored: Mapping[str, Any], config: Mapping[str, Any]) -> dict[str, Any]:
    """Return the checkpoint's config with what `metarun eval` was told to change; UserError for a key that it does not have."""
    merged = dict(stored)
    chosen = config.get("chosen", {})
    if chosen.get("task") is None:  # the same data: images as they come, also where their size is changed
        merged.pop("input_shape", None)
    for group in ("task", "algo", "backbone", "device"):
        given = config.get(group) or {}
        if group == "device" or chosen.get(group) is not None:
            merged[group] = dict(given) if given else dict(merged[group])
            if group == "task":
                merged[group] |= _kept(stored, given, config.get("typed", ()))
            if chosen.get(group) is not None:
                merged["chosen"] = {**merged.get("chosen", {}), group: chosen[group]}
            continue
        for key, value in leaves(given):
            merged = put(merged, f"{group}.{key}", value)
    if config.get("norm") is not None:
        merged = put(merged, "backbone.norm", config["norm"])
    if config.get("inner_steps") is not None:
        keys = [key for key in ("test_inner_steps", "inner_steps") if key in merged["algo"]]
        if not keys:
            raise UserError("this checkpoint's algorithm has no inner steps to set; leave out inner_steps.")
        merged = put(merged, f"algo.{keys[0]}", config["inner_steps"])
    if "eval_seed" in merged["task"]:
        merged = put(merged, "task.eval_seed", config["seed"])
    return merged


def _kept(stored: Mapping[str, Any], given: Mapping[str, Any], typed: Collection[str]) -> dict[str, Any]:
    """Return the keys of another task that stay as the checkpoint was trained, unless they were typed: episodes, labels, size of images."""
    shape = stored.get("input_shape")
    wanted = {key: stored["task"][key] for key in ("ways", "shots", "queries", "train_labels") if key in stored["task"]}
    if shape is not None and len(shape) == 3 and shape[1] == shape[2]:
        wanted |= {"image_size": shape[1], "channels": shape[0]}
    return {key: value for key, value in wanted.items() if key in given and f"task.{key}" not in typed}


def look_up(config: Mapping[str, Any], dotted: str) -> Any:
    """Return the value at a dotted key; UserError with the nearest key where there is none."""
    node: Any = config
    for part in dotted.split("."):
        if not isinstance(node, Mapping) or part not in node:
            raise UserError(f"there is no key '{dotted}' in the checkpoint's config.{nearest(dotted, known_keys(config))}")
        node = node[part]
    return node


def put(config: Mapping[str, Any], dotted: str, value: Any) -> dict[str, Any]:
    """Return the config with one existing key set to another value; the original stays as it is."""
    look_up(config, dotted)
    first, _, rest = dotted.partition(".")
    return {**config, first: put(config[first], rest, value) if rest else value}


def leaves(node: Mapping[str, Any], prefix: str = "") -> list[tuple[str, Any]]:
    """Return the leaves of nested dictionaries as (dotted key, value)."""
    found: list[tuple[str, Any]] = []
    for key, value in node.items():
        found += leaves(value, f"{prefix}{key}.") if isinstance(value, Mapping) else [(f"{prefix}{key}", value)]
    return found


def known_keys(config: Mapping[str, Any]) -> list[str]:
    """Return every dotted key of a config."""
    return [key for key, _ in leaves(config)]
