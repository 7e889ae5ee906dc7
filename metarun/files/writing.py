"""Write a file whole or not at all, and through no link that somebody planted.

A file gets a random temporary name in its folder, and one rename puts it in place. Nobody can plant a link under a name that nobody can
guess, and a rename replaces a link instead of following it. A kill at any instant leaves the earlier file or the new one.
"""

from __future__ import annotations

import contextlib
import errno
import io
import os
import secrets
import shutil
import stat
import time
from collections.abc import Callable, Iterator
from pathlib import Path
from typing import BinaryIO

from metarun.errors import UserError

PREFIX, SUFFIX = ".metarun-", ".tmp"
"""How the name of a temporary file begins and ends. A kill may leave such a file; `remove_leftovers` deletes it."""
PRIVATE = 0o600
"""The mode of a file that only its owner may read and write."""


def temporary_name(folder: Path) -> Path:
    """Return a path in the folder that nobody can guess. It does not contain the file's own name, which may be as long as names can be."""
    return folder / f"{PREFIX}{secrets.token_hex(8)}{SUFFIX}"


@contextlib.contextmanager
def replacing(path: Path, *, mode: int = 0o666, exact: bool = False, before: Callable[[], object] | None = None) -> Iterator[BinaryIO]:
    """Open a file for writing that takes the place of `path` at the end of the `with` block; an exception leaves `path` as it was.

    mode: of the file, less the umask; with `exact`, whatever the umask. before: called when the new file is on disk and not yet in place.
    Raises OSError where the folder or the disk refuses.
    """
    temporary = temporary_name(path.parent)
    flags = os.O_RDWR | os.O_CREAT | os.O_EXCL | os.O_NOFOLLOW | os.O_CLOEXEC
    try:
        with os.fdopen(os.open(temporary, flags, mode), "w+b") as file:
            if exact:
                os.fchmod(file.fileno(), mode)
            yield file
            file.flush()
            os.fsync(file.fileno())
        if before is not None:
            before()
        os.replace(temporary, path)
    except BaseException:
        with contextlib.suppress(OSError):
            temporary.unlink(missing_ok=True)
        raise
    sync_folder(path.parent)


def write_whole(path: Path, content: bytes | memoryview) -> None:
    """Write the bytes as `replacing` does. Raises OSError where the folder or the disk refuses."""
    with replacing(path) as file:
        file.write(content)


def write_text(path: Path, text: str) -> None:
    """Write the text in UTF-8 as `write_bytes` does. Half a surrogate pair, as in a file name that is not UTF-8, becomes an escape."""
    write_bytes(path, text.encode("utf-8", "backslashreplace"))


def write_bytes(path: Path, content: bytes) -> None:
    """Write the bytes as `replacing` does. Raises UserError where the folder or the disk refuses."""
    try:
        write_whole(path, content)
    except OSError as error:
        raise UserError(f"cannot write {path}: {error.strerror}.") from error


def keep_as(path: Path, kept: Path) -> None:
    """Give the file the second name `kept`, and replace an older file of that name. Neither name is missing at any instant."""
    link = temporary_name(kept.parent)
    try:
        os.link(path, link)
    except OSError:  # file systems without hard links
        with path.open("rb") as source, replacing(kept) as copy:
            shutil.copyfileobj(source, copy)
        return
    os.replace(link, kept)
    # By POSIX, a rename between two names of one file does nothing, so the temporary name may still exist.
    link.unlink(missing_ok=True)


def sync_folder(folder: Path) -> None:
    """Make the renames survive a power cut, where the system can open a folder."""
    try:
        descriptor = os.open(folder, os.O_RDONLY)
    except OSError:
        return
    try:
        os.fsync(descriptor)
    except OSError:
        pass
    finally:
        os.close(descriptor)


def open_to_append(path: Path) -> BinaryIO:
    """Open a file to append to. Raises OSError for a link and for a FIFO, a device or another file that is none on a disk."""
    flags = os.O_WRONLY | os.O_CREAT | os.O_APPEND | os.O_NOFOLLOW | os.O_NONBLOCK | os.O_CLOEXEC
    return os.fdopen(_regular(os.open(path, flags, 0o666), path), "ab")


def open_to_read(path: Path) -> io.BufferedReader:
    """Open a file. Raises OSError as `open_to_append` does."""
    return os.fdopen(_regular(os.open(path, os.O_RDONLY | os.O_NOFOLLOW | os.O_NONBLOCK | os.O_CLOEXEC), path), "rb")


def _regular(descriptor: int, path: Path) -> int:
    if not stat.S_ISREG(os.fstat(descriptor).st_mode):
        os.close(descriptor)
        raise OSError(errno.EINVAL, "it is no regular file", str(path))
    return descriptor


def own_folder(folder: Path) -> None:
    """Make a folder inside a run folder. Raises UserError where a link stands in its place: metarun would write outside of the run."""
    folder.mkdir(parents=True, exist_ok=True)
    check_place(folder)


def check_place(path: Path) -> None:
    """Raise UserError where a link, a pipe or a device stands in the place of a file or folder that metarun writes."""
    try:
        mode = path.lstat().st_mode
    except (FileNotFoundError, NotADirectoryError):
        return
    if stat.S_ISLNK(mode):
        raise UserError(f"{path} is a link, and metarun would write to the place that it names; remove the link.")
    if not (stat.S_ISREG(mode) or stat.S_ISDIR(mode)):
        raise UserError(f"{path} is a pipe or a device, and metarun would wait for its reader or write to the device; remove it.")


def remove_leftovers(folder: Path, older_than: float = 0.0) -> None:
    """Delete the temporary files and folders that killed processes left in a folder. older_than: least age in seconds."""
    for path in folder.glob(f"{PREFIX}*{SUFFIX}"):
        with contextlib.suppress(OSError):
            if time.time() - path.lstat().st_mtime >= older_than:
                shutil.rmtree(path) if path.is_dir() and not path.is_symlink() else path.unlink()
