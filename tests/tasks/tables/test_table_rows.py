"""The user's tables for a prediction: which columns they need, and which rows belong to which task."""

from __future__ import annotations

import dataclasses
from pathlib import Path

import numpy as np
import pytest

from metarun.errors import UserError
from metarun.tasks.preparing.table_preparation import TablePreparation
from metarun.tasks.tables.missing import Fill
from metarun.tasks.tables.table_rows import TableRows, by_task, naming, read_rows, unknown_words

PREPARED = TablePreparation(("x", "word"), {"word": ("a", "b")}, (0.0,) * 3, (1.0,) * 3, ("y",), (0.0,), (1.0,))


def rows(tmp_path: Path, text: str, key: str = "query", decimal: str | None = None) -> TableRows:
    (tmp_path / "file.csv").write_text(text)
    return read_rows(str(tmp_path / "file.csv"), key, PREPARED, "city", decimal)


def test_the_columns_are_found_by_their_names(tmp_path: Path) -> None:
    found = rows(tmp_path, "y;id;word;x;city\n1,5;7; a ;2,5;A\n2;8;c;3;B\n", "support")
    assert found.inputs == {"x": [2.5, 3.0], "word": ["a", "c"]}
    assert found.targets is not None
    assert found.targets["y"].tolist() == [1.5, 2.0]
    assert found.tasks == ["A", "B"]
    assert found.rows[0] == ["1,5", "7", " a ", "2,5", "A"]
    assert found.take([1]) == {"x": [3.0], "word": ["c"]}


def test_a_query_may_lack_targets_and_tasks_and_some_of_its_targets(tmp_path: Path) -> None:
    assert rows(tmp_path, "x,word\n1,a\n").targets is None
    assert rows(tmp_path, "x,word\n1,a\n").tasks is None
    assert rows(tmp_path, "x,word,y\n1,a,\n2,b,NA\n").targets is None
    some = rows(tmp_path, "x,word,y\n1,a,\n2,b,4\n").targets
    assert some is not None
    assert np.array_equal(some["y"], [np.nan, 4.0], equal_nan=True)


def test_a_row_may_lack_inputs_where_the_training_filled_them(tmp_path: Path) -> None:
    (tmp_path / "file.csv").write_text("x,word\n,a\n2,\n")
    filled = dataclasses.replace(PREPARED, fill=Fill("mean", {"x": 5.0}))
    found = read_rows(str(tmp_path / "file.csv"), "query", filled, None)
    assert filled.inputs(found.take([0, 1])).tolist() == [[5.0, 1.0, 0.0], [2.0, 0.0, 0.0]]
    assert unknown_words([found], filled) == []


@pytest.mark.parametrize(
    ("text", "key", "said"),
    [
        ("x,y\n1,2\n", "query", "^query=.*file.csv has no column 'word', which the model was trained with; it has x, y"),
        ("x,word\n1,a\n", "support", "^support=.*has no column 'y'"),
        ("x,word,y\n1,a,\n", "support", "line 2 of .* has no value in column 'y'; fill it in or remove the row\\.$"),
        ("x,word\n,a\n", "query", "line 2 of .* has no value in column 'x'; fill it in or remove the row\\.$"),
        ("x,word\nfar,a\n", "query", "line 2 of .* has 'far' in the feature column 'x', which is not a number; correct it\\.$"),
        ("x,word\n", "query", "^query=.* has no rows below its header line"),
    ],
)
def test_a_table_that_does_not_fit_is_refused_with_its_line(tmp_path: Path, text: str, key: str, said: str) -> None:
    with pytest.raises(UserError, match=said):
        rows(tmp_path, text, key)


def test_a_comma_that_could_stand_between_thousands_is_read_as_in_the_training(tmp_path: Path) -> None:
    text = "x;word\n1,234;a\n"
    with pytest.raises(UserError, match="a decimal sign or stands between thousands; remove the commas"):
        rows(tmp_path, text)
    assert rows(tmp_path, text, decimal="comma").inputs["x"] == [1.234]


def test_words_that_no_training_task_has_are_named(tmp_path: Path) -> None:
    found = [rows(tmp_path, "x,word\n1,a\n1,new\n1,new\n1,odd\n"), rows(tmp_path, "x,word\n1,b\n")]
    [said] = unknown_words(found, PREPARED)
    assert said.startswith(
        "the column 'word' has words that no training task has (new, odd), in 3 of 5 rows; all inputs of the column are 0"
    )
    assert unknown_words(found[1:], PREPARED) == []


def table(tasks: list[str] | None, count: int = 2) -> TableRows:
    return TableRows("t.csv", (), [[]] * (count if tasks is None else len(tasks)), {}, None, tasks)


def test_rows_are_paired_by_their_task() -> None:
    assert by_task(table(["A", "B", "A", "C"]), table(["B", "A", "A"]), "city") == {"B": ([1], [0]), "A": ([0, 2], [1, 2])}
    assert by_task(table(None), table(None, 1), "city") == {"": ([0, 1], [0])}
    assert by_task(table(["A", "A"]), table(None, 1), "city") == {"A": ([0, 1], [0])}
    assert by_task(table(None), table(["B"]), "city") == {"B": ([0, 1], [0])}


@pytest.mark.parametrize(
    ("support", "query", "said"),
    [
        (["A", "B"], None, "query=t.csv has no column 'city', and t.csv has 2 tasks in it"),
        (None, ["A", "B"], "support=t.csv has no column 'city'"),
        (["A"], ["A", "B", "C", "B"], "2 of the 3 tasks of query=t.csv have no known row in t.csv: 'B', 'C'; add rows"),
    ],
)
def test_queries_without_known_rows_are_refused(support: list[str] | None, query: list[str] | None, said: str) -> None:
    with pytest.raises(UserError, match=said):
        by_task(table(support), table(query), "city")


def test_a_message_about_a_table_names_the_key_of_predict() -> None:
    with pytest.raises(UserError, match=r"^query=x\.csv is empty; fill it\.$"), naming("query"):
        raise UserError("task.path=x.csv is empty; fill it, or set task.delimiter=semicolon.")
