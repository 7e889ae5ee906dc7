"""The zip archive of a checkpoint, which anybody may have written: reading it takes no more memory than the file has bytes."""

from __future__ import annotations

import contextlib
import io
import stat
import struct
import zipfile
from collections.abc import Iterator
from pathlib import Path
from typing import BinaryIO

from metarun.errors import UserError

DIRECTORY = 4 << 20
"""Most bytes of an archive's directory. A checkpoint of 10,000 tensors has about 1 MB; larger ones take seconds to parse."""
_END, _LARGE_END = 22, 98
"""Bytes at the end of a zip file that describe the directory; the larger form is for files above 4 GB, and torch always writes it."""


class DamagedError(UserError):
    """Raised where a file is missing, changed, cut short, or no checkpoint at all: an older file is the remedy."""


class StrangeError(Exception):
    """The file is another one than a checkpoint."""


class Archive:
    """The members of an archive, which lie in the file uncompressed and side by side.

    Raises StrangeError for another layout, and DamagedError where the file does not agree with its checksums.
    """

    def __init__(self, file: BinaryIO, path: Path) -> None:
        self.path, self.size = path, file.seek(0, io.SEEK_END)
        file.seek(0)
        if file.read(2) not in (b"PK", b""):
            raise StrangeError
        with self._checked():
            directory = _directory_size(file, self.size)
        if directory > DIRECTORY:
            raise StrangeError
        with self._checked():
            self._zip = zipfile.ZipFile(file)
        members = self._zip.infolist()
        self.sizes = {member.filename: member.file_size for member in members}
        stored = all(member.compress_type == zipfile.ZIP_STORED and member.compress_size == member.file_size for member in members)
        overlap = sum(member.file_size for member in members) > self.size
        pickles = [name for name in self.sizes if name.count("/") == 1 and name.endswith("/data.pkl")]
        if not stored or overlap or len(self.sizes) != len(members) or len(pickles) != 1:
            raise StrangeError
        self._prefix = pickles[0].removesuffix("data.pkl")

    def size_of(self, name: str) -> int | None:
        """Return the bytes of a member; None where there is none of this name."""
        return self.sizes.get(self._prefix + name)

    def read(self, name: str) -> bytes:
        """Return a member."""
        with self._checked():
            return self._zip.read(self._prefix + name)

    def read_into(self, name: str, memory: memoryview) -> None:
        """Fill the memory with a member of its size."""
        place = 0
        with self._checked(), self._zip.open(self._prefix + name) as member:
            while part := member.read(1 << 20):
                memory[place : place + len(part)] = part
                place += len(part)

    def agrees(self) -> bool:
        """Return whether all members agree with their checksums."""
        with self._checked():
            return self._zip.testzip() is None

    @contextlib.contextmanager
    def _checked(self) -> Iterator[None]:
        try:
            yield
        except Exception as error:  # a damaged archive can make zipfile raise nearly any exception
            raise DamagedError(
                f"the checkpoint {self.path} is damaged or cut short ({self.size} bytes do not match its checksums)."
            ) from error


def opened(path: Path) -> BinaryIO:
    """Open a file for reading. A pipe or a device may never end, so `opened` refuses them without opening them.

    Raises DamagedError for a path that is no file, and UserError for a file that cannot be read.
    """
    try:
        kind = path.stat().st_mode
        if stat.S_ISDIR(kind):
            raise DamagedError(f"{path} is a folder and not a checkpoint.")
        if not stat.S_ISREG(kind):
            raise DamagedError(f"{path} is a pipe or a device and not a checkpoint.")
        return path.open("rb")
    except FileNotFoundError as error:
        raise DamagedError(f"there is no checkpoint {path}.") from error
    except OSError as error:
        raise UserError(f"cannot read the checkpoint {path}: {error.strerror}.") from error


def is_whole(path: Path) -> bool:
    """Return whether all members agree with their checksums."""
    try:
        with opened(path) as file:
            return Archive(file, path).agrees()
    except (UserError, StrangeError):
        return False


def _directory_size(file: BinaryIO, size: int) -> int:
    """Return the bytes of the directory, as the end of the file gives them; ValueError where the file does not end as an archive."""
    file.seek(max(size - _LARGE_END, 0))
    end = file.read(_LARGE_END)
    if not end[-_END:].startswith(b"PK\x05\x06"):
        raise ValueError
    stated = end[-_END:][12:16]
    if stated == b"\xff" * 4 and len(end) == _LARGE_END and end.startswith(b"PK\x06\x06"):
        large: int = struct.unpack("<Q", end[40:48])[0]
        return large
    return int.from_bytes(stated, "little")
