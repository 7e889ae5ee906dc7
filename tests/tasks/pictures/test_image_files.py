"""Which files of a folder or a zip are images: each real file once, no pipes, no loops, no files that devices leave."""

from __future__ import annotations

import io
import logging
import os
import socket
import stat
import sys
import zipfile
from pathlib import Path

import pytest

from metarun.errors import UserError
from metarun.tasks.pictures import image_files as module
from metarun.tasks.pictures.decoding import UnreadableError
from metarun.tasks.pictures.image_files import find_images, reader


def a_file(root: Path, name: str, data: bytes = b"x") -> Path:
    (root / name).parent.mkdir(parents=True, exist_ok=True)
    (root / name).write_bytes(data)
    return root / name


def a_zip(root: Path, names: list[str | zipfile.ZipInfo], data: bytes = b"x") -> Path:
    with zipfile.ZipFile(root / "set.zip", "w") as archive:
        for name in names:
            archive.writestr(name, data)
    return root / "set.zip"


def found(root: Path) -> list[str]:
    return list(find_images(root).names)


def test_hidden_files_and_files_that_are_no_images_are_left_out(tmp_path: Path) -> None:
    for name in [
        *(".DS_Store", "a/.hidden.png", "a/._1.jpg", "__MACOSX/a/1.png", ".git/x.png", "a/notes.TXT", "a/Thumbs.db", ".thumbnails/1.png"),
        *("a/@eaDir/1.png/SYNOPHOTO_THUMB_M.jpg", "$RECYCLE.BIN/1.png", "System Volume Information/1.png"),
        *("lost+found/1.png", "#recycle/1.png", "a/1.XMP", "a/1.aae", "a/desktop.ini", "a/1.thm", "a/README", "a/Icon\r", "a/1.mp4"),
        *("a/1.png", "a/photo", "a/2.heic", "a/recycle/3.png"),
    ]:
        a_file(tmp_path, name)
    assert found(tmp_path) == ["a/1.png", "a/2.heic", "a/photo", "a/recycle/3.png"]


def test_links_to_folders_above_and_loops_of_links_are_not_followed(tmp_path: Path, caplog: pytest.LogCaptureFixture) -> None:
    root = tmp_path / "set"
    for name in ("a/1.png", "b/2.png"):
        a_file(root, name)
    a_file(tmp_path, "elsewhere/3.png")
    a_file(tmp_path, "outside.png")
    for link, target in {
        "a/up": "..",
        "a/self": ".",
        "a/again": ".",
        "a/other": "../b",
        "a/disk": "/",
        "a/outer": "../..",
        "b/round": "around",
        "b/around": "round",
        "b/nowhere": "missing",
        "b/absolute": str(root),
    }.items():
        (root / link).symlink_to(target)
    (tmp_path / "elsewhere" / "back").symlink_to(root)
    (tmp_path / "elsewhere" / "above").symlink_to(tmp_path)
    (root / "c").symlink_to(tmp_path / "elsewhere")
    with caplog.at_level(logging.WARNING):
        assert found(root) == ["a/1.png", "b/2.png", "c/3.png"]
    assert "links to folders above them or to its own folders" in caplog.text


def test_many_links_between_folders_do_not_multiply(tmp_path: Path) -> None:
    """Each folder has 20 links to the next one: 20 ** 30 paths."""
    for level in range(30):
        a_file(tmp_path / "store", f"{level}/{level}.png")
    for level in range(29):
        for link in range(20):
            (tmp_path / "store" / str(level) / f"link{link}").symlink_to(f"../{level + 1}")
    (tmp_path / "set").mkdir()
    (tmp_path / "set" / "a").symlink_to("../store/0")
    assert len(found(tmp_path / "set")) == 30


def test_a_set_may_consist_of_links(tmp_path: Path) -> None:
    for name in ("oak/1.png", "oak/2.png", "elm/1.png", "loose.png"):
        a_file(tmp_path / "store", name)
    root = tmp_path / "set"
    (root / "pine").mkdir(parents=True)
    (root / "oak").symlink_to(tmp_path / "store" / "oak")
    (root / "elm").symlink_to("../store/elm")
    (root / "pine" / "7.png").symlink_to("../../store/loose.png")
    assert found(root) == ["elm/1.png", "oak/1.png", "oak/2.png", "pine/7.png"]
    (tmp_path / "root").symlink_to(root)
    assert found(tmp_path / "root") == found(root)
    with reader(find_images(root)) as read:
        assert read("pine/7.png") == b"x"


