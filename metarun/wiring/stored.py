"""Check the config of a checkpoint, which a stranger may have written, before anything is built from it."""

from __future__ import annotations

import math
import os
import stat
from collections.abc import Iterator, Mapping
from typing import Any

from metarun.errors import UserError, printable
from metarun.wiring.instantiate import TARGET
from metarun.wiring.places import check_targets, quoted
from metarun.wiring.pretrained import BORROWED

GROUPS = ("task", "algo", "backbone", "device", "optimizer", "logger")
"""The groups that every run has."""
TENSORBOARD = "metarun.records.loggers.tensorboard.TensorBoard"
FOREIGN = ("hydra", "save", "checkpoint")
"""Keys that no run stores. They would name a file or code, if a command read them."""
LARGEST, LONGEST = 100_000_000, 1000
"""Most numbers of one example, and most entries of a list of sizes or options."""


def accepted(config: Mapping[str, Any], trust: Any = ()) -> dict[str, Any]:
    """Return the config of a checkpoint, if metarun may build from it.

    trust: the packages that the user typed in `trust=`. A download into a folder that the config names is switched off, and so is the
    download of a backbone's pretrained weights: the checkpoint holds the weights.

    Raises UserError where the config lacks a part or has one of the wrong type, names code that it may not name (`check_targets`), or names
    a pipe or a device as data. Nothing of the config runs before all of it is checked.
    """
    check_form(config)
    check_targets(config, packages(trust))
    for text in _texts(config["task"]):
        _check_file(text)
    backbone = config["backbone"]
    if backbone.get(TARGET) in BORROWED:
        backbone = {**backbone, "pretrained": False}
    return {**config, "task": _without_download(config["task"]), "backbone": backbone, "logger": _todays(config["logger"])}


def _todays(logger: Mapping[str, Any]) -> Mapping[str, Any]:
    """Return the loggers of a run as today's configs have them; an earlier version had the switch `tensorboard`."""
    if not isinstance(logger.get("tensorboard"), bool):
        return logger
    return {**logger, "tensorboard": {TARGET: TENSORBOARD} if logger["tensorboard"] else None}


def packages(trust: Any) -> list[str]:
    """Return the packages of the key `trust`; UserError for a value that is no list of names."""
    names = [] if trust is None else [trust] if isinstance(trust, str) else trust
    if not isinstance(names, (list, tuple)) or not all(isinstance(name, str) and name.isidentifier() for name in names):
        raise UserError(f"trust={trust} must be a list of packages, such as trust=[mypackage].")
    return list(names)


def check_form(config: Mapping[str, Any]) -> None:
    """Raise UserError where the config lacks a part that every run has, or where this part has another type."""
    for key in FOREIGN:
        if key in config:
            raise UserError(f"the config in the checkpoint sets {key}, which no run stores; nothing was run.")
    if config.get("resume") is not None:
        raise UserError("the config in the checkpoint sets resume, which no run stores; nothing was run.")
    for group in GROUPS:
        _require(config, group, Mapping, "a group of keys")
        _check_keys(config[group], group)
        if group != "task":
            _check_lengths(config[group], group)
    for number in ("seed", "steps"):
        _require(config, number, int, "a whole number")
    for key, kind, words in (("options", Mapping, "a group of keys"), ("keep", int, "a whole number"), ("init_from", str, "a path")):
        if config.get(key) is not None:
            _require(config, key, kind, words)
    shape = config.get("input_shape")
    if shape is not None and not (isinstance(shape, list) and all(_is_whole(n) and n > 0 for n in shape) and math.prod(shape) <= LARGEST):
        raise UserError(f"the config in the checkpoint has {quoted(shape)} as input_shape; it must be a list of sizes.")


def _require(config: Mapping[str, Any], key: str, kind: type, words: str) -> None:
    if key not in config:
        raise UserError(f"the config in the checkpoint has no '{key}', so the run cannot be built again; take another checkpoint.")
    if not isinstance(config[key], kind) or isinstance(config[key], bool):
        raise UserError(f"the config in the checkpoint has {quoted(config[key])} as {key}, which must be {words}; take another checkpoint.")


def _is_whole(value: Any) -> bool:
    return isinstance(value, int) and not isinstance(value, bool)


def _check_keys(value: Any, place: str) -> None:
    """Raise UserError for a key that is no text; the keys of a node are names of arguments."""
    if isinstance(value, (list, tuple)):
        for item in value:
            _check_keys(item, place)
    if isinstance(value, Mapping):
        for key, item in value.items():
            if not isinstance(key, str):
                raise UserError(f"the config in the checkpoint has the key {quoted(key)} in {printable(place)}; a key is text.")
            _check_keys(item, f"{place}.{key}")


def _check_lengths(value: Any, place: str) -> None:
    """Raise UserError for a list of very many entries, such as the sizes of a million layers; a task may list many classes."""
    if isinstance(value, (list, tuple)) and len(value) > LONGEST:
        raise UserError(
            f"the config in the checkpoint has a list of {len(value):,} entries in {printable(place)}; take another checkpoint."
        )
    for key, item in value.items() if isinstance(value, Mapping) else enumerate(value) if isinstance(value, (list, tuple)) else ():
        _check_lengths(item, f"{place}.{key}")


def _texts(node: Any) -> Iterator[str]:
    """Yield the text arguments of a node and of the nodes inside of it."""
    if isinstance(node, Mapping):
        yield from (value for value in node.values() if isinstance(value, str) and TARGET in node)
        for value in node.values():
            yield from _texts(value)


def _check_file(text: str) -> None:
    """Raise UserError where the text names a pipe or a device, which may never end."""
    try:
        kind = os.stat(os.path.expanduser(text)).st_mode
    except (OSError, ValueError):  # no such file
        return
    if not (stat.S_ISREG(kind) or stat.S_ISDIR(kind)):
        raise UserError(
            f"the config in the checkpoint names {quoted(text)} as data, which is neither a file nor a folder; nothing was read."
        )


def _without_download(node: Any) -> Any:
    """Return a node in which no task source of metarun downloads data into the folder that the node names."""
    if not isinstance(node, Mapping):
        return node
    own = str(node.get(TARGET, "")).startswith("metarun.")
    return {key: False if own and key == "download" else _without_download(value) for key, value in node.items()}
