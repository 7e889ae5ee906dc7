"""The zip archive of a checkpoint."""

from __future__ import annotations

import io
import zipfile
from pathlib import Path

import pytest
import torch

from metarun.records.archive import DIRECTORY, Archive, DamagedError, StrangeError, is_whole, opened


def test_the_members_of_a_saved_file_are_read(tmp_path: Path) -> None:
    torch.save([torch.arange(4.0)], tmp_path / "x.pt")
    with opened(tmp_path / "x.pt") as file:
        archive = Archive(file, tmp_path / "x.pt")
        assert archive.size_of("data/0") == 16
        assert archive.size_of("data/1") is None
        memory = bytearray(16)
        archive.read_into("data/0", memoryview(memory))
        assert bytes(memory) == archive.read("data/0") == torch.arange(4.0).numpy().tobytes()
        assert archive.agrees()
    assert is_whole(tmp_path / "x.pt")


def test_a_file_larger_than_4_gb_would_name_its_directory_elsewhere() -> None:
    """torch always writes the larger form of the end; the plain end may then be all ones."""
    buffer = io.BytesIO()
    torch.save([1], buffer)
    whole = bytearray(buffer.getvalue())
    assert whole[-98:-94] == b"PK\x06\x06"
    large = len(whole) - 98 + 40
    whole[-10:-6] = b"\xff" * 4
    whole[large : large + 8] = (DIRECTORY + 1).to_bytes(8, "little")
    with pytest.raises(StrangeError):
        Archive(io.BytesIO(whole), Path("x"))


@pytest.mark.parametrize("kept", [0, 1, 2, 21, 22, 97, 98, 300])
def test_a_file_that_is_cut_short_is_damaged(tmp_path: Path, kept: int) -> None:
    torch.save([torch.zeros(100)], tmp_path / "x.pt")
    (tmp_path / "x.pt").write_bytes((tmp_path / "x.pt").read_bytes()[:kept])
    with opened(tmp_path / "x.pt") as file, pytest.raises((DamagedError, StrangeError)):
        Archive(file, tmp_path / "x.pt")
    assert not is_whole(tmp_path / "x.pt")


def test_another_archive_is_no_checkpoint(tmp_path: Path) -> None:
    with zipfile.ZipFile(tmp_path / "x.pt", "w") as file:
        file.writestr("notes.txt", "hello")
    with opened(tmp_path / "x.pt") as file, pytest.raises(StrangeError):
        Archive(file, tmp_path / "x.pt")


def test_what_is_not_there_is_not_whole(tmp_path: Path) -> None:
    assert not is_whole(tmp_path / "nowhere.pt")
    assert not is_whole(tmp_path)
