"""Any table: standardised numbers that are those of the file, or one sentence; never another exception.

`fuzz` says how many of them the suite tries.
"""

from __future__ import annotations

import csv
import io
import os
import tempfile

import torch
from fuzz import fuzz
from hypothesis import event, given
from hypothesis import strategies as st

from metarun.errors import UserError
from metarun.tasks.table import table

WORDS = ["a", "b", "c", "NA", "None", " d ", "e f", "1_0", "é", "日本", "x;y", "x,y", 'q"q', "two\nlines", "\u202e", "?"]
ODD = [
    "",
    " ",
    "NA",
    "nan",
    "inf",
    "-Infinity",
    "1_0",
    "١٢",
    "0x10",
    "1e400",
    "-1.797e308",
    "1e30",
    "1 000",
    "1,5",
    "1,234",
    "1.5.2",
    "%",
    "\0",
    '"',
    "x" * 300,
]

CELLS = st.one_of(
    st.integers(-99, 99).map(str),
    st.floats(-1e6, 1e6).map(repr),
    st.sampled_from(["0.1", "-3.25", "1e3", ".5", "7."]),
)
ROWS = st.lists(st.tuples(st.sampled_from(WORDS[:4]), CELLS, CELLS, st.sampled_from(WORDS)), min_size=20, max_size=60)
CHANGE = st.tuples(st.integers(0, 59), st.integers(0, 3), st.sampled_from(ODD))
HEADERS = st.sampled_from(
    [*[["t", "x", "y", "w"]] * 9, [" t", "x ", "y", "w"], ["t", "x", "y", "x"], ["", "x", "y", "w"], ["1", "2", "3", "4"]]
)


def written(rows: list[list[str]], delimiter: str, end: str, quoting: int) -> str:
    text = io.StringIO(newline="")
    csv.writer(text, delimiter=delimiter, lineterminator=end, quoting=quoting).writerows(rows)
    return text.getvalue()


@fuzz(40)
@given(
    header=HEADERS,
    rows=ROWS,
    changes=st.one_of(st.just([]), st.lists(CHANGE, max_size=2)),
    delimiter=st.sampled_from([",", ";", "\t", "|"]),
    end=st.sampled_from(["\n", "\r\n", "\r"]),
    quoting=st.sampled_from([csv.QUOTE_MINIMAL, csv.QUOTE_ALL]),
    encoding=st.sampled_from([*["utf-8"] * 4, "utf-8-sig", "utf-16", "utf-16-le", "latin-1"]),
    comma=st.booleans(),
    cut=st.sampled_from([*[None] * 9, 3, 30, 300]),
    inserted=st.one_of(
        st.none(), st.none(), st.none(), st.tuples(st.integers(0, 400), st.sampled_from(["\n", '"', "\0", ",", "\n\n# note\n", "\r"]))
    ),
)
def test_any_table_gives_the_numbers_of_the_file_or_is_refused(
    header: list[str],
    rows: list[tuple[str, ...]],
    changes: list[tuple[int, int, str]],
    delimiter: str,
    end: str,
    quoting: int,
    encoding: str,
    comma: bool,
    cut: int | None,
    inserted: tuple[int, str] | None,
) -> None:
    cells = [list(row) for row in rows]
    for row, column, text in changes:
        cells[row % len(cells)][column] = text
    shown = [[field.replace(".", ",") if comma and 0 < place < 3 else field for place, field in enumerate(row)] for row in cells]
    text = written([header, *shown], delimiter, end, quoting)
    text = text[:cut]
    if inserted is not None:
        text = text[: inserted[0]] + inserted[1] + text[inserted[0] :]
    with tempfile.TemporaryDirectory() as folder:
        path = os.path.join(folder, "data.csv")
        with open(path, "wb") as file:
            file.write(text.encode(encoding, errors="replace"))
        arguments = {"path": path, "task_column": "t", "target": "y", "categorical": ["w"], "shots": 1, "queries": 1, "skip_small": True}
        try:
            source = table(**arguments)
        except UserError as error:
            sentence = str(error).replace(path, "")
        else:
            sentence = ""
        event(sentence[:25] or "numbers")
        assert all(line.isprintable() for line in sentence.split("\n"))
        if sentence:
            return
        again = table(**arguments)
    assert torch.equal(source.x, again.x)
    assert torch.isfinite(source.x).all()
    assert torch.isfinite(source.y).all()
    assert source.x.dtype == source.y.dtype == torch.float32
    assert sum(source.counts.values()) == len(source.x)
    if not changes and inserted is None and cut is None and encoding != "latin-1":
        ordered = [row for name in source.counts for row in cells if row[0].strip() == name]
        found = source.y.double() * source.targets.std + source.targets.mean
        expected = torch.tensor([[float(row[2])] for row in ordered], dtype=torch.float64)
        assert torch.allclose(found, expected, rtol=1e-5, atol=1e-5 * float(source.targets.std) + 1e-12)
