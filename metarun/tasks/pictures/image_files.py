"""The image files below a folder or inside a zip: each real file once, and nothing that is no file.

Links are followed, since a data set may consist of links to a store elsewhere. A pipe, a socket or a device is never opened.
"""

from __future__ import annotations

import filecmp
import hashlib
import heapq
import json
import logging
import os
import stat
import zipfile
import zlib
from collections.abc import Callable, Collection, Iterable, Iterator
from contextlib import contextmanager, suppress
from dataclasses import dataclass, field, replace
from pathlib import Path

from metarun.errors import UserError, first_line, printable
from metarun.files.paths import expanded, is_folder
from metarun.tasks.pictures.decoding import UnreadableError
from metarun.tasks.pictures.image_names import hidden, may_be_image

log = logging.getLogger(__name__)

MOST_BYTES = 1 << 30
"""Files of more bytes are not read as an image."""


@dataclass(frozen=True)
class ImageFiles:
    """The image files below a folder or inside a zip.

    root: the folder or zip. names: paths relative to it, "/" between the parts, sorted. stamp: changes whenever a file does.
    sizes: the bytes of each file. checks: the CRC-32 of each file, as a zip states it; () for a folder.
    empty: the folders without an image in them or below them.
    """

    root: Path
    names: tuple[str, ...]
    stamp: str
    sizes: tuple[int, ...] = ()
    checks: tuple[int, ...] = ()
    empty: tuple[str, ...] = ()

    def without(self, names: Collection[str]) -> ImageFiles:
        """Return the same set without the files of these names."""
        if not (left := set(names) & set(self.names)):
            return self
        kept = [place for place, name in enumerate(self.names) if name not in left]
        facts = {key: tuple(getattr(self, key)[place] for place in kept) for key in ("names", "sizes", "checks") if getattr(self, key)}
        stamp = hashlib.sha256(json.dumps([self.stamp, facts["names"] if kept else []]).encode()).hexdigest()
        return replace(self, stamp=stamp, **({"names": ()} | facts))


def find_images(root: str | Path) -> ImageFiles:
    """List the images of a folder or zip without reading them; UserError if there is no folder or zip that can be read.

    The list leaves out hidden files, folders that devices leave (`@eaDir`, `__MACOSX`, …), and files whose ending is not an image's.
    Each real file has one name. Of several names, the one without a link counts, then the first one in the order of the names. Equal files
    whose names differ in upper and lower case only are one file.
    """
    root = expanded(root)
    shown = f"'{printable(str(root))}'"
    folder = is_folder(root, missing=f"there is no folder or zip {shown}.", shown=shown, remedy="task.root must be a folder or a zip")
    found, folders = _walk(root) if folder else _list_zip(root)
    facts = dict(sorted(found.items()))
    stamp = hashlib.sha256(json.dumps([str(root.resolve()), facts]).encode()).hexdigest()
    checks = () if folder else tuple(check for _, check in facts.values())
    return ImageFiles(root, tuple(facts), stamp, tuple(size for size, _ in facts.values()), checks, _without_images(folders, facts))


@contextmanager
def reader(files: ImageFiles) -> Iterator[Callable[[str], bytes]]:
    """Give a function that returns the bytes of one of the files by its name, for any thread.

    The function raises UnreadableError or OSError where the file cannot be read.
    """
    if files.root.is_dir():
        yield lambda name: read_file(files.root / name)
    else:
        with zipfile.ZipFile(files.root) as archive:
            entries = _entries(archive)
            yield lambda name: _unpack(archive, entries[name])


def _without_images(folders: Iterable[str], names: Iterable[str]) -> tuple[str, ...]:
    """Return the folders above none of these files, sorted."""
    above = {"/".join(parts[:depth]) for parts in (name.split("/") for name in names) for depth in range(1, len(parts))}
    return tuple(sorted(set(folders) - above - {""}))


