"""The CSV file of predictions: every field reads back as it was."""

from __future__ import annotations

import csv
from pathlib import Path

from metarun.records.predictions import HEADER, write_rows


def test_names_with_quotes_commas_and_line_breaks_read_back(tmp_path: Path) -> None:
    odd = ['a,b"c"', "two\nlines", "carriage\rreturn", "", "é…", "=1+1"]
    write_rows(tmp_path / "p.csv", [*HEADER, *odd], [[name, "cat", "0.5", *"123456"] for name in odd])
    with (tmp_path / "p.csv").open(encoding="utf-8", newline="") as file:
        rows = list(csv.reader(file))
    assert rows[0] == ["path", "label", "probability", *odd]
    assert [row[0] for row in rows[1:]] == odd
    assert all(len(row) == 9 for row in rows)
