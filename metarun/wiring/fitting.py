"""Check and convert the values of a config by the annotations of the function that takes the values."""

from __future__ import annotations

import collections.abc
import dataclasses
import functools
import inspect
import math
import types
import typing
from collections.abc import Callable, Iterator, Mapping
from pathlib import Path
from typing import Annotated, Any, Literal, Union

from metarun.errors import UserError, nearest
from metarun.values import Built, Form, Keys, Length, Range

MARKS = (Range, Length, Form, Built)
"""The marks of an annotation that describe a value; marks of other packages have no effect."""

LONGEST = 60
"""Letters of a value that a message shows."""


class _MisfitError(Exception):
    """A value does not fit. words: a value that would. path: where in the value the misfit is, such as ".line"; value: the value there."""

    def __init__(self, words: str, path: str = "", value: Any = None) -> None:
        super().__init__(words)
        self.words, self.path, self.value = words, path, value


def annotations_of(target: Callable[..., Any]) -> dict[str, Any]:
    """Return the resolved annotation of each argument, or {} if they cannot be resolved (names imported for typing only).

    The arguments that `**options` with the mark `Keys` passes on have the annotations of the class that the mark names.
    """
    return dict(_read(target)[0])


def passes_known_keys(target: Callable[..., Any]) -> bool:
    """Return whether a function takes `**options` with the mark `Keys`, so that it takes no key without an annotation."""
    return _read(target)[1]


def _read(target: Callable[..., Any]) -> tuple[dict[str, Any], bool]:
    try:
        return _read_once(target)
    except TypeError:  # an object without a hash
        return _read_once.__wrapped__(target)


@functools.cache
def _read_once(target: Callable[..., Any]) -> tuple[dict[str, Any], bool]:
    holder: Any = target
    if isinstance(target, type) and not dataclasses.is_dataclass(target) and not typing.is_typeddict(target):
        holder = target.__init__  # type: ignore[misc]
    try:
        hints = typing.get_type_hints(holder, include_extras=True)
    except Exception:
        return {}, False
    hints.pop("return", None)
    try:
        parameters = inspect.signature(target).parameters.values()
    except (TypeError, ValueError):  # some functions written in C have no signature
        return hints, False
    for parameter in parameters:
        marks = _marks(hints.get(parameter.name), Keys) if parameter.kind is parameter.VAR_KEYWORD else []
        if marks:
            del hints[parameter.name]
            return {**keys_of(marks[0]), **hints}, True
    return hints, False


def keys_of(mark: Keys) -> dict[str, Any]:
    """Return the annotations of the keys that a mark stands for."""
    return {name: hint for name, hint in annotations_of(mark.holder).items() if name not in mark.hidden}


def fit(value: Any, hint: Any, name: str) -> Any:
    """Return the value in the annotated type, or raise UserError "algo.inner_lr=-1 should be a number of at least 0.".

    Checks bool, int, float, str, Path, None, Literal, and unions, lists, tuples and dictionaries of these, with the marks of
    `metarun.values`. Other annotations accept any value. A plain float may be infinite, but never NaN.
    Converts only without loss: 1 -> 1.0, 1e4 -> 10000, [1, 2] -> (1, 2), text -> Path.
    """
    try:
        return _fit(value, hint)
    except _MisfitError as misfit:
        wrong = misfit.value if misfit.path else value
        words = misfit.words if misfit.words.startswith("is no key") else f"should be {misfit.words}"
        raise UserError(f"{name}{misfit.path}={shown(wrong)} {words}.{_suggest(wrong, hint)}") from None


def fit_keys(config: Mapping[str, Any], hints: Mapping[str, Any], prefix: str = "") -> dict[str, Any]:
    """Return the config with those keys fitted that `hints` annotates; the other keys stay as they are. prefix: of the keys in messages."""
    return {**config, **{key: fit(config[key], hint, f"{prefix}{key}") for key, hint in hints.items() if key in config}}


def shown(value: Any) -> str:
    """Return a value for a message: as YAML has it, on one line, and cut where it is long."""
    if value is None or isinstance(value, bool):
        return {None: "null", True: "true", False: "false"}[value]
    try:
        text = repr(value) if isinstance(value, (str, list, tuple, dict)) else str(value)
    except ValueError:  # Python refuses to print an integer of thousands of digits
        text = "a number of thousands of digits"
    text = " ".join(text.split())
    return text if len(text) <= LONGEST else f"{text[: LONGEST - 1]}…"


def _fit(value: Any, hint: Any) -> Any:
    origin, arguments = typing.get_origin(hint), typing.get_args(hint)
    if origin is Annotated:
        return _fit_marked(value, *arguments)
    if origin in (Union, types.UnionType):
        return _fit_union(value, arguments)
    if origin is Literal:
        if any(value == choice and type(value) is type(choice) for choice in arguments):
            return value
        choices = [shown(choice) if isinstance(choice, bool) else str(choice) for choice in arguments]
        raise _MisfitError(f"one of {', '.join(choices)}" if len(choices) > 1 else choices[0])
    if origin in (list, tuple, collections.abc.Sequence) or hint in (list, tuple):
        return _fit_sequence(value, origin or hint, arguments)
    if origin in (dict, collections.abc.Mapping) or hint is dict:
        return _fit_mapping(value, arguments)
    return _fit_scalar(value, hint)