def read_file(path: Path) -> bytes:
    """Return the bytes of a regular file. Raises UnreadableError for another kind of file or too many bytes, and OSError."""
    # Should a pipe have taken the file's place since the listing, O_NONBLOCK keeps `open` from waiting for its writer.
    flags = os.O_RDONLY | getattr(os, "O_NONBLOCK", 0) | getattr(os, "O_CLOEXEC", 0) | getattr(os, "O_BINARY", 0)
    with open(os.open(path, flags), "rb") as file:
        status = os.fstat(file.fileno())
        if not stat.S_ISREG(status.st_mode):
            raise UnreadableError("no regular file")
        _check_size(status.st_size)
        return file.read(MOST_BYTES)


def _unpack(archive: zipfile.ZipFile, info: zipfile.ZipInfo) -> bytes:
    if info.flag_bits & 1:
        raise UnreadableError("encrypted; unpack the zip with its password")
    _check_size(info.file_size)
    try:
        return archive.read(info)  # reads no more than the size that the zip states, and checks the checksum
    except NotImplementedError:
        raise UnreadableError(f"compressed by method {info.compress_type}, which Python cannot read; unpack the zip") from None
    except (zipfile.BadZipFile, zlib.error, EOFError) as error:
        raise UnreadableError(f"damaged in the zip: {first_line(error)}") from error


def _check_size(size: int) -> None:
    if size > MOST_BYTES:
        raise UnreadableError(f"{size / 1e9:.1f} GB, more than the {MOST_BYTES / 1e9:.1f} GB that metarun reads as one image")


# Folders


@dataclass
class _Found:
    """What a walk has found so far.

    folders: the folders that it has entered; names: their names. files: the files' names, whether a link leads to them, and their status.
    links: the links that it has not followed yet, a heap. loops: links that it does not follow.
    """

    folders: set[tuple[int, int]] = field(default_factory=set)
    names: list[str] = field(default_factory=list)
    files: list[tuple[bool, str, os.stat_result]] = field(default_factory=list)
    links: list[str] = field(default_factory=list)
    loops: list[str] = field(default_factory=list)


def _walk(root: Path) -> tuple[dict[str, list[int]], list[str]]:
    """Return size and time of each image below the folder, by its name, and the names of all folders.

    All folders come before all links, and links by their names.
    """
    found, waiting, linked = _Found(), [""], False
    found.folders.add(_identity(root.stat()))
    while waiting or found.links:
        if not waiting:
            linked = True
            waiting = _follow(root, heapq.heappop(found.links), found)
            continue
        folder = waiting.pop()
        found.names.append(folder)
        try:
            with os.scandir(os.path.join(root, folder)) as entries:
                for entry in entries:
                    if not hidden(entry.name):
                        waiting += _enter(entry, f"{folder}/{entry.name}" if folder else entry.name, linked, found)
        except OSError as error:
            raise UserError(f"cannot read the folder '{printable(str(root / folder))}' ({error.strerror}).") from error
    return _once(root, found), found.names


def _enter(entry: os.DirEntry[str], name: str, linked: bool, found: _Found) -> list[str]:
    """Note the entry of a folder; return the name of the folder that it is, if it is one that the walk has not entered."""
    if entry.is_symlink() or getattr(entry, "is_junction", lambda: False)():
        heapq.heappush(found.links, name)
    elif entry.is_dir(follow_symlinks=False):
        identity = _identity(os.stat(entry.path))
        if identity not in found.folders:
            found.folders.add(identity)
            return [name]
    elif entry.is_file(follow_symlinks=False) and may_be_image(name):
        found.files.append((linked, name, os.stat(entry.path)))
    return []


def _follow(root: Path, name: str, found: _Found) -> list[str]:
    """Note the file to which a link leads; return the name of the link if it leads to a folder that the walk has not entered."""
    path = root / name
    try:
        status = path.stat()
        if stat.S_ISDIR(status.st_mode):
            # A folder above the link, or above the root, holds the images of other classes, or the whole disk.
            above = [*path.parent.resolve().parents, *root.resolve().parents]
            identity = _identity(status)
            if identity in found.folders or identity in {_identity(folder.stat()) for folder in above}:
                found.loops.append(name)
                return []
            found.folders.add(identity)
            return [name]
    except OSError:
        return []  # the link leads nowhere, or only to itself
    if stat.S_ISREG(status.st_mode) and may_be_image(name):
        found.files.append((True, name, status))
    return []


