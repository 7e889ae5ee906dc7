"""The cache folder follows the environment."""

from __future__ import annotations

import logging
import os
import stat
from pathlib import Path

import pytest

from metarun.files import cache
from metarun.files.cache import cache_folder, open_private, private_folder, read_checked, write_checked


def test_the_first_variable_that_is_set_chooses_the_folder(monkeypatch: pytest.MonkeyPatch):
    monkeypatch.setenv("HOME", "/somebody")
    monkeypatch.delenv("METARUN_CACHE", raising=False)
    monkeypatch.delenv("XDG_CACHE_HOME", raising=False)
    assert cache_folder() == Path("/somebody/.cache/metarun")
    monkeypatch.setenv("XDG_CACHE_HOME", "/caches")
    assert cache_folder() == Path("/caches/metarun")
    monkeypatch.setenv("METARUN_CACHE", "~/mine")
    assert cache_folder() == Path("/somebody/mine")


def test_an_empty_variable_is_no_choice(monkeypatch: pytest.MonkeyPatch):
    monkeypatch.setenv("METARUN_CACHE", "")
    monkeypatch.setenv("XDG_CACHE_HOME", "/caches")
    assert cache_folder() == Path("/caches/metarun")


def test_a_relative_folder_of_the_standard_is_ignored_and_one_of_metarun_is_in_the_current_folder(
    tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.chdir(tmp_path)
    monkeypatch.setenv("HOME", "/somebody")
    monkeypatch.delenv("METARUN_CACHE", raising=False)
    monkeypatch.setenv("XDG_CACHE_HOME", "caches")
    assert cache_folder() == Path("/somebody/.cache/metarun")
    monkeypatch.setenv("METARUN_CACHE", "mine")
    assert cache_folder() == tmp_path / "mine"


@pytest.fixture
def chosen(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> Path:
    """Return a folder that METARUN_CACHE names and that does not exist; a replacement would be in `tmp_path`."""
    monkeypatch.setenv("METARUN_CACHE", str(tmp_path / "chosen"))
    monkeypatch.setattr(cache.tempfile, "gettempdir", lambda: str(tmp_path))
    cache._say.cache_clear()
    return tmp_path / "chosen"


@pytest.mark.parametrize("umask", [0o000, 0o002, 0o077, 0o177])
def test_folders_and_files_are_for_the_user_alone_whatever_the_umask(chosen: Path, umask: int) -> None:
    before = os.umask(umask)
    try:
        folder = private_folder("kernels")
        assert folder == chosen / "kernels"
        write_checked(folder / "a.library", b"code")
    finally:
        os.umask(before)
    assert [stat.S_IMODE(path.stat().st_mode) for path in (chosen, folder, folder / "a.library")] == [0o700, 0o700, 0o600]
    assert read_checked(folder / "a.library") == b"code"


def test_a_folder_that_others_can_write_is_not_used_and_one_warning_says_so(chosen: Path, caplog: pytest.LogCaptureFixture) -> None:
    chosen.mkdir()
    for mode, reason in ((0o777, "others can write"), (0o770, "others can write"), (0o1777, "others can write")):
        chosen.chmod(mode)
        caplog.clear()
        cache._say.cache_clear()
        with caplog.at_level(logging.WARNING):
            assert {private_folder(), private_folder()} == {chosen.with_name(f"metarun-{os.geteuid()}")}
        assert len(caplog.records) == 1
        assert reason in caplog.text


def test_a_subfolder_that_others_can_write_is_not_used_either(chosen: Path) -> None:
    (chosen / "kernels").mkdir(parents=True, mode=0o700)
    chosen.chmod(0o700)
    (chosen / "kernels").chmod(0o777)
    assert private_folder("kernels") == chosen.with_name(f"metarun-{os.geteuid()}") / "kernels"
    assert private_folder("compiled") == chosen / "compiled"


def test_a_folder_that_everybody_can_rename_is_not_used(chosen: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    parent = chosen.parent / "open"
    parent.mkdir()
    parent.chmod(0o777)
    monkeypatch.setenv("METARUN_CACHE", str(parent / "cache"))
    assert private_folder() == chosen.with_name(f"metarun-{os.geteuid()}")
    parent.chmod(0o1777)  # with the sticky bit, as of /tmp, only an owner renames
    assert private_folder() == parent / "cache"


@pytest.mark.skipif(os.geteuid() != 0, reason="needs root to give a folder away")
def test_a_folder_or_a_file_of_another_user_is_not_used(chosen: Path) -> None:
    chosen.mkdir(mode=0o700)
    write_checked(chosen / "a", b"code")
    os.chown(chosen / "a", 12345, 12345)
    with pytest.raises(ValueError, match="another user owns it"):
        read_checked(chosen / "a")
    os.chown(chosen, 12345, 12345)
    replacement = chosen.with_name("metarun-0")
    assert private_folder() == replacement
    os.chown(replacement, 12345, 12345)
    assert private_folder() is None


def test_a_file_where_the_folder_should_be_and_an_unknown_home_are_said(
    chosen: Path, monkeypatch: pytest.MonkeyPatch, caplog: pytest.LogCaptureFixture
) -> None:
    chosen.write_text("")
    assert private_folder() == chosen.with_name(f"metarun-{os.geteuid()}")
    assert f"{chosen} cannot be used, since it is no folder; metarun uses" in caplog.text
    monkeypatch.delenv("METARUN_CACHE")
    monkeypatch.delenv("XDG_CACHE_HOME", raising=False)
    monkeypatch.setattr(cache.os.path, "expanduser", lambda path: path)  # as where neither HOME nor the system names a home folder
    assert private_folder() == chosen.with_name(f"metarun-{os.geteuid()}")
    assert "since the home folder is unknown" in caplog.text


def test_a_file_that_others_can_write_and_a_link_are_not_read(chosen: Path) -> None:
    folder = private_folder()
    assert folder == chosen
    write_checked(folder / "a", b"code")
    (folder / "link").symlink_to(folder / "a")
    with pytest.raises(OSError):  # noqa: PT011 - the number differs by system
        open_private(folder / "link")
    (folder / "a").chmod(0o620)
    with pytest.raises(ValueError, match="can write to it"):
        read_checked(folder / "a")


def test_every_flipped_bit_and_every_cut_is_found(chosen: Path) -> None:
    chosen.mkdir(mode=0o700)
    content = bytes(range(64))
    write_checked(chosen / "a", content)
    whole = (chosen / "a").read_bytes()
    damaged = [whole[:i] + bytes([whole[i] ^ 1 << i % 8]) + whole[i + 1 :] for i in range(len(whole))]
    for changed in [*damaged, *(whole[:length] for length in range(len(whole))), whole + b"x"]:
        (chosen / "a").write_bytes(changed)
        with pytest.raises(ValueError, match="its checksum is wrong"):
            read_checked(chosen / "a")
