"""The members of a user's algorithm class: all that metarun calls are there, and no optional one has a misspelt name.

metarun ignores members that it does not know, so a misspelt optional member would do nothing, and nobody would notice.
"""

from __future__ import annotations

import dataclasses
import inspect
from collections.abc import Iterable, Iterator
from typing import Any

from metarun.errors import UserError, nearest
from metarun.types import OPTIONAL_MEMBERS, Algorithm, Learner, Traits, WithStream


def _methods(protocols: Iterable[type]) -> dict[str, int]:
    """Return the methods that the Protocols describe, with the number of arguments that metarun passes."""
    methods = {}
    for protocol in protocols:
        for name, member in vars(protocol).items():
            if inspect.isfunction(member) and not name.startswith("_"):
                methods[name] = len(inspect.signature(member).parameters) - 1
    return methods


REQUIRED = _methods((Learner, Algorithm))
OPTIONAL = _methods(OPTIONAL_MEMBERS)
STREAM = tuple(_methods((WithStream,)))
TRAITS = tuple(field.name for field in dataclasses.fields(Traits))


def check_members(kind: type) -> None:
    """Refuse a class that lacks a member of an algorithm, or has one that is probably meant to be an optional member.

    Helper methods with names of their own are welcome; a name that begins with an underscore is never refused.

    Raises UserError with the nearest name.
    """
    own = dict(_public(kind))
    for name in REQUIRED:
        if not callable(getattr(kind, name, None)):
            raise UserError(
                f"algo {kind.__name__} has no method `{name}`, which every algorithm needs.{nearest(name, set(own) - set(REQUIRED))}"
            )
    if not isinstance(getattr(kind, "traits", Traits()), Traits):
        raise UserError(f"algo {kind.__name__}: `traits` must be a metarun.types.Traits.")
    for name in _optional(kind):
        if hasattr(kind, name) and not callable(getattr(kind, name)):
            raise UserError(f"algo {kind.__name__}: `{name}` is the name of an optional method; give this member another name.")
    for name, member in own.items():
        _check_name(kind, name, member)
    missing = [name for name in STREAM if not hasattr(kind, name)]
    if len(missing) == 1:
        raise UserError(
            f"algo {kind.__name__} has no method `{missing[0]}`; an algorithm that learns from a stream has all of {', '.join(STREAM)}."
        )


def _optional(kind: type) -> list[str]:
    """Return the optional members that the class may have. One or two of the common words in `STREAM` are names of its own."""
    streams = sum(callable(getattr(kind, name, None)) for name in STREAM) > 2
    return [name for name in OPTIONAL if streams or name not in STREAM]


def _check_name(kind: type, name: str, member: Any) -> None:
    """Refuse a member that is a trait in the old form, or a misspelt optional member."""
    if name in TRAITS and not inspect.isroutine(member):
        raise UserError(
            f"algo {kind.__name__}: metarun reads `{name}` from the traits of an algorithm; "
            f"write `traits: ClassVar[Traits] = Traits({name}=…)`."
        )
    for known in (*_optional(kind), "traits"):
        if not hasattr(kind, known) and _is_misspelt(name, known, member):
            raise UserError(
                f"algo {kind.__name__} has a member `{name}`, which metarun does not know. Did you mean '{known}'? "
                "If not, begin its name with an underscore."
            )


def _is_misspelt(name: str, known: str, member: Any) -> bool:
    """Return whether a member is probably meant to be the optional member `known`.

    A method counts only if metarun could call it as it calls `known`; a helper such as `sample(self, key)` has other arguments.
    """
    if known == "traits":
        return isinstance(member, Traits) or (not inspect.isroutine(member) and _edits(name, known) <= 1)
    if not inspect.isroutine(member) or _edits(name, known) > (1 if len(known) < 8 else 2):
        return False
    try:
        inspect.signature(member).bind(*[None] * (OPTIONAL[known] + 1))  # and self
    except TypeError:
        return False
    return True


def _public(kind: type) -> Iterator[tuple[str, Any]]:
    """Yield the public members that are no field of a dataclass: a field is a hyperparameter, and its name is a key of the YAML file."""
    fields = {field.name for field in dataclasses.fields(kind)} if dataclasses.is_dataclass(kind) else set()
    for name in dir(kind):
        if not name.startswith("_") and name not in fields:
            member = inspect.getattr_static(kind, name)
            yield name, member.__func__ if isinstance(member, (staticmethod, classmethod)) else member


def _edits(word: str, other: str) -> int:
    """Return the number of letters to insert, delete, replace, or swap with their neighbour (restricted Damerau-Levenshtein distance)."""
    rows = [list(range(len(other) + 1))]
    for i, letter in enumerate(word, start=1):
        row = [i]
        for j, target in enumerate(other, start=1):
            cost = min(rows[-1][j] + 1, row[-1] + 1, rows[-1][j - 1] + (letter != target))
            if i > 1 and j > 1 and letter == other[j - 2] and word[i - 2] == target:
                cost = min(cost, rows[-2][j - 2] + 1)
            row.append(cost)
        rows.append(row)
    return rows[-1][-1]