def _identity(status: os.stat_result) -> tuple[int, int]:
    return status.st_dev, status.st_ino


def _equal(one: Path, other: Path) -> bool:
    try:
        return filecmp.cmp(one, other, shallow=False)
    except OSError:
        return False  # reading the image will tell


def _once(root: Path, found: _Found) -> dict[str, list[int]]:
    """Return size and time of each file by the first of its names, names without a link first."""
    kept: dict[tuple[int, ...], str] = {}
    facts, again, spelled = dict[str, list[int]](), [], dict[str, str]()
    for linked, name, status in sorted(found.files, key=lambda file: file[:2]):
        fact = [status.st_size, status.st_mtime_ns]
        # Size and time as well, since some network disks give two files one number.
        first = kept.setdefault((*_identity(status), *fact), name)
        if not linked and status.st_nlink == 1:
            first = name
        twin = spelled.get(name.casefold())
        if first == name and twin and facts[twin][0] == fact[0] and _equal(root / twin, root / name):
            first = twin  # a copy from a disk on which upper and lower case are the same
        if first == name:
            facts[name] = fact
            spelled[name.casefold()] = name
        else:
            again.append((name, first))
    if again:
        name, first = again[0]
        log.warning(
            "'%s' has files of several names, and metarun reads each file once: it skips %d names, such as '%s' for '%s'",
            *(printable(str(root)), len(again), printable(name), printable(first)),
        )
    if found.loops:
        log.warning(
            "'%s' has links to folders above them or to its own folders, which metarun does not follow: %d, such as '%s'",
            *(printable(str(root)), len(found.loops), printable(found.loops[0])),
        )
    return facts


# Zips


def _list_zip(root: Path) -> tuple[dict[str, list[int]], list[str]]:
    try:
        with zipfile.ZipFile(root) as archive:
            return {name: [info.file_size, info.CRC] for name, info in _entries(archive).items()}, _folders(archive)
    except (OSError, zipfile.BadZipFile, NotImplementedError, EOFError) as error:
        raise UserError(f"'{printable(str(root))}' is neither a folder nor a complete zip file ({first_line(error)}).") from error


def _entries(archive: zipfile.ZipFile) -> dict[str, zipfile.ZipInfo]:
    """Return the archive's images by name; of two entries of one name, the last one, as programs that unpack do.

    Of two equal files whose names differ in upper and lower case only, it names the first one.
    """
    entries = {}
    for info in archive.infolist():
        name = _name(info)
        parts = [part for part in name.split("/") if part not in ("", ".")]
        if name.endswith("/") or not parts or stat.S_ISLNK(info.external_attr >> 16):
            continue
        if ".." in parts:
            raise UserError(f"'{printable(str(archive.filename))}' has the entry '{printable(name)}' outside itself; pack the zip again.")
        if not any(hidden(part) for part in parts) and may_be_image(parts[-1]):
            entries["/".join(parts)] = info
    alike = {(name.casefold(), info.file_size, info.CRC): name for name, info in sorted(entries.items(), reverse=True)}
    return {name: entries[name] for name in alike.values()}


def _folders(archive: zipfile.ZipFile) -> list[str]:
    """Return the names of the folders that the archive lists, or that hold one of its files."""
    parts = [[part for part in _name(info).split("/")[:-1] if part not in ("", ".")] for info in archive.infolist()]
    return ["/".join(each[:depth]) for each in parts if not any(map(hidden, each)) for depth in range(1, len(each) + 1)]


def _name(info: zipfile.ZipInfo) -> str:
    """Return an entry's name with "/" between its parts. Old programs write backslashes, and UTF-8 without saying so."""
    name = info.filename
    if not info.flag_bits & 0x800 and not name.isascii():
        with suppress(UnicodeError):  # then the name is in the old code page
            name = name.encode("cp437").decode("utf-8")
    return name.replace("\\", "/")
