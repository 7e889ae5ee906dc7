"""Numbers of a comparison as text, and tables as aligned text, Markdown, CSV and JSON."""

from __future__ import annotations

import csv
import io
import json
import math
from collections.abc import Mapping, Sequence
from dataclasses import dataclass, field
from typing import Any

from metarun.errors import printable
from metarun.records.widths import wrapped
from metarun.values import plain

MINOR = ("time", "steps", "best at", "std", "norm", "inner steps", "better in")
"""Columns that a narrow terminal does without, the first one first."""


@dataclass(frozen=True)
class Table:
    """A table for a person, and its numbers.

    title: one sentence. head, rows: the cells; the first column has names. notes: sentences below the table. data: for each row its numbers
    at full precision, as plain values. key: what the rows are, for CSV and JSON: "validation", "test", "families".
    """

    title: str
    head: tuple[str, ...]
    rows: tuple[tuple[str, ...], ...]
    notes: tuple[str, ...] = ()
    data: tuple[Mapping[str, Any], ...] = field(default=(), repr=False)
    key: str = ""


def score_text(metric: str, value: float | None, ci95: float | None = None) -> str:
    """Return a score with half its interval: "97.31 % ± 0.22" for accuracy, "0.431 ± 0.040" for an error."""
    if value is None or not math.isfinite(value):
        return "not finite"
    known = ci95 is not None and math.isfinite(ci95)
    if metric == "accuracy":
        return f"{100 * value:.2f} %" + (f" ± {100 * ci95:.2f}" if known and ci95 is not None else "")
    if not known or ci95 is None:
        return plain(value)
    digits = _digits(ci95 or value)
    return f"{value:.{digits}f} ± {ci95:.{digits}f}"


def difference_text(metric: str, value: float, ci95: float | None) -> str:
    """Return a difference with half its interval and its sign; of accuracies, in percentage points."""
    scale = 100.0 if metric == "accuracy" else 1.0
    width = None if ci95 is None or not math.isfinite(ci95) else scale * ci95
    digits = 2 if metric == "accuracy" else _digits(width if width else value)
    return f"{scale * value:+.{digits}f}" + ("" if width is None else f" ± {width:.{digits}f}")


def spread_text(metric: str, value: float | None) -> str:
    """Return a standard deviation or another score without an interval; "" for None."""
    return "" if value is None else f"{100 * value:.2f}" if metric == "accuracy" else plain(value)


def duration(seconds: float | None) -> str:
    """Return seconds as 0:14 or 1:02:03; "" for None."""
    if seconds is None:
        return ""
    hours, rest = divmod(round(seconds), 3600)
    return f"{hours}:{rest // 60:02}:{rest % 60:02}" if hours else f"{rest // 60}:{rest % 60:02}"


def _digits(width: float) -> int:
    """Return the digits behind the point that show a number with two digits of its own."""
    size = abs(width)
    return min(12, max(0, 1 - math.floor(math.log10(size)))) if size > 0 and math.isfinite(size) else 4


def text(tables: Sequence[Table], width: int | None = None) -> str:
    """Return the tables as aligned text.

    width: columns of the terminal. The sentences are wrapped; minor columns that do not fit are left out, and named.
    """
    return "\n\n".join(_text(table, width) for table in tables)


def _text(table: Table, width: int | None) -> str:
    kept = _filled(table)
    left_out: list[str] = []
    for name in MINOR:
        if width is not None and _width(table, kept) > width and any(table.head[place] == name for place in kept[1:]):
            kept = [place for place in kept if place == 0 or table.head[place] != name]
            left_out.append(name)
    sizes = [max(len(line[place]) for line in (table.head, *table.rows)) for place in kept]
    lines = [
        "  ".join(line[place].ljust(size) for place, size in zip(kept, sizes, strict=True)).rstrip() for line in (table.head, *table.rows)
    ]
    notes = [note for note in table.notes if not note.startswith(tuple(f"{name}:" for name in left_out))]
    more = [f"Left out for want of room: {', '.join(left_out)} (format=markdown has them)."] if left_out else []
    title, *below = (wrapped(sentence, width) for sentence in (table.title, *notes, *more))
    return "\n".join([title, "", *lines, *([""] if below else []), *below])


def _width(table: Table, kept: Sequence[int]) -> int:
    return sum(max(len(line[place]) for line in (table.head, *table.rows)) for place in kept) + 2 * (len(kept) - 1)


def _filled(table: Table) -> list[int]:
    """Return the columns that are not empty in every row."""
    return [place for place in range(len(table.head)) if place == 0 or any(row[place] for row in table.rows)]


def markdown(tables: Sequence[Table]) -> str:
    """Return the tables as aligned Markdown, each under its title, with its notes."""
    return "\n\n".join(_markdown(table) for table in tables)


def _markdown(table: Table) -> str:
    kept = _filled(table)
    lines = [[line[place].replace("|", "\\|") for place in kept] for line in (table.head, *table.rows)]
    sizes = [max(len(line[place]) for line in lines) for place in range(len(kept))]
    head, *body = ("| " + " | ".join(cell.ljust(size) for cell, size in zip(line, sizes, strict=True)) + " |" for line in lines)
    rule = "|" + "|".join("-" * (size + 2) for size in sizes) + "|"
    notes = ["", *(f"- {note}" for note in table.notes)] if table.notes else []
    return "\n".join([f"**{table.title}**", "", head, rule, *body, *notes])


def as_csv(tables: Sequence[Table]) -> str:
    """Return the numbers of the tables as CSV, one line for each row; the column "table" has the title.

    Tables of another kind, such as that of the families, follow after an empty line under a header of their own.
    """
    kinds = dict.fromkeys(table.key for table in tables)
    return "\n\n".join(_as_csv([table for table in tables if table.key == kind]) for kind in kinds)


def _as_csv(tables: Sequence[Table]) -> str:
    rows = [{"table": table.title, **row} for table in tables for row in table.data]
    columns = list(dict.fromkeys(key for row in rows for key, value in row.items() if not isinstance(value, (list, dict, tuple))))
    written = io.StringIO(newline="")
    writer = csv.DictWriter(written, columns, extrasaction="ignore", lineterminator="\n")
    writer.writeheader()
    writer.writerows(rows)
    return written.getvalue().rstrip("\n")


def as_json(tables: Sequence[Table]) -> str:
    """Return the numbers of the tables as JSON. A number that is not finite is null."""
    content = [{"table": table.key, "title": table.title, "rows": list(table.data), "notes": list(table.notes)} for table in tables]
    return json.dumps(_finite(content), indent=2, ensure_ascii=False)


def _finite(value: Any) -> Any:
    if isinstance(value, Mapping):
        return {key: _finite(item) for key, item in value.items()}
    if isinstance(value, (list, tuple)):
        return [_finite(item) for item in value]
    if isinstance(value, str):
        return printable(value)
    return None if isinstance(value, float) and not math.isfinite(value) else value