def _fit_marked(value: Any, kind: Any, *marks: Any) -> Any:
    """Fit a value to an annotated type: to the type, and then to each of its marks."""
    known = [mark for mark in marks if isinstance(mark, MARKS)]
    try:
        fitted = _fit(value, kind)
    except _MisfitError:
        if known and kind in (int, float, str):
            raise _MisfitError(known[0].described(kind, value)) from None
        raise
    for mark in known:
        if not mark.holds(fitted):
            raise _MisfitError(mark.described(kind, fitted))
    for mark in marks:
        if isinstance(mark, Keys) and isinstance(fitted, Mapping):
            fitted = _fit_marked_keys(fitted, mark)
    return fitted


def _fit_marked_keys(value: Mapping[str, Any], mark: Keys) -> dict[str, Any]:
    known = keys_of(mark)
    for key in value:
        if mark.closed and key not in known:
            raise _MisfitError(f"is no key; the keys are {', '.join(known)}", f".{key}", value[key])
    return {key: _within(item, known[key], f".{key}") if key in known else item for key, item in value.items()}


def _fit_union(value: Any, choices: tuple[Any, ...]) -> Any:
    same = [choice for choice in choices if type(value) is _base(choice)]
    wanted, deepest = [], None
    for choice in (*same, *(choice for choice in choices if choice not in same)):
        try:
            return _fit(value, choice)
        except _MisfitError as misfit:
            if misfit.path:
                deepest = misfit
            wanted.append((choices.index(choice), misfit.words))
    if deepest is not None:
        raise deepest
    raise _MisfitError(" or ".join(words for _, words in sorted(wanted)))


def _fit_sequence(value: Any, kind: Any, arguments: tuple[Any, ...]) -> Any:
    if not isinstance(value, (list, tuple)):
        raise _MisfitError(f"a list{_of_each(kind, arguments)}")
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
        raise _MisfitError(f"a list, each entry {misfit.words}") from None


def _of_each(kind: Any, arguments: tuple[Any, ...]) -> str:
    return f" of {len(arguments)}" if kind is tuple and arguments and arguments[-1] is not Ellipsis else ""


def _fit_mapping(value: Any, arguments: tuple[Any, ...]) -> Any:
    if not isinstance(value, Mapping):
        raise _MisfitError("a mapping, such as {key: value}")
    return {key: _within(item, arguments[1], f".{key}") if arguments else item for key, item in value.items()}


def _within(value: Any, hint: Any, path: str) -> Any:
    """Fit an entry of a mapping; a misfit says where it is."""
    try:
        return _fit(value, hint)
    except _MisfitError as misfit:
        raise _MisfitError(misfit.words, path + misfit.path, misfit.value if misfit.path else value) from None


def _fit_scalar(value: Any, hint: Any) -> Any:
    if hint is bool and not isinstance(value, bool):
        raise _MisfitError("true or false")
    if hint is int:
        return _fit_int(value)
    if hint is float:
        if isinstance(value, bool) or not isinstance(value, (int, float)) or math.isnan(number := _as_float(value)):
            raise _MisfitError("a number")
        return number
    if hint is str and not isinstance(value, str):
        raise _MisfitError("text (put it in quotes)" if isinstance(value, (int, float)) else "text")
    if hint is type(None) and value is not None:
        raise _MisfitError("null")
    if hint is Path:
        if not isinstance(value, (str, Path)):
            raise _MisfitError("a path")
        return Path(value)
    return value


def _as_float(value: float) -> float:
    try:
        return float(value)
    except OverflowError:
        return math.inf if value > 0 else -math.inf


def _fit_int(value: Any) -> int:
    if isinstance(value, int) and not isinstance(value, bool):
        return value
    if isinstance(value, float) and value.is_integer():
        return int(value)
    raise _MisfitError("a whole number")


def _base(hint: Any) -> Any:
    """Return an annotation without its marks."""
    return typing.get_args(hint)[0] if typing.get_origin(hint) is Annotated else hint


def _marks(hint: Any, kind: type) -> list[Any]:
    return [mark for mark in typing.get_args(hint)[1:] if isinstance(mark, kind)] if typing.get_origin(hint) is Annotated else []


def _literals(hint: Any) -> Iterator[Any]:
    """Yield the choices of every Literal inside an annotation."""
    if typing.get_origin(hint) is Literal:
        yield from typing.get_args(hint)
    else:
        for argument in typing.get_args(hint):
            yield from _literals(argument)


def _suggest(value: Any, hint: Any) -> str:
    return nearest(value, [str(choice) for choice in _literals(hint)]) if isinstance(value, str) else ""
