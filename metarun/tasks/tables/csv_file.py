"""The rows of a CSV file with their line numbers, or one sentence that says why the file cannot be read.

Line numbers are those of a text editor: quoted fields may have several lines, and blank lines count.
"""

from __future__ import annotations

import csv
import re
import stat
from collections import Counter
from collections.abc import Iterable, Iterator, Sequence
from dataclasses import dataclass
from pathlib import Path
from typing import Annotated

from metarun.errors import UserError, printable
from metarun.files.paths import expanded
from metarun.values import Form

Delimiter = Annotated[str, Form(r"comma|semicolon|tab|pipe|[^\"\r\n]", "one character, comma, semicolon, tab or pipe")]

DELIMITERS = {"comma": ",", "semicolon": ";", "tab": "\t", "pipe": "|"}
"""The delimiters that metarun tries, by the names that `task.delimiter` may have."""

_SIGNATURES = (
    (b"PK\x03\x04", "an Excel workbook or another zip archive; save the table as CSV"),
    (b"\xd0\xcf\x11\xe0", "an Excel workbook; save the table as CSV"),
    (b"\x1f\x8b", "compressed by gzip; unpack it"),
    (b"BZh", "compressed by bzip2; unpack it"),
    (b"\xfd7zXZ", "compressed by xz; unpack it"),
    (b"\x28\xb5\x2f\xfd", "compressed by zstd; unpack it"),
    (b"PAR1", "a Parquet file; write the table as CSV"),
    (b"ARROW1", "an Arrow file; write the table as CSV"),
    (b"FEA1", "a Feather file; write the table as CSV"),
    (b"\x89HDF", "an HDF5 file; write the table as CSV"),
    (b"SQLite format 3", "an SQLite database; export the table as CSV"),
    (b"\x93NUMPY", "a NumPy array; write the table as CSV"),
    (b"\x80\x04\x95", "a pickle; write the table as CSV"),
    (b"%PDF", "a PDF; write the table as CSV"),
)
"""How files begin that are no text, and what they are."""

_UTF_16 = (b"\xff\xfe", b"\xfe\xff")
_NUMBER = re.compile(r"\s*[+-]?(\d+([.,]\d*)?|[.,]\d+)([eE][+-]?\d+)?\s*")


@dataclass(frozen=True)
class CsvFile:
    """A CSV file whose header has been read.

    path: as messages show it. header: the names of the columns, without spaces around them. delimiter: one character.
    """

    file: Path
    path: str
    header: tuple[str, ...]
    delimiter: str
    encoding: str

    def rows(self) -> Iterator[tuple[int, list[str]]]:
        """Yield the line on which each row below the header begins, and its fields; UserError for a row of another length."""
        width = len(self.header)
        rows = _records(self.file, self.path, self.encoding, self.delimiter)
        next(rows)  # the header
        for line, row in rows:
            if len(row) == width:
                yield line, row
            else:
                raise UserError(
                    f"line {line} of {self.path} has {len(row)} fields, but the header has {width} columns; "
                    f"add or remove {_named(self.delimiter)}s{_hint(self, row)}."
                )


def open_csv(path: str, delimiter: str | None = None, needed: Sequence[str] = ()) -> CsvFile:
    """Read the header of a CSV file in UTF-8, or in UTF-16 with a byte order mark.

    delimiter: a character or a name of `DELIMITERS`; None for the one of `DELIMITERS` with which the header has the `needed` columns, or
    the most columns where none are needed.
    Raises UserError for a file that is no CSV file, and for a header in which a name occurs twice.
    """
    file, shown = expanded(path), printable(str(path))
    encoding = _encoding(file, shown)
    if delimiter is not None:
        delimiter = DELIMITERS.get(delimiter, delimiter) if isinstance(delimiter, str) else ""
        if len(delimiter) != 1 or delimiter in '"\r\n':
            raise UserError("task.delimiter must be one character, comma, semicolon, tab or pipe.")
        headers = {delimiter: _header(file, shown, encoding, delimiter)}
    else:
        headers = _headers(file, shown, encoding)
    fitting = [each for each, header in headers.items() if needed and set(needed) <= set(header)]
    best = fitting[0] if fitting else max(headers, key=lambda each: len(headers[each]))
    header = headers[best]
    repeated = [name for name, count in Counter(header).items() if count > 1]
    if repeated and set(needed) <= set(header):  # else the caller says which columns there are
        name = printable(min(repeated))
        raise UserError(
            f"task.path={shown} has more than one column '{name}'; rename one of them."
            if name
            else f"task.path={shown} has {header.count('')} columns without a name; name them, or remove them if they are empty."
        )
    return CsvFile(file, shown, header, best, encoding)


def looks_like_data(header: Iterable[str]) -> bool:
    """Return whether a name of a header is a number, so that the file has probably no header."""
    return any(_NUMBER.fullmatch(name) for name in header)


