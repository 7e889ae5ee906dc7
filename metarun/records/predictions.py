"""The file predictions.csv: one row for each query, in UTF-8, with quotes where a field needs them."""

from __future__ import annotations

import csv
import io
from collections.abc import Iterable, Sequence
from pathlib import Path
from typing import Any, NamedTuple

from metarun.files.writing import write_text

HEADER = ("path", "label", "probability")
"""The first columns of the predictions for images; a column for each class follows."""


class Found(NamedTuple):
    """The result of a prediction. lines: for a person. facts: for report.json. error: for a sweeper; 0 where no truth is known."""

    lines: list[str]
    facts: dict[str, Any]
    error: float


def write_rows(path: Path, header: Sequence[str], rows: Iterable[Sequence[str]]) -> None:
    """Write a CSV file whole or not at all; UserError where the folder or the disk refuses."""
    text = io.StringIO(newline="")
    writer = csv.writer(text)
    writer.writerow(header)
    writer.writerows(rows)
    write_text(path, text.getvalue())
