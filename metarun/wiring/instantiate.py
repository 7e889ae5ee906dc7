"""Build an object from a config node: a dotted path and its keyword arguments.

A node is a plain dictionary with `_target_`. This module never interpolates, so a `${...}` in a checkpoint stays text. A config
from a file must pass `metarun.wiring.places.check_targets` first: `_target_` names code to run, and a file may name any code.
"""

from __future__ import annotations

import importlib
import importlib.machinery
import inspect
import os
import re
import sys
from collections.abc import Callable, Iterable, Mapping
from types import ModuleType
from typing import Any

from metarun.errors import UserError, nearest
from metarun.wiring.fitting import annotations_of, fit

TARGET = "_target_"


def instantiate(node: Mapping[str, Any], /, *, name: str = "config", **extra: Any) -> Any:
    """Call `node["_target_"]` with the other keys of the node, and with `extra`, as keyword arguments.

    Nodes inside the node, in dictionaries and lists, are instantiated first. name: the node's name, for messages ("algo").

    Raises UserError for a target that does not exist, an unknown or missing argument, or a value of the wrong type. Exceptions of the
    target itself pass through.
    """
    if TARGET not in node:
        raise UserError(f"{name} has no {TARGET}, so there is nothing to build.")
    return _call(node, name, extra)


def locate(path: str) -> Any:
    """Import and return the object at a dotted path: a module, or an attribute at any depth below a module."""
    if not is_dotted(path):
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


def is_dotted(path: Any) -> bool:
    """Return whether a value is a dotted path, such as "package.module.name"."""
    return isinstance(path, str) and all(part.isidentifier() for part in path.split("."))


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
        unknown = re.search(r"(?:unexpected|multiple values for) keyword argument '(\w+)'", str(error))
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
    for key in arguments:
        if key in extra:
            raise UserError(f"{name}.{key} is no key: metarun passes this argument to every {name} itself.")
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
        return _import_here(module)
    except ModuleNotFoundError as error:
        if error.name != module:  # the module exists, but a module that it imports does not
            raise UserError(f"{TARGET}={path}: importing '{module}' failed, because there is no module '{error.name}'.") from error
        if missing_ok:
            return None
        raise UserError(f"{TARGET}={path}: there is no module '{module}'; is its folder the current one, or on PYTHONPATH?") from error


def _import_here(module: str) -> ModuleType:
    """Import a module, from the current folder if it is nowhere else. Only then does Python search this folder, after all others."""
    try:
        return importlib.import_module(module)
    except ModuleNotFoundError as error:
        if error.name != module or "." in module or os.getcwd() in sys.path or not _lies_here(module):
            raise
        sys.path.append(os.getcwd())
        importlib.invalidate_caches()
        return importlib.import_module(module)


def _lies_here(module: str) -> bool:
    return importlib.machinery.PathFinder.find_spec(module, [os.getcwd()]) is not None


def _public(owner: Any) -> Iterable[str]:
    return (word for word in dir(owner) if not word.startswith("_"))
