"""Files are written whole or not at all, and through no planted link."""

from __future__ import annotations

import os
import stat
from collections.abc import Callable
from pathlib import Path

import pytest

from metarun.errors import UserError
from metarun.files import writing
from metarun.files.writing import keep_as, open_to_append, open_to_read, own_folder, remove_leftovers, replacing, write_text, write_whole


def names(folder: Path) -> list[str]:
    return sorted(path.name for path in folder.iterdir())


def test_a_file_is_replaced_whole_and_no_temporary_file_stays(tmp_path: Path) -> None:
    write_whole(tmp_path / "report.json", b"old")
    write_whole(tmp_path / "report.json", b"new")
    assert (tmp_path / "report.json").read_bytes() == b"new"
    assert names(tmp_path) == ["report.json"]


def test_an_exception_leaves_the_earlier_file_and_no_temporary_file(tmp_path: Path) -> None:
    write_whole(tmp_path / "report.json", b"old")

    def break_off() -> None:
        with replacing(tmp_path / "report.json") as file:
            file.write(b"half of the ne")
            raise KeyboardInterrupt

    with pytest.raises(KeyboardInterrupt):
        break_off()
    assert (tmp_path / "report.json").read_bytes() == b"old"
    assert names(tmp_path) == ["report.json"]


def test_a_link_in_the_place_of_the_file_is_replaced_and_what_it_names_stays(tmp_path: Path) -> None:
    victim = tmp_path / "victim"
    victim.write_text("mine")
    for plant in (os.symlink, os.link):
        target = tmp_path / plant.__name__
        plant(victim, target)
        write_whole(target, b"report")
        assert target.read_bytes() == b"report"
        assert not target.is_symlink()
    assert victim.read_text() == "mine"


def test_a_link_under_the_temporary_name_is_refused(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    """Also where somebody guesses the name: the file is opened with O_EXCL."""
    (tmp_path / "victim").write_text("mine")
    (tmp_path / "guessed").symlink_to(tmp_path / "victim")
    monkeypatch.setattr(writing, "temporary_name", lambda folder: folder / "guessed")
    with pytest.raises(FileExistsError):
        write_whole(tmp_path / "report.json", b"report")
    assert (tmp_path / "victim").read_text() == "mine"


def test_temporary_names_differ_and_are_short(tmp_path: Path) -> None:
    assert writing.temporary_name(tmp_path) != writing.temporary_name(tmp_path)
    write_whole(tmp_path / ("x" * 255), b"a name as long as names can be")


@pytest.mark.parametrize("umask", [0o000, 0o077, 0o777])
def test_a_private_file_has_its_mode_whatever_the_umask(tmp_path: Path, umask: int) -> None:
    before = os.umask(umask)
    try:
        with replacing(tmp_path / "library", mode=writing.PRIVATE, exact=True) as file:
            file.write(b"code")
    finally:
        os.umask(before)
    assert stat.S_IMODE((tmp_path / "library").stat().st_mode) == 0o600


def test_text_that_no_encoding_has_is_written_as_an_escape(tmp_path: Path) -> None:
    write_text(tmp_path / "report.json", "M\u00fcller \udcff")
    assert (tmp_path / "report.json").read_text(encoding="utf-8") == "M\u00fcller \\udcff"


def test_a_folder_that_cannot_be_written_is_a_sentence(tmp_path: Path) -> None:
    with pytest.raises(UserError, match=r"cannot write .*nowhere/scores\.csv: No such file or directory"):
        write_text(tmp_path / "nowhere/scores.csv", "1")


def test_a_file_is_kept_under_a_second_name_also_without_hard_links(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    def refuse(*_: object) -> None:
        raise OSError(1, "Operation not permitted")

    write_whole(tmp_path / "last.pt", b"1")
    keep_as(tmp_path / "last.pt", tmp_path / "previous.pt")
    keep_as(tmp_path / "last.pt", tmp_path / "previous.pt")  # now both names are of one file
    write_whole(tmp_path / "last.pt", b"2")
    assert (tmp_path / "previous.pt").read_bytes() == b"1"
    monkeypatch.setattr(os, "link", refuse)
    keep_as(tmp_path / "last.pt", tmp_path / "previous.pt")
    assert (tmp_path / "previous.pt").read_bytes() == b"2"
    assert names(tmp_path) == ["last.pt", "previous.pt"]


@pytest.mark.parametrize("open_file", [open_to_append, open_to_read])
def test_a_link_and_a_fifo_are_not_opened(tmp_path: Path, open_file: Callable[[Path], object]) -> None:
    (tmp_path / "victim").write_text("mine")
    (tmp_path / "link").symlink_to(tmp_path / "victim")
    os.mkfifo(tmp_path / "fifo")
    for name in ("link", "fifo"):
        with pytest.raises(OSError):  # noqa: PT011 - the number differs by system
            open_file(tmp_path / name)


def test_a_folder_that_is_a_link_is_refused(tmp_path: Path) -> None:
    own_folder(tmp_path / "run/checkpoints")
    (tmp_path / "run/tensorboard").symlink_to(tmp_path)
    with pytest.raises(UserError, match="tensorboard is a link, and metarun would write to the place that it names; remove the link"):
        own_folder(tmp_path / "run/tensorboard")


def test_what_killed_processes_left_is_deleted_and_nothing_else(tmp_path: Path) -> None:
    writing.temporary_name(tmp_path).write_bytes(b"half")
    folder = writing.temporary_name(tmp_path)
    folder.mkdir()
    (folder / "library.so").touch()
    writing.temporary_name(tmp_path).symlink_to(tmp_path)
    (tmp_path / "last.pt").touch()
    remove_leftovers(tmp_path, older_than=3600.0)
    assert len(names(tmp_path)) == 4
    remove_leftovers(tmp_path)
    assert names(tmp_path) == ["last.pt"]
