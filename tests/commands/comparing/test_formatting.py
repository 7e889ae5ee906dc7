"""Numbers as text, and tables as text, Markdown, CSV and JSON."""

from __future__ import annotations

import csv
import dataclasses
import io
import json
import math

import pytest

from metarun.commands.comparing.formatting import Table, as_csv, as_json, difference_text, duration, markdown, score_text, spread_text, text

TABLE = Table(
    title="glyphs: accuracy",
    head=("run", "accuracy", "std", "steps", ""),
    rows=(("maml", "97.31 % ± 0.22", "", "60", ""), ("a|b", "–", "", "60", "stopped")),
    notes=("a note",),
    data=({"name": "maml", "mean": 0.9731, "runs": [1, 2]}, {"name": "a|b", "mean": math.nan, "runs": []}),
    key="validation",
)


@pytest.mark.parametrize(
    ("metric", "value", "ci95", "expected"),
    [
        ("accuracy", 0.97312, 0.00221, "97.31 % ± 0.22"),
        ("accuracy", 0.97312, None, "97.31 %"),
        ("mse", 0.43128, 0.0402, "0.431 ± 0.040"),
        ("mse", 12.345, 1.2, "12.3 ± 1.2"),
        ("mse", 0.00012345, 0.00001, "0.000123 ± 0.000010"),
        ("mse", 0.5, 0.0, "0.50 ± 0.00"),
        ("mse", None, None, "not finite"),
        ("mse", math.inf, 0.1, "not finite"),
        ("accuracy", 0.5, math.inf, "50.00 %"),
    ],
)
def test_a_score_shows_two_digits_of_its_interval(metric: str, value: float | None, ci95: float | None, expected: str):
    assert score_text(metric, value, ci95) == expected


def test_a_difference_has_a_sign_and_accuracies_differ_in_points():
    assert difference_text("accuracy", 0.031, 0.008) == "+3.10 ± 0.80"
    assert difference_text("mse", -0.12, 0.041) == "-0.120 ± 0.041"
    assert difference_text("mse", 0.25, None) == "+0.25"
    assert (spread_text("accuracy", 0.0604), spread_text("mse", None)) == ("6.04", "")


@pytest.mark.parametrize(("seconds", "expected"), [(None, ""), (13.6, "0:14"), (75, "1:15"), (3723, "1:02:03")])
def test_a_duration_is_short(seconds: float | None, expected: str):
    assert duration(seconds) == expected


def test_text_is_aligned_and_columns_without_content_are_left_out():
    assert text([TABLE]).splitlines() == [
        "glyphs: accuracy",
        "",
        "run   accuracy        steps",
        "maml  97.31 % ± 0.22  60",
        "a|b   –               60     stopped",
        "",
        "a note",
    ]


def test_a_narrow_terminal_leaves_minor_columns_out_and_says_so():
    lines = text([TABLE], 30).splitlines()
    assert lines[2] == "run   accuracy"
    assert lines[-3:] == ["Left out for want of room:", "  steps (format=markdown has", "  them)."]
    assert "Left out" not in text([TABLE], 36)


def test_the_sentences_fit_into_the_terminal_and_a_path_stays_whole():
    path = f"/data/{'x' * 30}"
    table = dataclasses.replace(TABLE, title="glyphs: accuracy of the validation tasks", notes=(f"maml is in {path} with its files.",))
    lines = text([table], 36).splitlines()
    assert lines[:2] == ["glyphs: accuracy of the validation", "  tasks"]
    assert lines[-3:] == ["maml is in", f"  {path}", "  with its files."]
    assert text([table]).splitlines()[-1] == table.notes[0]


def test_markdown_is_a_table_and_escapes_its_own_sign():
    lines = markdown([TABLE]).splitlines()
    assert lines[0] == "**glyphs: accuracy**"
    assert lines[2:4] == ["| run  | accuracy       | steps |         |", "|------|----------------|-------|---------|"]
    assert lines[5].startswith("| a\\|b |")
    assert lines[-1] == "- a note"


def test_csv_and_json_have_the_numbers_at_full_precision():
    (first, _) = csv.DictReader(io.StringIO(as_csv([TABLE])))
    assert first == {"table": "glyphs: accuracy", "name": "maml", "mean": "0.9731"}
    (table,) = json.loads(as_json([TABLE]))
    assert (table["table"], [row["mean"] for row in table["rows"]]) == ("validation", [0.9731, None])


def test_tables_of_another_kind_have_a_header_of_their_own_in_csv():
    other = Table("families", ("run",), (("a",),), data=({"name": "a", "rank": 1.0},), key="families")
    assert as_csv([TABLE, other]).split("\n\n")[1] == "table,name,rank\nfamilies,a,1.0"
