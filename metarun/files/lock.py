"""One writer for each run folder: a locked file that names its owner.

The system frees the lock of a process that ends in any way, so a killed run leaves nothing to repair. Between computers that share a file
system, the system's lock may not work. So the owner also touches the file every `BEAT` seconds, and the owner counts as alive on another
computer until the file is `SILENCE` seconds old. A job that Slurm queued again takes the lock of its earlier start at once
(`metarun.files.scheduler`).
"""

from __future__ import annotations

import contextlib
import errno
import fcntl
import json
import os
import platform
import tempfile
import threading
import time
from collections.abc import Iterator
from pathlib import Path
from typing import Any

from metarun.errors import UserError, printable
from metarun.files.scheduler import is_earlier_start, job_here

NAME = ".metarun.lock"
BEAT, SILENCE = 15.0, 120.0
"""Seconds between two signs of life of an owner; seconds without one after which the owner counts as dead."""
_UNSUPPORTED = (errno.ENOLCK, errno.ENOSYS, errno.EOPNOTSUPP, errno.ENOTSUP)


class FolderLock:
    """In `with`, this process alone writes into the folder, which is made if absent.

    Raises UserError, at the start of the block, where another process that is alive has the lock, and where the file cannot be written.
    """

    def __init__(self, folder: str | Path) -> None:
        self.folder = Path(folder)
        self._path = self.folder / NAME
        self._descriptor: int | None = None
        self._ended = threading.Event()

    def __enter__(self) -> FolderLock:
        try:
            self.folder.mkdir(parents=True, exist_ok=True)
            while self._descriptor is None:
                self._descriptor = self._acquire()
            self._write_owner()
        except OSError as error:
            raise UserError(f"cannot write into the run folder {self.folder}: {error.strerror}.") from error
        self._thread = threading.Thread(target=self._beat, args=(self._descriptor,), name="lock", daemon=True)
        self._thread.start()
        return self

    def __exit__(self, *_: object) -> None:
        self._ended.set()
        self._thread.join()
        assert self._descriptor is not None
        with contextlib.suppress(OSError):
            self._path.unlink()
        with contextlib.suppress(OSError):
            os.close(self._descriptor)
        self._descriptor = None

    def _acquire(self) -> int | None:
        """Return the descriptor of the locked file; None where its last owner removed it meanwhile, so that another file has its name."""
        flags = os.O_RDWR | os.O_CREAT | os.O_NOFOLLOW | os.O_NONBLOCK | os.O_CLOEXEC
        descriptor = os.open(self._path, flags, 0o644)
        try:
            locked = _lock(descriptor)
            owner = _owner(descriptor)
            if locked is False and _is_elsewhere(owner) and is_earlier_start(owner.get("job")):
                self._path.unlink(missing_ok=True)  # the file server still holds the lock of a computer that is gone
                return None
            if locked is False or _alive(owner, os.fstat(descriptor).st_mtime, self.folder, locked):
                raise UserError(_refusal(self.folder, owner))
            with contextlib.suppress(FileNotFoundError):
                if os.path.samestat(os.stat(self._path), os.fstat(descriptor)):
                    return descriptor
        except BaseException:
            os.close(descriptor)
            raise
        os.close(descriptor)
        return None

    def _write_owner(self) -> None:
        assert self._descriptor is not None
        owner = {
            "pid": os.getpid(),
            "begun": _begun(os.getpid()),
            "host": platform.node(),
            "system": _system(),
            "started": time.strftime("%Y-%m-%d %H:%M:%S"),
            "job": job_here(),
        }
        os.ftruncate(self._descriptor, 0)
        os.pwrite(self._descriptor, f"{json.dumps(owner)}\n".encode(), 0)
        os.fsync(self._descriptor)

    def _beat(self, descriptor: int) -> None:
        while not self._ended.wait(BEAT):
            with contextlib.suppress(OSError):
                os.utime(descriptor)


def has_owner(folder: Path) -> bool:
    """Return whether a process that is alive writes into a folder. Nothing is locked or written, so a run may start meanwhile."""
    try:
        with _reading(folder) as descriptor:
            owner, silent = _owner(descriptor), time.time() - os.fstat(descriptor).st_mtime
    except OSError:
        return False
    return _runs(owner) if owner.get("system") == _system() else bool(owner) and silent < SILENCE


