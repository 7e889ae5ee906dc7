"""The code that a config from a file may name, and the places where it may stand.

A `_target_` names code to run, and a file may name any code. metarun accepts a `_target_` where the shipped configs use it: an algorithm as
`algo`, an update rule as `algo.update`, a task as `task` or below `task.sources`, and so on. Nothing else may stand there or elsewhere,
unless the user trusts its package.
"""

from __future__ import annotations

import functools
import importlib.resources
import sys
from collections.abc import Iterator, Mapping, Sequence
from dataclasses import dataclass, field
from importlib.resources.abc import Traversable
from pathlib import Path
from typing import Any

import yaml

from metarun.errors import UserError, printable
from metarun.wiring.instantiate import TARGET, is_dotted, locate

Place = tuple[str, ...]
"""The keys from a node down to a node inside of it; in the places of a group, "*" stands for any key."""


@dataclass
class Group:
    """What the shipped files of a config group hold.

    targets: their `_target_`s. keys: the keys of their nodes. places: the path to a node inside of theirs -> the group of that node.
    """

    targets: set[str] = field(default_factory=set)
    keys: set[str] = field(default_factory=set)
    places: dict[Place, str] = field(default_factory=dict)


ROOTS = ("algo", "task", "backbone", "optimizer", "logger")
"""The groups of a run whose nodes name code."""


@functools.cache
def groups() -> Mapping[str, Group]:
    """Return the config groups that metarun ships, by folder, such as "algo" and "algo/update"."""
    found: dict[str, Group] = {}
    for name, file in _yaml_files(config_folder()):
        node = yaml.safe_load(file.read_text(encoding="utf-8")) or {}
        group = found.setdefault(name, Group())
        group.keys |= node.keys() - {"defaults"}
        if isinstance(node.get(TARGET), str):
            group.targets.add(node[TARGET])
        for entry in node.get("defaults", ()):
            group.places |= _place_of(entry, name)
        for inside in node.values():
            if isinstance(inside, Mapping) and TARGET in inside:  # such as each of the loggers, which may stand beside one another
                group.places[("*",)] = f"{name}/*"
                found.setdefault(f"{name}/*", Group()).targets.add(inside[TARGET])
    return found


def check_targets(config: Mapping[str, Any], trust: Sequence[str] = ()) -> None:
    """Refuse a config that names code where the shipped configs do not name it, except code of the packages that the user trusts.

    A trusted package may stand wherever a target of metarun may. Its first part must be in `trust`, and the named object must be *defined*
    in a trusted package: `mine.os.system` is defined in posix, so metarun refuses it. Inside of a node of a trusted package, nodes of
    trusted packages and of the same group may stand anywhere. metarun imports only packages that the user trusts.

    Raises UserError, before anything of the config runs.
    """
    for key, value in config.items():
        if key in ROOTS:
            _check(value, key, (key,), trust)
        else:
            for place, node in _nodes_below({key: value}, ()):
                raise UserError(_refusal(node[TARGET], place, trust, known=True))
    logger = config.get("logger")
    if isinstance(logger, Mapping) and _is_shipped(logger.get(TARGET), "logger"):
        for key in logger.keys() - groups()["logger"].keys:  # such as the folder, into which the logger writes
            if isinstance(logger[key], Mapping) and TARGET in logger[key]:
                continue
            raise UserError(f"the config in the checkpoint sets logger.{printable(key)}, which a checkpoint may not set; nothing was run.")


def config_folder() -> Traversable:
    """Return the folder of the shipped configs: the package `metarun.configs`, or `configs/` in a checkout that is not installed."""
    try:
        return importlib.resources.files("metarun.configs")
    except ModuleNotFoundError:
        return Path(__file__).resolve().parents[2] / "configs"


def _check(value: Any, group: str, place: Place, trust: Sequence[str]) -> None:
    """Check a value that stands where a node of the group may."""
    trusted = False
    if isinstance(value, Mapping) and TARGET in value:
        target = value[TARGET]
        trusted = not _is_shipped(target, group)
        if trusted and not _is_trusted(target, trust):
            raise UserError(_refusal(target, place, trust, known=False))
    places = groups()[group].places
    for path, node in _nodes_below(value, ()):
        inside = group if trusted else places.get(path) or places.get((*path[:-1], "*"))
        if inside is None:
            raise UserError(_refusal(node[TARGET], (*place, *path), trust, known=True))
        _check(node, inside, (*place, *path), trust)


def _nodes_below(value: Any, path: Place) -> Iterator[tuple[Place, Mapping[Any, Any]]]:
    """Yield the nodes with a `_target_` inside of a value, each with its path, but not the nodes inside of these."""
    named = value.items() if isinstance(value, Mapping) else enumerate(value) if isinstance(value, (list, tuple)) else ()
    for key, item in named:
        below = (*path, str(key))
        if isinstance(item, Mapping) and TARGET in item:
            yield below, item
        else:
            yield from _nodes_below(item, below)


def _place_of(entry: Any, group: str) -> dict[Place, str]:
    """Return the place that an entry of a defaults list fills, and the group from which it comes."""
    if isinstance(entry, str):  # `sinusoid@sources.sinusoid`: another option of this group
        _, at, package = entry.partition("@")
        return {(*package.split(".")[:-1], "*"): group} if at else {}
    (name,) = entry
    if name.startswith(("override ", "optional ")):
        return {}
    option, _, package = name.partition("@")
    if name.startswith("/"):  # `/backbone@backbone: timm`: an option of another group
        return {tuple(package.split(".")): option.removeprefix("/")} if package else {}
    # `update: sgd`: a group below this one
    return {tuple((package or option).split(".")): f"{group}/{option}"}


def _yaml_files(folder: Traversable, name: str = "") -> Iterator[tuple[str, Traversable]]:
    """Yield the files of the groups below a folder, each with the name of its group."""
    for entry in folder.iterdir():
        if entry.is_dir():
            yield from _yaml_files(entry, f"{name}/{entry.name}" if name else entry.name)
        elif name and entry.name.endswith((".yaml", ".yml")):
            yield name, entry


def _is_shipped(target: Any, group: str) -> bool:
    return isinstance(target, str) and target in groups()[group].targets


def _is_trusted(target: Any, trust: Sequence[str]) -> bool:
    root = target.split(".")[0] if is_dotted(target) else ""
    if root not in trust or root == "metarun":  # most of metarun is no building block, such as the functions that write files
        return False
    module = getattr(locate(target), "__module__", None)
    return isinstance(module, str) and module.split(".")[0] in trust


def _refusal(target: Any, place: Place, trust: Sequence[str], known: bool) -> str:
    """Return the sentence about a target. known: whether the place may hold no target at all, even where it is trusted."""
    named = f"the config in the checkpoint names {quoted(target)}"
    root = target.split(".")[0] if is_dotted(target) else ""
    if isinstance(target, str) and any(target in group.targets for group in groups().values()):
        return f"{named} in {printable('.'.join(place))}, which is no place for it; nothing was run."
    if not root or root == "metarun" or root in sys.stdlib_module_names:
        return f"{named}, which is no building block of metarun; nothing was run."
    if root not in trust:
        return f"{named}, which is not part of metarun; if you trust that code, add trust=[{root}]."
    if known:
        return f"{named} in {printable('.'.join(place))}, where no code may stand; nothing was run."
    return f"{named}, which is not defined in the trusted package '{root}'; nothing was run."


def quoted(value: Any) -> str:
    """Return a value of a stranger's config for a message, cut where it is long."""
    text = repr(value)
    return text if len(text) <= 100 else f"{text[:100]}…"
