"""Build an object from a config node: a dotted path and its keyword arguments.

A node is a plain dictionary with `_target_`. This module never interpolates, so a `${...}` in a checkpoint stays text. A config
from a file must pass `check_targets` first: `_target_` names code to run, and a file may name any code.
"""

from __future__ import annotations

import functools
import importlib
import importlib.resources
import inspect
import re
import sys
from collections.abc import Callable, Iterable, Iterator, Mapping, Sequence
from importlib.resources.abc import Traversable
from pathlib import Path
from types import ModuleType
from typing import Any

import yaml

from metarun.errors import UserError, nearest
from metarun.wiring.fitting import annotations_of, fit

TARGET = "_target_"


def instantiate(node: Mapping[str, Any], /, *, name: str = "config", trust: Sequence[str] | None = None, **extra: Any) -> Any:
    """Call `node["_target_"]` with the other keys of the node, and with `extra`, as keyword arguments.

    Nodes inside the node, in dictionaries and lists, are instantiated first. name: the node's name, for messages ("algo").
    trust: None for a config that the user typed. For a config from a file, the packages besides metarun whose code the config may
    name (see `check_targets`).

    Raises UserError for a target that does not exist, an unknown or missing argument, or a value of the wrong type. Exceptions of the
    target itself pass through.
    """
    if trust is not None:
        check_targets(node, trust)
    if TARGET not in node:
        raise UserError(f"{name} has no {TARGET}, so there is nothing to build.")
    return _call(node, name, extra)


def locate(path: str) -> Any:
    """Import and return the object at a dotted path: a module, or an attribute at any depth below a module."""
    if not _is_dotted(path):
        raise UserError(f"{TARGET}={path!r} is not a dotted path such as package.module.name.")
    parts = path.split(".")
    named: Any = _import(parts[0], path)
    for depth, part in enumerate(parts[1:], start=2):
        if isinstance(named, ModuleType) and not hasattr(named, part) and hasattr(named, "__path__"):
            _import(".".join(parts[:depth]), path, missing_ok=True)
        if not hasattr(named, part):
            kind = "module" if isinstance(named, ModuleType) else "object"
            where = ".".join(parts[: depth - 1])
            raise UserError(f"{TARGET}={path}: the {kind} '{where}' has no '{part}'.{nearest(part, _public(named))}")
        named = getattr(named, part)
    return named


def check_targets(config: Any, trust: Sequence[str] = ()) -> None:
    """Refuse a config that names code outside metarun's building blocks and the packages that the user trusts.

    Every `_target_`, at any depth, must equal a `_target_` of the shipped configs. Otherwise its first part must be in `trust`, and the
    named object must be *defined* in a trusted package: `mine.os.system` is defined in posix, so metarun refuses this target.
    metarun imports only packages that the user trusts.
    """
    for target in _targets(config):
        if not (isinstance(target, str) and (target in shipped_targets() or _is_trusted(target, trust))):
            raise UserError(_refusal(target, trust))


@functools.cache
def shipped_targets() -> frozenset[str]:
    """Return every `_target_` in the YAML files that metarun ships."""
    nodes = [yaml.safe_load(file.read_text(encoding="utf-8")) for file in _yaml_files(config_folder())]
    return frozenset(target for node in nodes for target in _targets(node) if isinstance(target, str))


def config_folder() -> Traversable:
    """Return the folder of the shipped configs: the package `metarun.configs`, or `configs/` in a checkout that is not installed."""
    try:
        return importlib.resources.files("metarun.configs")
    except ModuleNotFoundError:
        return Path(__file__).resolve().parents[2] / "configs"