def owner_here(folder: Path) -> int | None:
    """Return the id of the process of this machine that writes into a folder; None where there is none."""
    try:
        with _reading(folder) as descriptor:
            owner = _owner(descriptor)
            held = _lock(descriptor, fcntl.LOCK_SH) is not True  # NFS takes LOCK_EX only for writing; closing the file frees the lock again
    except OSError:
        return None
    return owner["pid"] if held and owner.get("system") == _system() and _runs(owner) else None


@contextlib.contextmanager
def _reading(folder: Path) -> Iterator[int]:
    """Yield a descriptor of the lock file of a folder, to read; raises OSError where there is none."""
    descriptor = os.open(folder / NAME, os.O_RDONLY | os.O_NOFOLLOW | os.O_NONBLOCK | os.O_CLOEXEC)
    try:
        yield descriptor
    finally:
        os.close(descriptor)


def _lock(descriptor: int, kind: int = fcntl.LOCK_EX) -> bool | None:
    """Lock a file; return False where another process has locked it, and None where the file system knows no locks."""
    try:
        fcntl.flock(descriptor, kind | fcntl.LOCK_NB)
    except BlockingIOError:
        return False
    except OSError as error:
        if error.errno in _UNSUPPORTED:
            return None
        raise
    return True


def _owner(descriptor: int) -> dict[str, Any]:
    """Return what the file says about its owner; {} where the file is empty or says nothing."""
    try:
        owner = json.loads(os.pread(descriptor, 4096, 0))
    except ValueError:
        return {}
    return owner if isinstance(owner, dict) else {}


def _alive(owner: dict[str, Any], touched: float, folder: Path, locked: bool | None) -> bool:
    """Return whether the owner that a file names may still write, as far as its lock does not tell.

    locked: True where the system gave the lock; None where the file system knows no locks.
    """
    if not owner:
        return False
    if owner.get("system") == _system():
        return locked is None and _runs(owner)
    if is_earlier_start(owner.get("job")):
        return False
    return _clock(folder) - touched < SILENCE


def _system() -> str:
    """Return a name of this computer since its last start; containers of one computer share it, as they share its locks."""
    with contextlib.suppress(OSError):
        return Path("/proc/sys/kernel/random/boot_id").read_text(encoding="ascii").strip()
    return platform.node()


def _is_elsewhere(owner: dict[str, Any]) -> bool:
    return bool(owner) and owner.get("system") != _system()


def _runs(owner: dict[str, Any]) -> bool:
    """Return whether the process that a file of this computer names is alive; another process may have got its number since."""
    pid, begun = owner.get("pid"), owner.get("begun")
    if not isinstance(pid, int) or pid <= 0 or pid == os.getpid():
        return False
    try:
        os.kill(pid, 0)
    except ProcessLookupError:
        return False
    except (PermissionError, OverflowError):
        return True
    return begun is None or _begun(pid) in (None, begun)


def _begun(pid: int) -> int | None:
    """Return when a process began, in ticks since the start of the computer; None where the system does not say."""
    try:
        return int(Path(f"/proc/{pid}/stat").read_text(encoding="utf-8", errors="replace").rpartition(")")[2].split()[19])
    except (OSError, ValueError, IndexError):
        return None


def _clock(folder: Path) -> float:
    """Return the time by the clock that stamps the files of a folder, which may be another computer's."""
    with tempfile.TemporaryFile(dir=folder) as file:
        return os.fstat(file.fileno()).st_mtime


def _refusal(folder: Path, owner: dict[str, Any]) -> str:
    pid, host, started = (printable(owner.get(key, ""))[:100] for key in ("pid", "host", "started"))
    who = f" (process {pid} on {host}, since {started})" if pid and host else ""
    dead = ""
    if owner.get("system") != _system():
        dead = (
            f" An owner on another computer counts as dead after {SILENCE:.0f} s without a sign; if it has ended, delete {folder / NAME}."
        )
    return f"another metarun writes into {folder}{who}; wait until it ends, or stop it.{dead}"
