"""The reader of plain pickles: it rebuilds arrays of each protocol, and runs nothing that a file names."""

from __future__ import annotations

import pickle
from pathlib import Path
from typing import Any

import numpy as np
import pytest

from metarun.errors import UserError
from metarun.tasks.pictures.plain_pickle import read_plain


class Touches:
    """Its pickle calls `Path.touch` of a file when it is loaded."""

    def __init__(self, file: Path) -> None:
        self.file = file

    def __reduce__(self) -> Any:
        return Path.touch, (self.file,)


@pytest.mark.parametrize("protocol", range(pickle.HIGHEST_PROTOCOL + 1))
def test_arrays_lists_text_and_bytes_come_back(protocol: int, tmp_path: Path) -> None:
    content = {"data": np.arange(6, dtype=np.uint8).reshape(2, 3), "fine_labels": [3, 4], b"name": "é", "bytes": b"\xff\x00"}
    (tmp_path / "x").write_bytes(pickle.dumps(content, protocol=protocol))
    found = read_plain(tmp_path / "x")
    assert found["data"].tolist() == [[0, 1, 2], [3, 4, 5]]
    assert (found["fine_labels"], found["name"], found["bytes"]) == ([3, 4], "é", b"\xff\x00")


def test_an_array_as_python_2_writes_it_is_read(tmp_path: Path) -> None:
    """Protocol 2 of Python 2: the bytes of an array are a SHORT_BINSTRING, which the reader decodes by Latin-1."""
    written = (
        b"\x80\x02}U\x04datacnumpy.core.multiarray\n_reconstruct\ncnumpy\nndarray\nK\x00\x85U\x01b\x87R"
        b"(K\x01K\x02\x85cnumpy\ndtype\nU\x02u1K\x00K\x01\x87R(K\x03U\x01|NNNJ\xff\xff\xff\xffJ\xff\xff\xff\xffK\x00tb\x89U\x02\x07\xfftbs."
    )
    (tmp_path / "x").write_bytes(written)
    assert read_plain(tmp_path / "x")["data"].tolist() == [7, 255]


def test_a_pickle_that_names_code_is_refused_and_nothing_runs(tmp_path: Path) -> None:
    (tmp_path / "x").write_bytes(pickle.dumps({"data": Touches(tmp_path / "ran")}))
    with pytest.raises(UserError, match=r"is a pickle that names the code .*; metarun does not run code of a data set"):
        read_plain(tmp_path / "x")
    assert not (tmp_path / "ran").exists()


@pytest.mark.parametrize("content", [b"", b"no pickle", pickle.dumps({"a": 1})[:-3], b"\x80\x04\x95"])
def test_damaged_files_are_refused(content: bytes, tmp_path: Path) -> None:
    (tmp_path / "x").write_bytes(content)
    with pytest.raises(UserError, match="is damaged, or no pickle"):
        read_plain(tmp_path / "x")


def test_other_content_and_absent_files_are_refused(tmp_path: Path) -> None:
    (tmp_path / "x").write_bytes(pickle.dumps([1, 2]))
    with pytest.raises(UserError, match="holds no dictionary"):
        read_plain(tmp_path / "x")
    with pytest.raises(UserError, match="cannot read"):
        read_plain(tmp_path / "absent")
