"""Reading a CSV file's rows: delimiters, encodings, line numbers, and files that are none."""

from __future__ import annotations

import os
from pathlib import Path

import pytest

from metarun.errors import UserError
from metarun.tasks.tables.csv_file import looks_like_data, open_csv


def a_file(folder: Path, data: str | bytes) -> str:
    path = folder / "data.csv"
    path.write_bytes(data if isinstance(data, bytes) else data.encode())
    return str(path)


@pytest.mark.parametrize("mark", [";", "\t", "|", ","])
def test_the_delimiter_is_the_one_with_which_the_header_has_the_columns(tmp_path: Path, mark: str) -> None:
    path = a_file(
        tmp_path, mark.join(["shop", "price, net;|", "y"]).replace("price, net;|", '"price, net;|"') + "\n" + mark.join("a1b") + "\n"
    )
    file = open_csv(path, needed=["shop", "y"])
    assert (file.delimiter, file.header) == (mark, ("shop", "price, net;|", "y"))


@pytest.mark.parametrize("name", ["semicolon", ";"])
def test_a_delimiter_may_be_given_by_character_or_name(tmp_path: Path, name: str) -> None:
    assert open_csv(a_file(tmp_path, "a,b;c\n1,2;3\n"), name).header == ("a,b", "c")
    for wrong in ("", ";;", '"', "\n", 3):
        with pytest.raises(UserError, match=r"task\.delimiter must be one character"):
            open_csv(a_file(tmp_path, "a,b\n"), wrong)


@pytest.mark.parametrize("encoding", ["utf-8", "utf-8-sig", "utf-16"])
@pytest.mark.parametrize("end", ["\n", "\r\n", "\r"])
def test_encodings_and_ends_of_lines(tmp_path: Path, encoding: str, end: str) -> None:
    file = open_csv(a_file(tmp_path, end.join(["größe , b", "1,2", "3,4", ""]).encode(encoding)))
    assert file.header == ("größe", "b")
    assert list(file.rows()) == [(2, ["1", "2"]), (3, ["3", "4"])]


def test_line_numbers_are_those_of_an_editor(tmp_path: Path) -> None:
    text = 'a,b\n\n"two\nlines",2\n   \n,\n5,"6\n\n7"\n9,10\n'
    assert list(open_csv(a_file(tmp_path, text)).rows()) == [(3, ["two\nlines", "2"]), (7, ["5", "6\n\n7"]), (10, ["9", "10"])]


@pytest.mark.parametrize(
    ("text", "sentence"),
    [
        ("", "is empty; it needs a header line"),
        ("\n\n", "is empty"),
        ("a,b\n\n1,2\n3\n", "line 4 of .* has 1 fields, but the header has 2 columns; add or remove commas"),
        ("a,b\n1,2,3\n", "line 2 of .* has 3 fields"),
        ("a,b\n# note\n", "line 2 of .* has 1 fields"),
        ('a,b\n1,"2\n3,4\n', "line 2 of .* cannot be read as CSV: a quote is opened and not closed"),
        ('a,b\n1,"2"x\n', "line 2 of .* text follows a closing quote"),
        ("a,b\n1," + "x" * 140_000 + "\n", "line 2 of .* a field has more than 131,072 characters"),
        ("a,b\n1,2\n1,\0\n", "line 3 of .* has a NUL character"),
        ("a,,\n1,,\n", "has 2 columns without a name"),
        ("a, b,b\n1,2,3\n", "has more than one column 'b'"),
        ("a;b\n1,2;3,4;5\n", "line 2 of .* has 3 fields, .* add or remove semicolons, or set task.delimiter=comma"),
        ("größe\nx\n".encode("latin-1"), "line 1 of .* has the byte 0xf6, which is not UTF-8 there"),
        ("a\n1\nü\n".encode("cp1252"), "line 3 of .* has the byte 0xfc"),
        ("a,b\n1,2\n".encode("utf-16-le"), "line 1 of .* has a NUL character"),
        (b"\xff\xfea", "cannot be read as a CSV file in UTF-16"),
        (b"\x1f\x8b\x08" + bytes(20), "is compressed by gzip; unpack it"),
        (b"PK\x03\x04" + bytes(20), "is an Excel workbook or another zip archive; save the table as CSV"),
        (b"PAR1" + bytes(20), "is a Parquet file"),
        (b"\x89HDF\r\n", "is an HDF5 file"),
    ],
)
def test_what_cannot_be_read_is_told_with_its_line(tmp_path: Path, text: str | bytes, sentence: str) -> None:
    with pytest.raises(UserError, match=sentence) as raised:
        list(open_csv(a_file(tmp_path, text), needed=["a"]).rows())
    assert str(raised.value).isprintable()


def test_what_is_no_file_is_told(tmp_path: Path) -> None:
    for path in ("nowhere.csv", "a\0b", f"{a_file(tmp_path, 'a')}/b"):
        with pytest.raises(UserError, match="there is no such file"):
            open_csv(path)
    with pytest.raises(UserError, match="is a folder; it must be a CSV file"):
        open_csv(str(tmp_path))
    with pytest.raises(UserError, match="is a pipe, a socket or a device"):
        open_csv(os.devnull)
    with pytest.raises(UserError, match="cannot be opened"):
        open_csv("x" * 5000)


def test_a_header_of_numbers_looks_like_data() -> None:
    for number in ("1", "-2.5e3", "0,5", " 7 "):
        assert looks_like_data(["a", number])
    assert not looks_like_data(["a", "b1"])


@pytest.mark.parametrize("remark", ["# made by a program\n#\n", "sep=;\n", "\n  # note\n"])
def test_remarks_above_the_header_are_skipped(tmp_path: Path, remark: str) -> None:
    file = open_csv(a_file(tmp_path, remark + "a;b\n1;2\n"), needed=["a", "b"])
    assert (file.header, [row for _, row in file.rows()]) == (("a", "b"), [["1", "2"]])
    assert [line for line, _ in file.rows()] == [remark.count("\n") + 2]
    assert open_csv(a_file(tmp_path, "#a;b\n1;2\n"), needed=["b"]).header == ("#a", "b")
