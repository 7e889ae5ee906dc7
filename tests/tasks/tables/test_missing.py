"""Missing cells of a table against values worked out by hand."""

from __future__ import annotations

import math
from pathlib import Path
from typing import Any

import numpy as np
import pytest
import torch

from metarun.errors import UserError
from metarun.tasks.preparing.preparation import preparation_of
from metarun.tasks.table import TableTasks, table
from metarun.tasks.tables.columns import Columns, Words
from metarun.tasks.tables.missing import RULES, Fill, fill_gaps, is_missing, stored_fill, without_gaps

NAN = math.nan
TRAIN = np.array([True, True, True, False])
SPLIT = {"train": ["a", "b"], "val": ["c"], "test": ["d"]}


def columns(x: list[float], words: list[str]) -> Columns:
    """Four rows, three of them training rows: a column of numbers x, and a column of words w."""
    known = list(dict.fromkeys(words))
    coded = Words(np.array([known.index(word) for word in words]), known)
    return Columns("t.csv", np.arange(2, 6), {"w": coded}, {"x": np.array(x), "y": np.array([1.0, NAN, 3.0, 4.0])})


FOUR = columns([1.0, NAN, 4.0, 100.0], ["p", "", "q", "p"])


@pytest.mark.parametrize(("rule", "value"), [("mean", 2.5), ("median", 2.5), ("zero", 0.0)])
def test_a_fill_value_comes_from_the_training_rows_alone(rule: str, value: float) -> None:
    """Training values 1 and 4: 2.5, whatever the fourth row has."""
    filled, names, fill = fill_gaps(FOUR, ["w", "x"], TRAIN, rule)
    assert filled.numbers["x"].tolist() == [1.0, value, 4.0, 100.0]
    assert (names, fill) == (["w", "x"], Fill(rule, {"x": value}))


def test_the_median_is_not_the_mean() -> None:
    filled, _, _ = fill_gaps(columns([1.0, 2.0, 9.0, NAN], ["p"] * 4), ["x"], TRAIN, "median")
    assert filled.numbers["x"].tolist() == [1.0, 2.0, 9.0, 2.0]


def test_a_flag_is_one_more_input_for_a_column_with_gaps_in_training() -> None:
    filled, names, fill = fill_gaps(FOUR, ["x", "w"], TRAIN, "mean+flag")
    assert names == ["x", "w", "x is missing"]
    assert filled.numbers["x is missing"].tolist() == [0.0, 1.0, 0.0, 0.0]
    assert fill.flags == ("x",)
    later = columns([1.0, 2.0, 3.0, NAN], ["p"] * 4)
    assert fill_gaps(later, ["x"], TRAIN, "mean+flag")[2].flags == ()  # in training the flag would be 0 throughout


def test_a_column_without_a_training_value_has_no_mean() -> None:
    empty = columns([NAN, NAN, NAN, 5.0], ["p"] * 4)
    with pytest.raises(UserError, match=r"column 'x' of t.csv has no value in the training tasks, so it has no mean"):
        fill_gaps(empty, ["x"], TRAIN, "mean+flag")
    assert fill_gaps(empty, ["x"], TRAIN, "zero")[0].numbers["x"].tolist() == [0.0, 0.0, 0.0, 5.0]


def test_rows_without_a_target_or_an_input_are_left_out_and_counted(caplog: pytest.LogCaptureFixture) -> None:
    kept = without_gaps(FOUR, ["x", "w"], ["y"], "mean", "drop")
    assert kept.lines.tolist() == [2, 4, 5]
    assert "1 of the 4 rows of t.csv have no target and are left out" in caplog.text
    assert (kept.words["w"].known, kept.words["w"].codes.tolist()) == (["p", "q"], [0, 1, 0])
    by_word = columns([1.0, 2.0, 3.0, 4.0], ["p", "", "q", "p"])
    assert without_gaps(by_word, ["x", "w"], ["y"], "drop", "refuse").lines.tolist() == [2, 4, 5]
    assert "have no input and are left out" in caplog.text
    assert without_gaps(FOUR, ["x"], ["y"], "mean", "refuse") is FOUR


def test_a_table_without_a_whole_row_is_refused() -> None:
    with pytest.raises(UserError, match=r"each row of t.csv lacks a value"):
        without_gaps(columns([NAN] * 4, ["p"] * 4), ["x"], ["y"], "drop", "refuse")


def test_an_empty_word_is_missing_and_na_is_a_word() -> None:
    assert is_missing(columns([1.0] * 4, ["", "na", "None", ""]), "w").tolist() == [True, False, False, True]


TEXT = """t,x,w,y
a,1,p,10
a,NA,,20
a,4,q,30
b,3,p,40
b,,q,50
c,100,p,60
c,nan,p,70
d,7,,80
d,?,q,90
"""


def read(folder: Path, text: str = TEXT, **options: Any) -> TableTasks:
    (folder / "t.csv").write_text(text)
    known = {"task_column": "t", "target": "y", "categorical": ["w"], "tasks": SPLIT, "shots": 1, "queries": 1}
    return table(path=str(folder / "t.csv"), **known | options)


def raw(source: TableTasks) -> torch.Tensor:
    return source.x * source.inputs.std + source.inputs.mean