def test_a_file_of_two_names_counts_once_under_the_name_without_a_link(tmp_path: Path, caplog: pytest.LogCaptureFixture) -> None:
    real = a_file(tmp_path, "oak/2.png")
    a_file(tmp_path, "elm/2.png")  # the same content in another file
    (tmp_path / "ash").mkdir()
    (tmp_path / "ash" / "1.png").symlink_to(real)
    os.link(real, tmp_path / "oak" / "3.png")
    os.link(real, tmp_path / "zoo.png")
    with caplog.at_level(logging.WARNING):
        assert found(tmp_path) == ["elm/2.png", "oak/2.png"]
    assert "it skips 3 names, such as 'oak/3.png' for 'oak/2.png'" in caplog.text


def test_equal_files_whose_names_differ_in_case_only_are_one_file(tmp_path: Path) -> None:
    names = {"A/1.png": b"x", "a/1.png": b"x", "a/1.PNG": b"x", "A/2.png": b"x", "a/2.png": b"y", "a/3.png": b"x"}
    with zipfile.ZipFile(tmp_path / "set.zip", "w") as archive:
        for name, data in names.items():
            archive.writestr(name, data)
            a_file(tmp_path / "set", name, data)
    if len(list((tmp_path / "set").rglob("*.*"))) < len(names):
        pytest.skip("upper and lower case are the same on this disk")
    assert sorted(found(tmp_path / "set")) == sorted(found(tmp_path / "set.zip")) == ["A/1.png", "A/2.png", "a/2.png", "a/3.png"]


