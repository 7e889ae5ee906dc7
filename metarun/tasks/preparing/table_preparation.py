"""The preparation of the rows of a table: the columns, the words of each column of words, and the means and deviations of the training."""

from __future__ import annotations

import math
from collections.abc import Mapping, Sequence
from dataclasses import dataclass
from typing import Any, ClassVar, Protocol

import numpy as np
import torch
from torch import Tensor

from metarun.errors import UserError, nearest, printable
from metarun.tasks.tables.columns import MISSING, Columns
from metarun.tasks.tables.missing import NO_FILL, Fill, stored_fill
from metarun.tasks.tables.raw_numbers import rows_of

MOST_COLUMNS = 1_000_000
"""Most inputs of a row."""


class Standardised(Protocol):
    """Means and standard deviations of columns, (D,) each, in double precision."""

    @property
    def mean(self) -> Tensor: ...

    @property
    def std(self) -> Tensor: ...


@dataclass(frozen=True)
class TablePreparation:
    """Turns raw rows into the standardised inputs and targets of a table, and outputs back into the unit of the targets.

    features: the input columns. words: for a column of words, its words in the training tasks; each is one 0/1 input.
    means, deviations: of the D inputs, over the training rows. targets_named: the target columns. target_means, target_deviations: theirs.
    fill: how missing inputs are filled; its flags are the last inputs.
    """

    features: tuple[str, ...]
    words: Mapping[str, tuple[str, ...]]
    means: tuple[float, ...]
    deviations: tuple[float, ...]
    targets_named: tuple[str, ...]
    target_means: tuple[float, ...]
    target_deviations: tuple[float, ...]
    fill: Fill = NO_FILL
    kind: ClassVar[str] = "table"

    @property
    def shape(self) -> tuple[int]:
        """The shape of one input."""
        return (len(self.means),)

    def inputs(self, x: Any) -> Tensor:
        """Return raw rows as the table deals them, float32 (B, D).

        x: columns by name (a mapping or a data frame), rows that are mappings, or an array or lists (B, features) in this order.
        For a word that no training task has, all inputs of the column are 0.
        Raises UserError for a missing column, for a value that is no number, and for a missing value where the table had no rule for it.
        """
        columns = _columns_of(x, self.features)
        parts = [part for name in self.features for part in self._inputs_of(name, columns[name])]
        parts += [_numbers(columns[name], name, may_miss=True).isnan().double() for name in self.fill.flags]
        raw = torch.stack(parts, dim=1)
        values = ((raw - _double(self.means)) / _double(self.deviations)).to(torch.float32)
        if not values.isfinite().all():
            row = int((~values.isfinite()).any(dim=1).nonzero()[0])
            raise UserError(f"row {row} has a value that is too large compared with the training; correct it.")
        return values

    def targets(self, y: Any) -> Tensor:
        """Return raw targets as the table deals them, float32 (B, D).

        y: (B,) or (B, D) numbers in the order of `targets_named`, or the target columns by name.
        """
        if _by_name(y):
            columns = _columns_of(y, self.targets_named)
            raw = torch.stack([_numbers(columns[name], name) for name in self.targets_named], dim=1)
        else:
            raw = rows_of(y, len(self.targets_named))
        return ((raw - _double(self.target_means)) / _double(self.target_deviations)).to(torch.float32)

    def in_units(self, y: Tensor) -> Tensor:
        """Return standardised targets (..., D) in their own units, float64."""
        return y.double().cpu() * _double(self.target_deviations) + _double(self.target_means)

    def stored(self) -> dict[str, Any]:
        """Return the plain values."""
        plain: dict[str, Any] = {name: list(getattr(self, name)) for name in _LISTS}
        fill = {"missing": self.fill.rule, "fills": dict(self.fill.values), "flags": list(self.fill.flags)}
        return {"kind": self.kind, **plain, "words": {name: list(words) for name, words in self.words.items()}, **fill}

    def _inputs_of(self, name: str, values: Sequence[Any]) -> list[Tensor]:
        """Return the raw inputs of a column, (B,) each."""
        if name not in self.words:
            numbers = _numbers(values, name, may_miss=self.fill.fills)
            return [numbers.nan_to_num(self.fill.values[name]) if self.fill.fills else numbers]
        texts = ["" if not isinstance(value, str) and _is_missing(value) else str(value).strip() for value in values]
        if "" in texts and not self.fill.fills:
            raise UserError(f"row {texts.index('')} has no value in column '{printable(name)}'; fill it in or leave the row out.")
        return [torch.tensor([text == word for text in texts], dtype=torch.float64) for word in self.words[name]]


_LISTS = ("features", "means", "deviations", "targets_named", "target_means", "target_deviations")