def test_a_table_with_gaps_is_read_by_the_rule(tmp_path: Path) -> None:
    """Training values of x: 1, 4, 3. The inputs are x, the words "", p and q, and the flag of x."""
    source = read(tmp_path, missing="median+flag")
    torch.testing.assert_close(raw(source)[:, 0].tolist(), [1.0, 3.0, 4.0, 3.0, 3.0, 100.0, 3.0, 7.0, 3.0], rtol=1e-4, atol=1e-4)
    assert raw(source)[:, 1:].round().abs().tolist()[:3] == [[0, 1, 0, 0], [1, 0, 0, 1], [0, 0, 1, 0]]
    assert raw(source)[-1, 1:].round().abs().tolist() == [0, 0, 1, 1]


def test_values_of_other_tasks_change_no_input_of_the_training(tmp_path: Path) -> None:
    first = read(tmp_path, missing="mean")
    other = read(tmp_path, TEXT.replace("c,100,", "c,-55,").replace("d,7,", "d,NA,"), missing="mean")
    torch.testing.assert_close(first.x[:5], other.x[:5], rtol=0, atol=0)
    assert not torch.equal(first.x[5:], other.x[5:])


def test_gaps_are_refused_by_default_with_the_rules_that_there_are(tmp_path: Path) -> None:
    with pytest.raises(UserError, match=r"line 3 of .* has no value in column 'w'; .*task.missing=mean .*task.missing=drop"):
        read(tmp_path)
    with pytest.raises(UserError, match=r"line 3 of .* has no value \('NA'\) in column 'x'; .*task.missing=drop"):
        read(tmp_path, features=["x"], categorical=[])


def test_a_missing_target_is_never_filled(tmp_path: Path, caplog: pytest.LogCaptureFixture) -> None:
    text = TEXT.replace("a,4,q,30", "a,4,q,NA")
    with pytest.raises(UserError, match=r"line 4 of .* no value \('NA'\) in column 'y'; .*task.missing_target=drop"):
        read(tmp_path, text, missing="mean")
    source = read(tmp_path, text, missing="mean", missing_target="drop")
    assert source.counts == {"a": 2, "b": 2, "c": 2, "d": 2}
    assert "1 of the 9 rows" in caplog.text


def test_a_task_whose_rows_are_all_left_out_is_no_task(tmp_path: Path) -> None:
    text = "t,x,y\n" + "".join(f"{task},{row},{row if task != 'e' else 'NA'}\n" for task in "abcde" for row in range(3))
    source = read(tmp_path, text, categorical=[], tasks=None, missing_target="drop")
    assert sorted(name for names in source.tasks.values() for name in names) == ["a", "b", "c", "d"]


def test_the_task_of_a_row_is_always_needed(tmp_path: Path) -> None:
    with pytest.raises(UserError, match=r"line 3 of .* has no value in column 't'; fill it in or remove the row\.$"):
        read(tmp_path, TEXT.replace("a,NA,,20", ",NA,,20"), missing="mean")


@pytest.mark.parametrize("rule", ["mean", "median+flag", "zero+flag"])
def test_a_stored_preparation_fills_new_rows_as_the_table_did(rule: str, tmp_path: Path) -> None:
    source = read(tmp_path, missing=rule)
    made = source.preparation()
    assert made is not None
    again = preparation_of(made.stored(), (source.x.shape[1],), 1)
    cells = [line.split(",")[1:3] for line in TEXT.splitlines()[1:]]
    rows = {"x": [cell[0] for cell in cells], "w": [cell[1] for cell in cells]}
    torch.testing.assert_close(again.inputs(rows), source.x, rtol=0, atol=0)
    others = {"x": [1.0, None, 4.0, 3.0, NAN], "w": ["p", None, "q", "p", "q"]}
    torch.testing.assert_close(again.inputs(others), source.x[:5], rtol=0, atol=0)


def test_a_preparation_without_a_rule_refuses_gaps(tmp_path: Path) -> None:
    whole = "".join(f"{task},{row},p,{row}\n" for task in "abcd" for row in range(2))
    source = read(tmp_path, f"t,x,w,y\n{whole}a,,p,1\n", missing="drop")
    assert len(source.x) == 8
    made = source.preparation()
    assert made is not None
    for x, w, said in [(None, "p", "row 0 has no value in column 'x'"), ("NA", "p", "no value"), (1.0, None, "no value in column 'w'")]:
        with pytest.raises(UserError, match=said):
            made.inputs({"x": [x], "w": [w]})


GOOD = {"missing": "mean+flag", "fills": {"x": 1.0, "z": 2.0}, "flags": ["z"]}


@pytest.mark.parametrize(
    "change",
    [
        {"missing": "guess"},
        {"missing": ["mean"]},
        {"missing": "mean"},
        {"fills": {"x": 1.0}},
        {"fills": {"x": 1.0, "z": math.inf}},
        {"fills": {"x": 1.0, "z": "2"}},
        {"fills": []},
        {"flags": ["w"]},
        {"flags": ["z", "z"]},
        {"flags": [1]},
        {"missing": "refuse", "flags": []},
    ],
)
def test_a_checkpoint_with_another_fill_than_its_columns_have_is_not_read(change: dict[str, Any]) -> None:
    assert stored_fill(GOOD, ["x", "z"]) == Fill("mean+flag", {"x": 1.0, "z": 2.0}, ("z",))
    assert stored_fill(GOOD | change, ["x", "z"]) is None
    assert stored_fill({}, ["x"]) == Fill()  # a checkpoint of before the rules


def test_every_rule_is_known() -> None:
    assert {rule for rule in RULES if Fill(rule).fills} == {f"{how}{flag}" for how in ("mean", "median", "zero") for flag in ("", "+flag")}
