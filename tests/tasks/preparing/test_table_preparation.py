from __future__ import annotations

from pathlib import Path

import numpy as np
import pytest
import torch

from metarun.errors import UserError
from metarun.tasks.preparing.table_preparation import TablePreparation, stored_table
from metarun.tasks.table import TableTasks, table

WORDS = ("oak", "elm", "ash")


def trees(folder: Path) -> tuple[TableTasks, list[dict[str, str]]]:
    """Return a table of seven tasks with a column of words, and its rows as text, in the order of the tasks."""
    rows = [
        {"site": f"s{site}", "kind": WORDS[(site + row) % 3], "age": f"{10 * row + site}.5", "height": f"{row + site / 7:.3f}"}
        for site in range(7)
        for row in range(6)
    ]
    path = folder / "trees.csv"
    path.write_text("\n".join([",".join(rows[0]), *(",".join(row.values()) for row in rows)]), encoding="utf-8")
    source = table(path=str(path), task_column="site", target="height", categorical=["kind"], shots=2, queries=2)
    return source, rows


def test_raw_rows_become_the_inputs_and_targets_of_the_table_to_the_bit(tmp_path: Path):
    source, rows = trees(tmp_path)
    prepared = source.preparation()
    assert prepared is not None
    columns = {name: [row[name] for row in rows] for name in rows[0]}
    numeric = {**columns, "age": np.array(columns["age"], dtype=float)}
    listed = [[row["kind"], float(row["age"])] for row in rows]
    for given in (rows, columns, numeric, listed):
        torch.testing.assert_close(prepared.inputs(given), source.x, rtol=0, atol=0)
    heights = [float(row["height"]) for row in rows]
    for targets in (rows, columns, heights, torch.tensor(heights, dtype=torch.float64)[:, None]):
        torch.testing.assert_close(prepared.targets(targets), source.y, rtol=0, atol=0)
    torch.testing.assert_close(prepared.in_units(source.y)[:, 0], torch.tensor(heights, dtype=torch.float64), rtol=1e-6, atol=1e-6)


def test_a_word_that_no_training_task_has_is_0_in_all_its_inputs(tmp_path: Path):
    prepared = trees(tmp_path)[0].preparation()
    assert prepared is not None
    raw = prepared.inputs([["fir", 10.5]]).double() * torch.tensor(prepared.deviations) + torch.tensor(prepared.means)
    torch.testing.assert_close(raw, torch.tensor([[0.0, 0.0, 0.0, 10.5]], dtype=torch.float64), rtol=0, atol=1e-6)


@pytest.mark.parametrize(
    ("given", "sentence"),
    [
        ([{"kind": "oak"}], "no column 'age'"),
        ([{"kind": "oak", "age": ""}], "row 0 has no value in column 'age'"),
        ([["oak", 1.0], ["", 1.0]], "row 1 has no value in column 'kind'"),
        ([["oak", "tall"]], "row 0 has 'tall' in column 'age'"),
        ([["oak", float("nan")]], "row 0 has no value in column 'age'"),
        ([["oak"]], "rows of 2 values each, for the columns kind, age"),
        ([], "rows of 2 values"),
        ([["oak", 1e300]], "row 0 has a value that is too large"),
    ],
    ids=str,
)
def test_rows_that_cannot_be_prepared_are_one_sentence(tmp_path: Path, given: list[object], sentence: str):
    prepared = trees(tmp_path)[0].preparation()
    assert prepared is not None
    with pytest.raises(UserError, match=sentence):
        prepared.inputs(given)


def test_a_preparation_comes_back_from_its_plain_values(tmp_path: Path):
    prepared = trees(tmp_path)[0].preparation()
    assert prepared is not None
    assert stored_table(prepared.stored()) == prepared


@pytest.mark.parametrize(
    "change",
    [
        {"features": []},
        {"features": ["a", "a"]},
        {"features": "ab"},
        {"words": []},
        {"words": {"zzz": ["x"]}},
        {"words": {"a": []}},
        {"means": [0.0]},
        {"means": [0, 0.0]},
        {"deviations": [1.0, 0.0]},
        {"deviations": [1.0, float("inf")]},
        {"target_means": []},
        {"targets_named": [3]},
    ],
    ids=str,
)
def test_values_of_a_stranger_that_are_no_preparation_are_refused(change: dict[str, object]):
    good = TablePreparation(("a", "b"), {}, (0.0, 1.0), (1.0, 2.0), ("y",), (0.0,), (3.0,))
    assert stored_table(good.stored()) == good
    assert stored_table({**good.stored(), **change}) is None