def prepared(
    columns: Columns, train: np.ndarray, names: tuple[Sequence[str], Sequence[str]], standards: Sequence[Standardised], fill: Fill
) -> TablePreparation:
    """Return the preparation of a table that has been read.

    train: (M,) bool, the rows of training tasks. names: the features and the targets. standards: of both. fill: of the features.
    """
    words = {}
    for name in names[0]:
        if name in columns.words:
            column = columns.words[name]
            words[name] = tuple(sorted(column.known[code] for code in np.unique(column.codes[train]).tolist()))
    (means, deviations), (target_means, target_deviations) = ((tuple(each.mean.tolist()), tuple(each.std.tolist())) for each in standards)
    return TablePreparation(tuple(names[0]), words, means, deviations, tuple(names[1]), target_means, target_deviations, fill)


def stored_table(stored: Mapping[str, Any]) -> TablePreparation | None:
    """Return the preparation of a checkpoint, which a stranger may have written; None where its values are no preparation of a table."""
    lists: dict[str, Any] = {name: stored.get(name) for name in _LISTS}
    words = stored.get("words")
    if not (all(type(each) is list for each in lists.values()) and type(words) is dict):
        return None
    features, targets = lists["features"], lists["targets_named"]
    texts = [features, targets, *words.values()]
    if not all(type(each) is list and each and all(type(text) is str for text in each) and len(set(each)) == len(each) for each in texts):
        return None
    if not set(words) <= set(features):
        return None
    fill = stored_fill(stored, [name for name in features if name not in words])
    if fill is None:
        return None
    inputs = sum(len(words[name]) if name in words else 1 for name in features) + len(fill.flags)
    lengths = {"means": inputs, "deviations": inputs, "target_means": len(targets), "target_deviations": len(targets)}
    if inputs > MOST_COLUMNS:
        return None
    for name, length in lengths.items():
        least = 0.0 if name.endswith("deviations") else -math.inf
        if len(lists[name]) != length or not all(type(each) is float and math.isfinite(each) and each > least for each in lists[name]):
            return None
    plain: dict[str, Any] = {name: tuple(each) for name, each in lists.items()}
    return TablePreparation(words={name: tuple(each) for name, each in words.items()}, fill=fill, **plain)


def _double(values: Sequence[float]) -> Tensor:
    return torch.tensor(values, dtype=torch.float64)


def _by_name(x: Any) -> bool:
    """Return whether x has columns with names: a mapping, a data frame, or rows that are mappings."""
    return isinstance(x, Mapping) or hasattr(x, "columns") or (isinstance(x, (list, tuple)) and bool(x) and isinstance(x[0], Mapping))


def _columns_of(x: Any, names: Sequence[str]) -> dict[str, Sequence[Any]]:
    """Return the columns of x by name, all of one length."""
    if not _by_name(x):
        rows = x.tolist() if isinstance(x, (np.ndarray, Tensor)) else list(x)
        rows = [row.tolist() if isinstance(row, (np.ndarray, Tensor)) else row for row in rows]
        if not rows or not all(isinstance(row, (list, tuple)) and len(row) == len(names) for row in rows):
            shown = printable(", ".join(names))
            raise UserError(f"x must have rows of {len(names)} values each, for the columns {shown}; or give columns by name.")
        return dict(zip(names, zip(*rows, strict=True), strict=True))
    known = list(x[0]) if isinstance(x, (list, tuple)) else [str(name) for name in getattr(x, "columns", x)]
    columns: dict[str, Sequence[Any]] = {}
    for name in names:
        if name not in known:
            raise UserError(f"there is no column '{printable(name)}', which the model was trained with.{printable(nearest(name, known))}")
        columns[name] = [row.get(name) for row in x] if isinstance(x, (list, tuple)) else list(x[name])
    lengths = {len(column) for column in columns.values()}
    if len(lengths) != 1 or 0 in lengths:
        raise UserError(f"the columns {printable(', '.join(names))} must have one length, and at least one row.")
    return columns


def _numbers(values: Sequence[Any], name: str, *, may_miss: bool = False) -> Tensor:
    """Return a column of numbers, (B,) float64; text that is a number counts as one. A missing value is NaN, where it is allowed."""
    numbers = []
    for row, value in enumerate(values):
        if _is_missing(value):
            if not may_miss:
                raise UserError(f"row {row} has no value in column '{printable(name)}'; fill it in or leave the row out.")
            numbers.append(math.nan)
            continue
        try:
            number = float(value.strip() if isinstance(value, str) else value)
        except (TypeError, ValueError):
            number = math.inf
        if not math.isfinite(number):
            raise UserError(f"row {row} has {_shown(value)} in column '{printable(name)}', which is no number; correct it.")
        numbers.append(number)
    return torch.tensor(numbers, dtype=torch.float64)


def _is_missing(value: Any) -> bool:
    """Return whether a cell has no value: None, NaN, or a text that stands for a missing number."""
    if isinstance(value, str):
        return value.strip().lower() in MISSING
    return value is None or value != value  # NaN alone differs from itself


def _shown(value: Any) -> str:
    return "no value" if value is None or value == "" else f"'{printable(str(value)[:60])}'"