def _call(node: Mapping[str, Any], name: str, extra: Mapping[str, Any]) -> Any:
    path = node[TARGET]
    target = locate(path)
    if not callable(target):
        raise UserError(f"{name}.{TARGET}={path} is a {type(target).__name__}, which cannot be called.")
    arguments = {key: _build(value, f"{name}.{key}") for key, value in node.items() if key != TARGET}
    _check_arguments(target, path, name, arguments, extra)
    hints = annotations_of(target)
    fitted = {key: fit(value, hints[key], f"{name}.{key}") if key in hints else value for key, value in arguments.items()}
    try:
        return target(**{**fitted, **extra})
    except TypeError as error:  # a function of `**options` passes them on, and only the last function rejects an unknown one
        unknown = re.search(r"unexpected keyword argument '(\w+)'", str(error))
        if unknown is None or unknown[1] not in arguments:
            raise
        raise UserError(f"{name}.{unknown[1]} is not an argument of {path}.") from error


def _build(value: Any, name: str) -> Any:
    if isinstance(value, Mapping):
        return _call(value, name, {}) if TARGET in value else {key: _build(item, f"{name}.{key}") for key, item in value.items()}
    if isinstance(value, list):
        return [_build(item, f"{name}[{i}]") for i, item in enumerate(value)]
    return value


def _check_arguments(target: Callable[..., Any], path: str, name: str, arguments: Mapping[str, Any], extra: Mapping[str, Any]) -> None:
    try:
        parameters = inspect.signature(target).parameters
    except (TypeError, ValueError):  # some functions written in C have no signature
        return
    named = {key: p for key, p in parameters.items() if p.kind in (p.POSITIONAL_OR_KEYWORD, p.KEYWORD_ONLY)}
    if not any(p.kind is p.VAR_KEYWORD for p in parameters.values()):
        for key in arguments:
            if key not in named:
                raise UserError(f"{name}.{key} is not an argument of {path}.{nearest(str(key), set(named) - set(extra))}")
        for key in extra:
            if key not in named:
                raise UserError(f"{path} does not take the argument '{key}', which metarun passes to every {name}.")
    for key, parameter in named.items():
        if parameter.default is parameter.empty and key not in arguments and key not in extra:
            raise UserError(f"{name}.{key} is missing; {path} needs it.")


def _import(module: str, path: str, missing_ok: bool = False) -> ModuleType | None:
    try:
        return importlib.import_module(module)
    except ModuleNotFoundError as error:
        if error.name != module:  # the module exists, but a module that it imports does not
            raise UserError(f"{TARGET}={path}: importing '{module}' failed, because there is no module '{error.name}'.") from error
        if missing_ok:
            return None
        raise UserError(f"{TARGET}={path}: there is no module '{module}'; is its folder the current one, or on PYTHONPATH?") from error


def _public(owner: Any) -> Iterable[str]:
    return (word for word in dir(owner) if not word.startswith("_"))


def _targets(node: Any) -> Iterator[Any]:
    pending = [node]
    while pending:
        item = pending.pop()
        if isinstance(item, Mapping):
            if TARGET in item:
                yield item[TARGET]
            pending.extend(item.values())
        elif isinstance(item, (list, tuple)):
            pending.extend(item)


def _yaml_files(folder: Traversable) -> Iterator[Traversable]:
    for entry in folder.iterdir():
        if entry.is_dir():
            yield from _yaml_files(entry)
        elif entry.name.endswith((".yaml", ".yml")):
            yield entry


def _is_dotted(path: Any) -> bool:
    return isinstance(path, str) and all(part.isidentifier() for part in path.split("."))


def _is_trusted(target: str, trust: Sequence[str]) -> bool:
    if not _is_dotted(target) or target.split(".")[0] not in trust:
        return False
    module = getattr(locate(target), "__module__", None)
    return isinstance(module, str) and module.split(".")[0] in trust


def _refusal(target: Any, trust: Sequence[str]) -> str:
    root = target.split(".")[0] if _is_dotted(target) else ""
    if not root or root == "metarun" or root in sys.stdlib_module_names:
        return f"the config in the checkpoint names {target!r}, which is no building block of metarun; nothing was run."
    if root in trust:
        return f"the config in the checkpoint names {target!r}, which is not defined in the trusted package '{root}'; nothing was run."
    return f"the config in the checkpoint names {target!r}, which is not part of metarun; if you trust that code, add trust=[{root}]."
