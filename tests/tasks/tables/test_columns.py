"""Columns of words and of numbers: which texts are numbers, decimal commas, missing and outlandish values."""

from __future__ import annotations

import logging
from pathlib import Path

import numpy as np
import pytest

from metarun.errors import UserError
from metarun.tasks.tables.columns import Columns, check_range, read_columns
from metarun.tasks.tables.csv_file import open_csv


def read(folder: Path, texts: list[str], decimal: str | None = None, delimiter: str = ";") -> Columns:
    """Read a column x of numbers, from line 2 on, beside a column t of words."""
    path = folder / "data.csv"
    path.write_text(delimiter.join("tx") + "\n" + "".join(f"t{delimiter}{text}\n" for text in texts), encoding="utf-8")
    return read_columns(open_csv(str(path), delimiter), {"t": "task"}, {"x": "feature"}, decimal)


def numbers(folder: Path, texts: list[str], decimal: str | None = None) -> list[float]:
    return read(folder, texts, decimal).numbers["x"].tolist()


def test_numbers_are_what_a_program_writes(tmp_path: Path) -> None:
    texts = ["1", "-2.5", "+.5", "3.", "1e3", "-1.5E-3", " 7 ", "0", "-0", "1e-400", "00012"]
    assert numbers(tmp_path, texts) == [1, -2.5, 0.5, 3, 1000, -0.0015, 7, 0, 0, 0, 12]


@pytest.mark.parametrize(
    "text",
    ["1_0", "1_000.5", "١٢", "\uff11\uff12", "0x10", "1 000", "1.5d3", "50%", "$3", "1e", "--1", "1.2.3", "-", ".", "inf", "Infinity"],
)
def test_other_texts_are_no_numbers(tmp_path: Path, text: str) -> None:
    with pytest.raises(
        UserError, match=r"line 3 of .*data\.csv has '.*' in the feature column 'x', which is not a number; .*task\.categorical"
    ):
        numbers(tmp_path, ["1", text, "2"])


@pytest.mark.parametrize("text", ["1e400", "-1e999", "1" * 400])
def test_a_number_that_is_too_large_is_told(tmp_path: Path, text: str) -> None:
    with pytest.raises(UserError, match=r"line 3 of .* in the feature column 'x', which is too large"):
        numbers(tmp_path, ["1", text])


@pytest.mark.parametrize("text", ["", "  ", "NA", "n/a", "NaN", "null", "None", "?"])
def test_a_missing_number_is_told(tmp_path: Path, text: str) -> None:
    with pytest.raises(UserError, match=r"line 3 of .* has no value.* in column 'x'; fill it in or remove the row"):
        numbers(tmp_path, ["1", text])


def test_in_a_column_of_words_these_texts_are_words(tmp_path: Path) -> None:
    path = tmp_path / "data.csv"
    path.write_text("w\nNA\nNone\n nan \nnull\n?\nN/A\nNA\n1_0\n")
    words = read_columns(open_csv(str(path)), {"w": "feature"}, {}).words["w"]
    assert words.known == ["NA", "None", "nan", "null", "?", "N/A", "1_0"]
    assert words.codes.tolist() == [0, 1, 2, 3, 4, 5, 0, 6]
    path.write_text("w,x\na,1\n ,2\n")
    with pytest.raises(UserError, match=r"line 3 of .* has no value in column 'w'"):
        read_columns(open_csv(str(path)), {"w": "feature"}, {})


def test_decimal_commas_are_found_where_no_number_has_a_point(tmp_path: Path) -> None:
    assert numbers(tmp_path, ["1", "2,5", "-1,234", "1,5e3", ",5", "7,"]) == [1, 2.5, -1.234, 1500, 0.5, 7]
    assert numbers(tmp_path, ["1", "1234,567"]) == [1, 1234.567]
    assert numbers(tmp_path, ["1,234", "2,000"], decimal="comma") == [1.234, 2]
    assert read(tmp_path, ['"2,5"', '"0,125"'], delimiter=",").numbers["x"].tolist() == [2.5, 0.125]


@pytest.mark.parametrize(
    ("texts", "decimal", "sentence"),
    [
        (["1,234", "12"], None, "has numbers such as 1,234, whose comma is a decimal sign or stands between thousands; set task.decimal"),
        (["2,5", "1.5"], None, "line 3 of .* has '1.5' in column 'x', but the decimal sign is a comma"),
        (["2,5", "1.234,5"], None, r"line 3 of .* has '1\.234,5' .* which is not a number"),
        (["1,234,567"], None, "line 2 of .* has '1,234,567' .* which is not a number"),
        (["2,5"], ".", "line 2 of .* has '2,5' .* which is not a number"),
        (["1"], ";", r"task\.decimal must be point or comma"),
    ],
)
def test_commas_that_could_mean_two_things_are_refused(tmp_path: Path, texts: list[str], decimal: str | None, sentence: str) -> None:
    with pytest.raises(UserError, match=sentence):
        numbers(tmp_path, texts, decimal)


def test_lines_of_later_blocks_are_right(tmp_path: Path) -> None:
    texts = ["1"] * 10_000
    assert read(tmp_path, texts).lines.tolist() == list(range(2, 10_002))
    texts[9_500] = "x"
    with pytest.raises(UserError, match=r"line 9502 of"):
        read(tmp_path, texts)


RANDOM = np.random.default_rng(0)


@pytest.mark.parametrize("value", [-1.797e308, 1e308, 1e30, -1e12, 1e9])
@pytest.mark.parametrize("count", [1, 3])
def test_a_value_beside_which_all_others_are_equal_is_refused(value: float, count: int) -> None:
    values = RANDOM.normal(3, 2, 200)
    values[17 : 17 + count] = value
    with pytest.raises(UserError, match=r"line 19 of f has .* in the target column 'y', while half of the values lie within"):
        check_range(values, np.arange(200) + 2, "y", "target", "f")


@pytest.mark.parametrize(
    "values",
    [
        np.full(50, 7.0),
        np.array([0.0] * 50 + [1e9]),
        np.array([0.0] * 50 + [1.0] * 2),
        np.array([0.0, 1e30]),
        np.array([5.0]),
        RANDOM.standard_cauchy(20_000),
        RANDOM.pareto(1, 20_000),
        RANDOM.lognormal(0, 4, 20_000),
        np.repeat([0.0, 1e12], 50),
        np.concatenate([np.zeros(60), np.full(10, 1e-17), np.linspace(1, 2, 30)]),
        1e-200 * RANDOM.normal(size=100),
        10.0 ** np.arange(-100, 100, 2),
    ],
)
def test_honest_columns_are_not_refused(values: np.ndarray) -> None:
    check_range(values, np.arange(len(values)) + 2, "y", "target", "f")


def test_a_value_far_from_the_others_is_told(caplog: pytest.LogCaptureFixture) -> None:
    values = RANDOM.normal(0, 1, 100)
    values[40] = 1e5
    with caplog.at_level(logging.WARNING):
        check_range(values, np.arange(100) + 2, "x", "feature", "f")
    assert "line 42 of f has 100000 in the feature column 'x'" in caplog.text
