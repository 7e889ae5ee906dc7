"""The columns of a table: words as numbers of a list, numbers as float64. Errors name the line, the column and the value."""

from __future__ import annotations

import logging
import math
import re
from array import array
from collections.abc import Collection, Iterator, Mapping, Sequence
from dataclasses import dataclass
from itertools import islice
from typing import Literal, NamedTuple

import numpy as np

from metarun.errors import UserError, printable
from metarun.tasks.tables.csv_file import CsvFile

log = logging.getLogger(__name__)

Decimal = Literal["point", "comma", ".", ","]

MISSING = ("", "na", "n/a", "nan", "null", "none", "?")
"""Words, in lower case, that stand for a missing number. In a column of words, only an empty field is missing."""

_BLOCK = 256
"""Rows that are converted together; with more rows, Python's garbage collector takes most of the time."""

_PLAIN = re.compile(r"[0-9+\-.eE \t\n]*")
"""Texts of these characters are numbers where `float` reads them; other texts could be `nan`, `1_0` or digits of other scripts."""

_NUMBER = re.compile(r"[+-]?([0-9]+(\.[0-9]*)?|\.[0-9]+)([eE][+-]?[0-9]+)?")
_COMMA = re.compile(r"[+-]?([0-9]+,[0-9]*|,[0-9]+)([eE][+-]?[0-9]+)?")
_SURE_COMMA = re.compile(r"[+-]?(0,[0-9]+|[0-9]{4,},[0-9]+|[0-9]*,([0-9]{0,2}|[0-9]{4,}))([eE][+-]?[0-9]+)?")
"""A number with a decimal comma that has no reading with a comma between thousands."""

_JUMP, _NOTABLE = 1e6, 1e3
"""metarun refuses a value that is more than `_JUMP` times as far from the median as the next nearer one, and warns above
`_NOTABLE`. Honest tails are denser: the largest of n values of a Cauchy or a Pareto(1) distribution is a million times as large as the
second one with a probability of 1e-6, whatever n is."""


@dataclass(frozen=True)
class Words:
    """A column of words. codes: (M,) the place of each row's word in `known`, which has the words in the order of their first rows."""

    codes: np.ndarray
    known: list[str]


@dataclass(frozen=True)
class Columns:
    """Columns of a table, all of M rows. lines: (M,) the line of each row in the file. A missing number is NaN, a missing word is ""."""

    path: str
    lines: np.ndarray
    words: dict[str, Words]
    numbers: dict[str, np.ndarray]


class _DecimalCommaError(Exception):
    """A number has a decimal comma."""


def read_columns(
    file: CsvFile, words: Mapping[str, str], numbers: Mapping[str, str], decimal: str | None = None, may_miss: Collection[str] = ()
) -> Columns:
    """Read columns by their names.

    words, numbers: the columns of words and of numbers, with "task", "feature" or "target" for messages.
    decimal: "point", "comma" or the character; None takes the point, or the comma where numbers have one and none has a point.
    may_miss: the columns whose fields may lack a value.
    Raises UserError for another field that lacks a value, for one that is no finite number, and where decimal commas could be commas
    between thousands.
    """
    if decimal is not None:
        decimal = {"point": ".", "comma": ","}.get(decimal, decimal) if isinstance(decimal, str) else ""
        if decimal not in (".", ","):
            raise UserError("task.decimal must be point or comma.")
    try:
        return _read(file, words, numbers, decimal or ".", decimal is None, may_miss)
    except _DecimalCommaError:
        return _read(file, words, numbers, ",", True, may_miss)


