"""Check and convert the values of a config by the annotations of the function that takes the values."""

from __future__ import annotations

import collections.abc
import dataclasses
import types
import typing
from collections.abc import Callable, Mapping
from pathlib import Path
from typing import Any, Literal, Union

from metarun.errors import UserError, nearest


class _MisfitError(Exception):
    """A value does not fit; the argument describes a value that would."""


def annotations_of(target: Callable[..., Any]) -> dict[str, Any]:
    """Return the resolved annotation of each argument, or {} if they cannot be resolved (names imported for typing only)."""
    holder: Any = target
    if isinstance(target, type) and not dataclasses.is_dataclass(target):
        holder = target.__init__  # type: ignore[misc]
    try:
        return typing.get_type_hints(holder)
    except Exception:
        return {}


def fit(value: Any, hint: Any, name: str) -> Any:
    """Return the value in the annotated type, or raise UserError "algo.inner_lr='abc' should be a float.".

    Checks bool, int, float, str, Path, None, Literal, and unions, lists, tuples and dictionaries of these. Others accept any value.
    Converts only without loss: 1 -> 1.0, 1e4 -> 10000, [1, 2] -> (1, 2), text -> Path.
    """
    try:
        return _fit(value, hint)
    except _MisfitError as misfit:
        text = repr(value) if isinstance(value, str) else _yaml_like(value)
        raise UserError(f"{name}={text} should be {misfit}.{_suggest(value, hint)}") from None


def _fit(value: Any, hint: Any) -> Any:
    origin, arguments = typing.get_origin(hint), typing.get_args(hint)
    if origin in (Union, types.UnionType):
        return _fit_union(value, arguments)
    if origin is Literal:
        if any(value == choice and type(value) is type(choice) for choice in arguments):
            return value
        raise _MisfitError("one of " + ", ".join(map(str, arguments)))
    if origin in (list, tuple, collections.abc.Sequence) or hint in (list, tuple):
        return _fit_sequence(value, origin or hint, arguments)
    if origin in (dict, collections.abc.Mapping) or hint is dict:
        return _fit_mapping(value, arguments)
    return _fit_scalar(value, hint)


def _fit_union(value: Any, choices: tuple[Any, ...]) -> Any:
    if any(type(value) is choice for choice in choices):
        return value
    wanted = []
    for choice in choices:
        try:
            return _fit(value, choice)
        except _MisfitError as misfit:
            wanted.append(str(misfit))
    raise _MisfitError(" or ".join(wanted))


def _fit_sequence(value: Any, kind: Any, arguments: tuple[Any, ...]) -> Any:
    if not isinstance(value, (list, tuple)):
        raise _MisfitError("a list")
    build = tuple if kind is tuple else list
    if not arguments:
        return build(value)
    if kind is tuple and arguments[-1] is not Ellipsis:
        if len(value) != len(arguments):
            raise _MisfitError(f"a list of {len(arguments)}")
        return tuple(_fit(item, hint) for item, hint in zip(value, arguments, strict=True))
    try:
        return build(_fit(item, arguments[0]) for item in value)
    except _MisfitError as misfit:
        raise _MisfitError(f"a list, each entry {misfit}") from None


def _fit_mapping(value: Any, arguments: tuple[Any, ...]) -> Any:
    if not isinstance(value, Mapping):
        raise _MisfitError("a mapping, such as {key: value}")
    return {key: _fit(item, arguments[1]) if arguments else item for key, item in value.items()}


def _fit_scalar(value: Any, hint: Any) -> Any:
    if hint is bool and not isinstance(value, bool):
        raise _MisfitError("true or false")
    if hint is int:
        return _fit_int(value)
    if hint is float:
        if isinstance(value, bool) or not isinstance(value, (int, float)):
            raise _MisfitError("a float")
        return float(value)
    if hint is str and not isinstance(value, str):
        raise _MisfitError("text (put it in quotes)" if isinstance(value, (int, float)) else "text")
    if hint is type(None) and value is not None:
        raise _MisfitError("null")
    if hint is Path:
        if not isinstance(value, (str, Path)):
            raise _MisfitError("a path")
        return Path(value)
    return value


def _fit_int(value: Any) -> int:
    if isinstance(value, int) and not isinstance(value, bool):
        return value
    if isinstance(value, float) and value.is_integer():
        return int(value)
    raise _MisfitError("an int")


def _yaml_like(value: Any) -> str:
    return {None: "null", True: "true", False: "false"}[value] if value is None or isinstance(value, bool) else str(value)


def _suggest(value: Any, hint: Any) -> str:
    literals = [hint, *typing.get_args(hint)]
    choices = [str(c) for literal in literals if typing.get_origin(literal) is Literal for c in typing.get_args(literal)]
    return nearest(value, choices) if isinstance(value, str) else ""