def plain_name(name: str) -> str:
    """Return the name of a column in small letters, without signs between the words."""
    return re.sub(r"[\W_]", "", name).lower()


def _encoding(file: Path, shown: str) -> str:
    """Return the encoding of a text file; UserError for anything else."""
    try:
        mode = file.stat().st_mode
        if not stat.S_ISREG(mode):
            kind = "a folder" if stat.S_ISDIR(mode) else "a pipe, a socket or a device"
            raise UserError(f"task.path={shown} is {kind}; it must be a CSV file.")
        with file.open("rb") as stream:
            start = stream.read(16)
    except (FileNotFoundError, NotADirectoryError, ValueError):
        raise UserError(f"task.path={shown}: there is no such file.") from None
    except OSError as error:
        raise UserError(f"task.path={shown} cannot be opened ({error.strerror}).") from error
    for signature, kind in _SIGNATURES:
        if start.startswith(signature):
            raise UserError(f"task.path={shown} is {kind}.")
    return "utf-16" if start.startswith(_UTF_16) else "utf-8-sig"


def _headers(file: Path, shown: str, encoding: str) -> dict[str, tuple[str, ...]]:
    """Return the header under each delimiter that can read it."""
    headers, failed = {}, None
    for delimiter in DELIMITERS.values():
        try:
            headers[delimiter] = _header(file, shown, encoding, delimiter)
        except UserError as error:
            failed = failed or error
    if not headers and failed:
        raise failed
    return headers


def _header(file: Path, shown: str, encoding: str, delimiter: str) -> tuple[str, ...]:
    for _, header in _records(file, shown, encoding, delimiter):
        return tuple(name.strip() for name in header)
    raise UserError(f"task.path={shown} is empty; it needs a header line and rows below it.")


def _records(file: Path, shown: str, encoding: str, delimiter: str) -> Iterator[tuple[int, list[str]]]:
    """Yield the first line and the fields of each record that has a field with text, without remarks above the header."""
    line, above = 1, True
    try:
        with file.open(newline="", encoding=encoding) as stream:
            reader = csv.reader(_lines(stream, shown), delimiter=delimiter, strict=True)
            for row in reader:
                if any(row) and (len(row) > 1 or row[0].strip()) and not (above and _is_remark(row)):
                    above = False
                    yield line, row
                line = reader.line_num + 1
    except UnicodeError as error:
        raise UserError(_undecodable(file, shown, encoding)) from error
    except csv.Error as error:
        raise UserError(f"line {line} of {shown} cannot be read as CSV: {_why(error)}.") from error
    except OSError as error:
        raise UserError(f"task.path={shown} cannot be read ({error.strerror}).") from error


def _is_remark(row: Sequence[str]) -> bool:
    """Return whether a record above the header is a comment, or names the delimiter as Excel does (`sep=;`)."""
    text = "".join(row).strip()
    return (len(row) == 1 and text.startswith("#")) or (text.lower().startswith("sep=") and len(text) <= len("sep=;"))


def _lines(stream: Iterable[str], shown: str) -> Iterator[str]:
    for number, line in enumerate(stream, 1):
        if "\0" in line:
            raise UserError(f"line {number} of {shown} has a NUL character; the file is no text, or UTF-16 without a byte order mark.")
        yield line


def _undecodable(file: Path, shown: str, encoding: str) -> str:
    if encoding == "utf-16":
        return f"task.path={shown} cannot be read as a CSV file in UTF-16; save it as CSV in UTF-8."
    with file.open("rb") as stream:
        for number, line in enumerate(stream, 1):
            try:
                line.decode("utf-8")
            except UnicodeDecodeError as error:
                return (
                    f"line {number} of {shown} has the byte 0x{line[error.start]:02x}, which is not UTF-8 there; "
                    "save the file as CSV in UTF-8."
                )
    return f"task.path={shown} cannot be read as a CSV file in UTF-8."


def _why(error: csv.Error) -> str:
    text = str(error)
    if "end of data" in text:
        return "a quote is opened and not closed; close it"
    if "field limit" in text:
        return f"a field has more than {csv.field_size_limit():,} characters; is a quote not closed?"
    if "expected after" in text:
        return "text follows a closing quote; write a quote inside a field twice"
    return text


def _named(delimiter: str) -> str:
    return next((name for name, character in DELIMITERS.items() if character == delimiter), f"'{delimiter}'")


def _hint(file: CsvFile, row: Sequence[str]) -> str:
    """Return a remark on another delimiter where the file has one column."""
    text = "".join((*file.header, *row))
    others = [name for name, character in DELIMITERS.items() if character != file.delimiter and character in text]
    return f", or set task.delimiter={others[0]}" if others else ""