def test_two_files_that_a_disk_numbers_alike_are_two(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    a_file(tmp_path, "a/1.png")
    a_file(tmp_path, "b/1.png")
    a_file(tmp_path.parent, f"{tmp_path.name}-store/9.png", b"longer")
    (tmp_path / "b" / "2.png").symlink_to(f"../../{tmp_path.name}-store/9.png")
    monkeypatch.setattr(module, "_identity", lambda status: (0, 0 if stat.S_ISREG(status.st_mode) else status.st_ino))
    assert found(tmp_path) == ["a/1.png", "b/1.png", "b/2.png"]


def test_a_link_in_a_store_to_a_folder_above_the_set_is_not_followed(tmp_path: Path) -> None:
    a_file(tmp_path, "near/set/a/1.png")
    a_file(tmp_path, "near/other/2.png")
    a_file(tmp_path, "far/store/3.png")
    (tmp_path / "near" / "set" / "b").symlink_to(tmp_path / "far" / "store")
    (tmp_path / "far" / "store" / "back").symlink_to(tmp_path / "near")
    assert found(tmp_path / "near" / "set") == ["a/1.png", "b/3.png"]


@pytest.mark.skipif(not hasattr(os, "mkfifo"), reason="this system has no pipes")
def test_pipes_sockets_and_devices_are_never_opened(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    a_file(tmp_path, "a/1.png")
    os.mkfifo(tmp_path / "a" / "2.png")
    (tmp_path / "a" / "3.png").symlink_to("2.png")
    (tmp_path / "a" / "4.png").symlink_to("/dev/zero")
    with socket.socket(socket.AF_UNIX) as server:
        monkeypatch.chdir(tmp_path)  # the path of a socket must be short
        server.bind("s.png")
        assert found(tmp_path) == ["a/1.png"]
    for root in ("a/2.png", "s.png"):
        with pytest.raises(UserError, match="is a pipe, a socket or a device"):
            find_images(tmp_path / root)


@pytest.mark.skipif(not hasattr(os, "mkfifo"), reason="this system has no pipes")
def test_a_pipe_in_the_place_of_a_listed_file_is_not_read(tmp_path: Path) -> None:
    path = a_file(tmp_path, "a/1.png")
    files = find_images(tmp_path)
    path.unlink()
    os.mkfifo(path)
    with reader(files) as read, pytest.raises(UnreadableError, match="no regular file"):
        read("a/1.png")


def test_a_file_of_too_many_bytes_is_not_read(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr(module, "MOST_BYTES", 1000)
    a_file(tmp_path, "set/a/1.png", bytes(2000))
    for root in (tmp_path / "set", a_zip(tmp_path, ["a/1.png"], bytes(2000))):
        with reader(find_images(root)) as read, pytest.raises(UnreadableError, match=r"more than the 0\.0 GB that metarun reads"):
            read("a/1.png")


def test_folders_may_lie_deeper_than_python_recurses(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    limit = sys.getrecursionlimit()
    name = "d/" * 400 + "1.png"
    a_file(tmp_path / "set", name)
    try:
        sys.setrecursionlimit(300)
        assert found(tmp_path / "set") == [name]
    finally:
        sys.setrecursionlimit(limit)


def test_a_root_that_cannot_be_read_is_a_user_error(tmp_path: Path) -> None:
    for root in ("nowhere", "a\0b", a_file(tmp_path, "file.png") / "below"):
        with pytest.raises(UserError, match="there is no folder or zip"):
            find_images(root)
    with pytest.raises(UserError, match="cannot be opened"):
        find_images("x" * 5000)
    for data in (b"PK\x03\x04 and no more", b"", b"\x1f\x8b a tar archive"):
        with pytest.raises(UserError, match="neither a folder nor a complete zip file"):
            find_images(a_file(tmp_path, "broken.zip", data))


@pytest.mark.parametrize(
    ("names", "expected"),
    [
        (["a\\1.png", "b\\c\\2.png"], ["a/1.png", "b/c/2.png"]),
        (["./a/1.png", "/b/2.png", "c//3.png", "a/", "d\\"], ["a/1.png", "b/2.png", "c/3.png"]),
        (["C:\\photos\\a\\1.png"], ["C:/photos/a/1.png"]),
        (["a/1.png", "a/inner.zip", "a/@eaDir/1.png", "__MACOSX/a/._1.png"], ["a/1.png"]),
        (["Müller/1.png", "日本/2.png"], ["Müller/1.png", "日本/2.png"]),
    ],
)
def test_names_in_zips_are_paths_however_they_are_written(tmp_path: Path, names: list[str], expected: list[str]) -> None:
    files = find_images(a_zip(tmp_path, list(names)))
    assert list(files.names) == expected
    with reader(files) as read:
        assert [read(name) for name in files.names] == [b"x"] * len(expected)


def test_names_in_utf_8_that_do_not_say_so_are_read(tmp_path: Path) -> None:
    """Clear the flag of UTF-8 in the zip's two headers."""
    path = a_zip(tmp_path, ["Müller/1.png"])
    data = bytearray(path.read_bytes())
    for head, place in ((b"PK\x03\x04", 6), (b"PK\x01\x02", 8)):
        data[data.index(head) + place + 1] &= ~0x08
    path.write_bytes(data)
    assert found(path) == ["Müller/1.png"]


def test_a_zip_names_each_file_once_and_no_link(tmp_path: Path) -> None:
    link = zipfile.ZipInfo("a/link.png")
    link.external_attr = (stat.S_IFLNK | 0o777) << 16
    with pytest.warns(UserWarning, match="Duplicate name"):
        path = a_zip(tmp_path, ["a/1.png", "a/1.png", "a\\1.png", link])
    assert found(path) == ["a/1.png"]


def test_a_zip_that_leaves_itself_is_refused(tmp_path: Path) -> None:
    for name in ("../a/1.png", "a/../../b.png", "..\\a\\1.png"):
        with pytest.raises(UserError, match=r"has the entry '.*' outside itself"):
            find_images(a_zip(tmp_path, [name]))


def test_entries_of_a_zip_that_cannot_be_unpacked_are_unreadable(tmp_path: Path) -> None:
    path = a_zip(tmp_path, ["a/1.png"], b"content")
    whole = path.read_bytes()
    encrypted = bytearray(whole)
    encrypted[6] |= 1
    encrypted[whole.index(b"PK\x01\x02") + 8] |= 1
    method = bytearray(whole)
    method[8] = method[whole.index(b"PK\x01\x02") + 10] = 9
    for data, text in (
        (bytes(encrypted), "encrypted"),
        (bytes(method), "method 9, which Python cannot read"),
        (whole.replace(b"content", b"CONTENT"), "damaged in the zip: Bad CRC-32"),
    ):
        path.write_bytes(data)
        with reader(find_images(path)) as read, pytest.raises(UnreadableError, match=text):
            read("a/1.png")


def test_a_deflated_entry_that_is_damaged_is_unreadable(tmp_path: Path) -> None:
    buffer = io.BytesIO()
    with zipfile.ZipFile(buffer, "w", zipfile.ZIP_DEFLATED) as archive:
        archive.writestr("a/1.png", bytes(range(256)) * 9)
    data = bytearray(buffer.getvalue())
    data[40:60] = b"\xff" * 20
    path = a_file(tmp_path, "set.zip", bytes(data))
    with reader(find_images(path)) as read, pytest.raises(UnreadableError, match="damaged in the zip"):
        read("a/1.png")


def test_the_stamp_changes_with_a_file(tmp_path: Path) -> None:
    path = a_file(tmp_path, "a/1.png")
    stamp = find_images(tmp_path).stamp
    os.utime(path, ns=(1, 1))
    assert find_images(tmp_path).stamp != stamp
    assert find_images(tmp_path).sizes == (1,)
