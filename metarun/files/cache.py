"""The folder of files that metarun can make again: decoded images and compiled kernels.

Compiled kernels are code. So metarun reads the cache only where nobody but the user, or root, can write to it. Where the chosen folder does
not fit, another folder takes its place, and one warning says so.
"""

from __future__ import annotations

import functools
import hashlib
import io
import logging
import os
import stat
import tempfile
from pathlib import Path

from metarun.files.paths import expanded
from metarun.files.writing import PRIVATE, open_to_read, remove_leftovers, replacing

log = logging.getLogger(__name__)

ONLY_OWNER = 0o700
_OTHERS_WRITE = stat.S_IWGRP | stat.S_IWOTH
_DAY = 24 * 3600.0


def cache_folder() -> Path:
    """Return METARUN_CACHE, else metarun/ in XDG_CACHE_HOME, else ~/.cache/metarun. Its safety is not checked: see `private_folder`."""
    if folder := os.environ.get("METARUN_CACHE"):
        return expanded(folder).absolute()
    xdg = os.environ.get("XDG_CACHE_HOME", "")
    return Path(xdg if os.path.isabs(xdg) else os.path.expanduser("~/.cache")) / "metarun"  # the XDG standard ignores a relative path


def private_folder(name: str = "") -> Path | None:
    """Return the cache folder, or its subfolder `name`, where only the user can write; made if absent. None where there is none.

    The folder for temporary files holds the replacement of a folder that does not fit.
    """
    replacement = Path(tempfile.gettempdir()) / f"metarun-{os.geteuid()}"
    chosen, reasons = cache_folder(), list[str]()
    for folder in (chosen, replacement):
        reason = _made(folder) or (_made(folder / name) if name else None)
        if reason is None:
            if reasons:
                _say(chosen, reasons[0], f"metarun uses {folder} in its place")
            remove_leftovers(folder / name, older_than=_DAY)
            return folder / name
        reasons.append(reason)
    _say(chosen, reasons[0], "metarun keeps nothing for later runs")
    return None


@functools.cache
def _say(folder: Path, reason: str, rest: str) -> None:
    log.warning("the cache folder %s cannot be used, since %s; %s. METARUN_CACHE names another folder.", folder, reason, rest)


def _made(folder: Path) -> str | None:
    """Make a folder for the user alone where it is absent; return why it cannot be used, None where it can."""
    if not folder.is_absolute():
        return "the home folder is unknown"
    try:
        if not folder.exists():
            folder.parent.mkdir(parents=True, exist_ok=True)
            folder.mkdir(ONLY_OWNER, exist_ok=True)
            folder.chmod(ONLY_OWNER)  # whatever the umask
    except OSError as error:
        return f"it cannot be made ({error.strerror})"
    return _unsafe(folder)


def _unsafe(folder: Path) -> str | None:
    """Return why others could plant a file in a folder, or why it cannot be read; None where it is safe."""
    try:
        found = folder.stat()
        if not stat.S_ISDIR(found.st_mode):
            return "it is no folder"
        if not {found.st_uid, folder.lstat().st_uid} <= {os.geteuid(), 0}:
            return "it belongs to another user"
        if found.st_mode & _OTHERS_WRITE:
            return "others can write to it (chmod go-w makes it yours alone)"
        if not os.access(folder, os.R_OK | os.X_OK):
            return "it cannot be read"
        for parent in folder.resolve().parents:
            mode = parent.stat().st_mode
            if mode & stat.S_IWOTH and not mode & stat.S_ISVTX:
                return f"everybody can rename it, since everybody can write to {parent}"
    except OSError as error:
        return f"it cannot be read ({error.strerror})"
    return None


def open_private(path: Path) -> io.BufferedReader:
    """Open a file of the cache to read it. Raises OSError where it is absent, and ValueError where others could have written it."""
    file = open_to_read(path)
    found = os.fstat(file.fileno())
    if found.st_uid not in (os.geteuid(), 0) or found.st_mode & _OTHERS_WRITE:
        file.close()
        raise ValueError("another user owns it or can write to it")
    return file


def read_checked(path: Path) -> bytes:
    """Return the content that `write_checked` wrote. Raises OSError where the file is absent, and ValueError where it is damaged."""
    with open_private(path) as file:
        digest, content = file.read(32), file.read()
    if hashlib.sha256(content).digest() != digest:
        raise ValueError("its checksum is wrong")
    return content


def write_checked(path: Path, content: bytes) -> None:
    """Write a file for the user alone: the SHA-256 of the content (32 bytes), then the content. Raises OSError where the disk refuses."""
    with replacing(path, mode=PRIVATE, exact=True) as file:
        file.write(hashlib.sha256(content).digest() + content)