def check_range(values: np.ndarray, lines: np.ndarray, column: str, role: str, path: str) -> None:
    """Raise UserError for a value beside which all others are equal; warn of a value that comes near it.

    values: (M,) of all rows. lines: (M,) their lines in the file.
    """
    with np.errstate(over="ignore"):
        median = np.median(values)
        distances = np.abs(values - median)
        ordered = np.sort(distances[distances > 0])
        upper = ordered[max(0, (len(ordered) + 1) // 2 - 1) :]  # at most half of the distances may lie above a jump
        if len(ordered) < 2 or len(upper) < 2:
            return
        jumps = upper[1:] / upper[:-1]
    far = int(distances.argmax())
    where = f"line {lines[far]} of {path} has {values[far]:.6g} in the {role} column '{printable(column)}'"
    jump = float(jumps.max())
    if jump > _JUMP:
        raise UserError(
            f"{where}, while half of the values lie within {np.median(distances):.3g} of {median:.6g}; beside this value, all "
            "others would become equal. Correct it, remove the row, or take logarithms."
        )
    if jump > _NOTABLE:
        log.warning("%s, which is %.0f times as far from the median as the next value; is it right?", where, jump)


def _read(
    file: CsvFile, words: Mapping[str, str], numbers: Mapping[str, str], decimal: str, unsure: bool, may_miss: Collection[str]
) -> Columns:
    place = {name: place for place, name in enumerate(file.header)}
    codes, known = {name: array("q") for name in words}, {name: dict[str, int]() for name in words}
    values, lines = {name: array("d") for name in numbers}, array("q")
    comma = _Commas(unsure and decimal == ",")
    for starts, fields in _blocks(file):
        lines.extend(starts)
        for name, role in words.items():
            named = [text.strip() for text in fields[place[name]]]
            if "" in named and name not in may_miss:
                raise _missing(file, starts[named.index("")], name, "", role)
            seen = known[name]
            codes[name].extend([seen.setdefault(text, len(seen)) for text in named])
        for name, role in numbers.items():
            texts = comma.with_points(file, starts, fields[place[name]], name) if decimal == "," else fields[place[name]]
            read = _Field(file, name, role, unsure and decimal == ".", name in may_miss)
            values[name].extend(_floats(starts, texts, read))
    if not lines:
        raise UserError(f"task.path={file.path} has no rows below its header line.")
    comma.check(file)
    arrays = {name: np.frombuffer(column, dtype=np.float64) for name, column in values.items()}
    coded = {name: Words(np.frombuffer(codes[name], dtype=np.int64), list(known[name])) for name in words}
    return Columns(file.path, np.frombuffer(lines, dtype=np.int64), coded, arrays)


def _blocks(file: CsvFile) -> Iterator[tuple[tuple[int, ...], list[tuple[str, ...]]]]:
    """Yield the lines and the columns of some rows at a time."""
    rows = file.rows()
    while block := list(islice(rows, _BLOCK)):
        lines, fields = zip(*block, strict=True)
        yield lines, list(zip(*fields, strict=True))


class _Field(NamedTuple):
    """A column of numbers that is being read.

    look_for_commas: whether a decimal comma ends the reading, as the file may have commas in all columns. may_miss: whether a field may
    lack a value.
    """

    file: CsvFile
    column: str
    role: str
    look_for_commas: bool
    may_miss: bool


def _floats(lines: Sequence[int], texts: Sequence[str], field: _Field) -> list[float]:
    if _PLAIN.fullmatch("\n".join(texts)):
        try:
            values = list(map(float, texts))
        except ValueError:
            pass
        else:
            if np.isfinite(values).all():
                return values
    return [_number(line, text.strip(), field) for line, text in zip(lines, texts, strict=True)]


def _number(line: int, text: str, field: _Field) -> float:
    file, column, role = field[:3]
    if text.lower() in MISSING:
        if field.may_miss:
            return math.nan
        raise _missing(file, line, column, text, role)
    if _NUMBER.fullmatch(text):
        if np.isfinite(value := float(text)):
            return value
        raise UserError(f"line {line} of {file.path} has {text} in the {role} column '{printable(column)}', which is too large.")
    if field.look_for_commas and _COMMA.fullmatch(text):
        raise _DecimalCommaError
    remedy = _NOT_A_NUMBER.get(role, "use a numeric target")
    shown = printable(text if len(text) <= 60 else text[:60] + "…")
    where = f"line {line} of {file.path} has '{shown}' in the {role} column '{printable(column)}'"
    raise UserError(f"{where}, which is not a number; correct it, {remedy}.")


_NOT_A_NUMBER = {
    "feature": "name it in task.categorical, or leave it out of task.features",
    "rating": "or name another column with task.rating",
}

_REMEDIES = {
    "feature": ", or set task.missing=mean (median, zero) to fill missing inputs, or task.missing=drop to leave such rows out",
    "target": ", or leave rows without a target out with task.missing_target=drop",
}


def _missing(file: CsvFile, line: int, column: str, text: str, role: str) -> UserError:
    shown = f" ('{text}')" if text else ""
    remedy = f"fill it in or remove the row{_REMEDIES.get(role, '')}"
    return UserError(f"line {line} of {file.path} has no value{shown} in column '{printable(column)}'; {remedy}.")


class _Commas:
    """Turns decimal commas into points, and keeps the first one that could stand between thousands."""

    def __init__(self, unsure: bool) -> None:
        self._unsure, self._first = unsure, ""

    def with_points(self, file: CsvFile, lines: Sequence[int], texts: Sequence[str], column: str) -> Sequence[str]:
        """Return the texts with points; UserError for a number that has a point already."""
        for line, text in zip(lines, texts, strict=True):
            if "." in text and _NUMBER.fullmatch(text.strip()):
                raise UserError(
                    f"line {line} of {file.path} has '{printable(text.strip())}' in column '{printable(column)}', but the decimal sign is "
                    "a comma; use one sign in the whole file, and no sign between thousands."
                )
            if self._unsure and "," in text:
                self._first = self._first or text.strip()
                self._unsure = not _SURE_COMMA.fullmatch(text.strip())
        return [text.replace(",", ".") if _COMMA.fullmatch(text.strip()) else text for text in texts]

    def check(self, file: CsvFile) -> None:
        """Raise UserError where each comma could stand between thousands."""
        if self._unsure and self._first:
            raise UserError(
                f"{file.path} has numbers such as {printable(self._first)}, whose comma is a decimal sign or stands between thousands; "
                "set task.decimal=comma, or remove the commas."
            )
