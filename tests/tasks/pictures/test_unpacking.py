"""Tar archives of data sets: unpacked once, again after a change, and never outside of their folder."""

from __future__ import annotations

import io
import os
import tarfile
from pathlib import Path

import pytest

from metarun.errors import UserError
from metarun.tasks.pictures import unpacking as module
from metarun.tasks.pictures.unpacking import unpacked


@pytest.fixture(autouse=True)
def cache(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setenv("METARUN_CACHE", str(tmp_path / "cache"))


def write(path: Path, *names: str, kind: str = "w:gz") -> Path:
    with tarfile.open(path, kind) as archive:
        for name in names:
            info = tarfile.TarInfo(name)
            info.size = len(name)
            archive.addfile(info, io.BytesIO(name.encode()))
    return path


def names_in(folder: Path) -> list[str]:
    return sorted(file.relative_to(folder).as_posix() for file in folder.rglob("*") if file.is_file())


@pytest.mark.parametrize(("name", "kind"), [("a.tgz", "w:gz"), ("A.TAR.GZ", "w:gz"), ("a.tar", "w"), ("a.tar.bz2", "w:bz2")])
def test_an_archive_becomes_a_folder_once(name: str, kind: str, tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    archive = write(tmp_path / name, "set/x/1.png", "set/2.png", kind=kind)
    folder = unpacked(archive)
    assert names_in(folder) == ["set/2.png", "set/x/1.png"]
    monkeypatch.setattr(module, "_unpack", None)
    assert unpacked(archive) == folder


def test_a_changed_archive_is_unpacked_again(tmp_path: Path) -> None:
    first = unpacked(write(tmp_path / "a.tgz", "1.png"))
    write(tmp_path / "a.tgz", "1.png", "2.png")
    os.utime(tmp_path / "a.tgz", (1, 1))
    second = unpacked(tmp_path / "a.tgz")
    assert (names_in(first), names_in(second)) == (["1.png"], ["1.png", "2.png"])


def test_folders_zips_and_absent_files_stay_as_they_are(tmp_path: Path) -> None:
    (tmp_path / "a.zip").write_bytes(b"x")
    (tmp_path / "b.tgz").mkdir()
    for path in (tmp_path, tmp_path / "a.zip", tmp_path / "b.tgz", tmp_path / "absent.tgz"):
        assert unpacked(path) == path


def test_an_entry_outside_the_archive_is_refused_and_nothing_is_left(tmp_path: Path) -> None:
    archive = write(tmp_path / "a.tgz", "good.png", "../../outside.png")
    with pytest.raises(UserError, match=r"cannot unpack .*outside"):
        unpacked(archive)
    assert names_in(tmp_path) == ["a.tgz"]


def test_a_damaged_archive_is_refused_and_nothing_is_left(tmp_path: Path) -> None:
    archive = write(tmp_path / "a.tgz", *(f"{number}.png" for number in range(50)))
    archive.write_bytes(archive.read_bytes()[:-40])
    with pytest.raises(UserError, match=r"cannot unpack .* unpack it yourself"):
        unpacked(archive)
    assert names_in(tmp_path) == ["a.tgz"]
