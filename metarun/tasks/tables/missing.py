"""Missing cells of a table: metarun leaves the rows out, or fills the cells by a rule that reads the training rows only."""

from __future__ import annotations

import logging
import math
from collections.abc import Mapping, Sequence
from dataclasses import dataclass, field, replace
from typing import Any, Literal, get_args

import numpy as np

from metarun.errors import UserError, printable
from metarun.tasks.tables.columns import Columns, Words

log = logging.getLogger(__name__)

Missing = Literal["refuse", "drop", "mean", "median", "zero", "mean+flag", "median+flag", "zero+flag"]
"""What happens to a row whose input has no value: an error, no row, or a fill value. "+flag" adds a 0/1 input for each column with gaps."""

RULES = get_args(Missing)

_FLAG = "+flag"


@dataclass(frozen=True)
class Fill:
    """How the missing inputs of a table are filled.

    rule: of `RULES`. values: column of numbers -> its fill value, for all of them under a rule that fills. flags: the columns of numbers
    with a missing cell in the training rows, under a rule with a flag; each has one more input, 1 where the cell is missing.
    """

    rule: str = "refuse"
    values: dict[str, float] = field(default_factory=dict)
    flags: tuple[str, ...] = ()

    @property
    def fills(self) -> bool:
        """Whether the rule gives missing cells a value; a missing word is then a word of its own."""
        return self.rule not in ("refuse", "drop")


NO_FILL = Fill()


def flag_of(name: str) -> str:
    """Return the name of the input that says whether a column is missing."""
    return f"{name} is missing"


def without_gaps(columns: Columns, features: Sequence[str], targets: Sequence[str], rule: str, target_rule: str) -> Columns:
    """Return the columns without the rows that the rules leave out, and say how many rows these are; UserError where no row is left.

    rule: of `RULES`, "drop" leaves out rows with a missing feature. target_rule: "drop" leaves out rows with a missing target.
    """
    keep = np.ones(len(columns.lines), dtype=bool)
    for names, dropped, kind in ((targets, target_rule == "drop", "target"), (features, rule == "drop", "input")):
        if not dropped:
            continue
        gaps = np.zeros_like(keep)
        for name in names:
            gaps |= is_missing(columns, name)
        if gaps.any():
            log.warning("%d of the %d rows of %s have no %s and are left out", gaps.sum(), len(keep), columns.path, kind)
        keep &= ~gaps
    if not keep.any():
        raise UserError(f"each row of {columns.path} lacks a value; fill some cells in, or leave the column out of task.features.")
    return columns if keep.all() else _rows(columns, keep)


def fill_gaps(columns: Columns, features: Sequence[str], train: np.ndarray, rule: str) -> tuple[Columns, list[str], Fill]:
    """Return the columns without missing numbers, the features with one more for each flag, and how the cells were filled.

    train: (M,) bool, the rows of the training tasks; no other row changes a fill value.
    Raises UserError for a column that has no value in the training rows.
    """
    how, flagged = rule.removesuffix(_FLAG), rule.endswith(_FLAG)
    if not Fill(rule).fills:
        return columns, list(features), Fill(rule)
    numbers, values, flags = dict(columns.numbers), dict[str, float](), list[str]()
    filled = 0
    for name in [name for name in features if name in numbers]:
        gaps = is_missing(columns, name)
        values[name] = _value(numbers[name][train & ~gaps], how, name, columns.path)
        if gaps.any():
            numbers[name] = np.where(gaps, values[name], numbers[name])
            filled += int(gaps.sum())
        if flagged and gaps[train].any():
            flags.append(name)
            numbers[flag_of(name)] = gaps.astype(np.float64)
    if filled:
        log.info("%d missing numbers of %s are filled (task.missing=%s)", filled, columns.path, rule)
    return replace(columns, numbers=numbers), [*features, *map(flag_of, flags)], Fill(rule, values, tuple(flags))


def is_missing(columns: Columns, name: str) -> np.ndarray:
    """Return which rows lack a value in this column, (M,) bool: numbers that are NaN, or the empty word."""
    if name in columns.numbers:
        return np.isnan(columns.numbers[name])
    words = columns.words[name]
    return words.codes == words.known.index("") if "" in words.known else np.zeros(len(words.codes), dtype=bool)


def _value(known: np.ndarray, how: str, name: str, path: str) -> float:
    """Return the fill value of a column from the values of its training rows (M,)."""
    if how == "zero":
        return 0.0
    if not len(known):
        raise UserError(
            f"column '{printable(name)}' of {path} has no value in the training tasks, so it has no {how}; leave it out of task.features."
        )
    return float(np.median(known) if how == "median" else known.mean())


def _rows(columns: Columns, keep: np.ndarray) -> Columns:
    """Return these rows; words that occur in no row are forgotten."""
    words = {}
    for name, column in columns.words.items():
        used, codes = np.unique(column.codes[keep], return_inverse=True)
        words[name] = Words(codes.astype(np.int64), [column.known[code] for code in used.tolist()])
    return replace(columns, lines=columns.lines[keep], words=words, numbers={name: each[keep] for name, each in columns.numbers.items()})


def stored_fill(stored: Mapping[str, Any], numbers: Sequence[str]) -> Fill | None:
    """Return the fill of a checkpoint, which a stranger may have written; None where its values are no fill of these columns of numbers."""
    rule, values, flags = stored.get("missing", "refuse"), stored.get("fills", {}), stored.get("flags", [])
    if not (type(rule) is str and rule in RULES and type(values) is dict and type(flags) is list):
        return None
    fill = Fill(rule, values, tuple(flags))
    if not all(type(each) is float and math.isfinite(each) for each in values.values()) or set(values) != set(
        numbers if fill.fills else ()
    ):
        return None
    known = all(type(name) is str and name in numbers for name in flags)
    return fill if known and len(set(flags)) == len(flags) and (rule.endswith(_FLAG) or not flags) else None
