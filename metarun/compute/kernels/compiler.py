"""Compiles C files for this processor at their first use, and keeps the libraries for later runs."""

from __future__ import annotations

import contextlib
import ctypes
import hashlib
import logging
import os
import platform
import shlex
import shutil
import subprocess
import sys
import tempfile
import time
from collections.abc import Iterator
from pathlib import Path

import torch

from metarun.errors import first_line
from metarun.files.cache import private_folder, read_checked, write_checked
from metarun.files.writing import PREFIX, SUFFIX
from metarun.records.display import doing

log = logging.getLogger(__name__)

COMPILERS = ("cc", "gcc", "clang")
"""Compilers to look for, in this order, where the environment variable CC names none."""

_INSTRUCTIONS = {
    "AVX512": ["-mavx512f", "-mavx512bw", "-mavx512dq", "-mavx512vl", "-mfma", "-mtune=skylake-avx512"],
    "AVX2": ["-mavx2", "-mfma", "-mtune=haswell"],
}
"""Compiler options by torch's CPU capability, which a user may have lowered: the instruction sets that torch itself relies on, and no more.
The tuning decides whether sums stay in registers."""
FOLDER = "kernels"
"""The subfolder of the cache folder. A file there holds a SHA-256 and then the library."""
_SECONDS = 120
"""Time limit of a compiler call."""


class NoLibraryError(Exception):
    """The library cannot be made here; the message gives the reason in a few words."""


class _DeletedError(OSError):
    """Somebody deleted the cache folder while a compiler worked there."""


def load(source: Path) -> ctypes.CDLL:
    """Return the library compiled from a C file, which may include the headers of its folder.

    Raises NoLibraryError where the system, the processor or the compiler does not allow it.
    """
    if sys.platform not in ("linux", "darwin"):
        raise NoLibraryError(f"they do not support {sys.platform}")
    compiler = _compiler()
    command = [*compiler, "-O3", *_instructions(), "-shared", "-fPIC"]
    try:
        version = subprocess.run([*compiler, "--version"], capture_output=True, timeout=_SECONDS, check=True).stdout
        texts = [file.read_bytes() for file in (source, *sorted(source.parent.glob("*.h")))]
        digest = hashlib.sha256(b"\0".join([*texts, version, " ".join(command).encode()])).hexdigest()[:16]
        name = f"{source.stem}-{digest}.library"
        try:
            return _kept(name) or _compile(command, source, name)
        except _DeletedError:
            return _compile(command, source, name, elsewhere=True)
    except subprocess.CalledProcessError as error:
        lines = (error.stderr or b"").decode(errors="replace").strip().splitlines()
        reason = next((line for line in lines if "error" in line), lines[0] if lines else f"exit code {error.returncode}")
        raise NoLibraryError(f"{command[0]} failed: {reason}") from error
    except (OSError, subprocess.TimeoutExpired) as error:
        raise NoLibraryError(first_line(error)) from error


def _compiler() -> list[str]:
    try:
        chosen = shlex.split(os.environ.get("CC", ""))
    except ValueError as error:
        raise NoLibraryError(f"CC={os.environ['CC']} is not a valid command: {first_line(error)}") from error
    if chosen:
        return chosen
    installed = next((compiler for compiler in COMPILERS if shutil.which(compiler)), None)
    if installed is None:
        raise NoLibraryError(f"there is no C compiler ({', '.join(COMPILERS)})")
    return [installed]


def _instructions() -> list[str]:
    capability = torch.backends.cpu.get_cpu_capability()
    if capability in _INSTRUCTIONS:
        return _INSTRUCTIONS[capability]
    if platform.machine() in ("arm64", "aarch64"):
        return []  # every such processor has the vector instructions that the kernels need
    raise NoLibraryError(f"they do not support a processor with {capability}")


def _kept(name: str) -> ctypes.CDLL | None:
    """Return the library that an earlier run compiled, None where there is none or a damaged one."""
    folder = private_folder(FOLDER)
    if folder is None:
        return None
    try:
        return _opened(read_checked(folder / name))
    except FileNotFoundError:
        return None
    except (OSError, ValueError) as error:
        log.info("%s is damaged and is compiled again: %s", folder / name, first_line(error))
        return None


def _opened(library: bytes, elsewhere: bool = False) -> ctypes.CDLL:
    """Load a library from a copy that no other process can change: the system reads a library page by page, as the program needs it."""
    with _work_folder(elsewhere) as folder:
        copy = folder / "library.so"
        copy.write_bytes(library)
        return ctypes.CDLL(str(copy))


def _compile(command: list[str], source: Path, name: str, elsewhere: bool = False) -> ctypes.CDLL:
    """Compile a library, keep it for later runs where the cache folder allows, and load it. elsewhere: not in the cache folder."""
    start = time.perf_counter()
    with _work_folder(elsewhere) as folder:
        output = folder / "library.so"
        with doing("compiling the C kernels"):
            subprocess.run([*command, "-o", str(output), str(source)], capture_output=True, timeout=_SECONDS, check=True)
        library = output.read_bytes()
    log.info("compiled %s in %.1f s", source.name, time.perf_counter() - start)
    if (kept := private_folder(FOLDER)) is not None:
        try:
            write_checked(kept / name, library)
        except OSError as error:
            log.info("%s is not kept for later runs: %s", source.name, error.strerror)
    return _opened(library, elsewhere)


@contextlib.contextmanager
def _work_folder(elsewhere: bool) -> Iterator[Path]:
    """Yield an empty folder for the user alone, in the cache folder if that can be written. A killed process may leave the folder there.

    elsewhere: in the folder for temporary files.
    """
    kept = None if elsewhere else private_folder(FOLDER)
    parent = kept if kept is not None and os.access(kept, os.W_OK) else None
    with tempfile.TemporaryDirectory(prefix=PREFIX, suffix=SUFFIX, dir=parent) as name:
        try:
            yield Path(name)
        except (OSError, subprocess.CalledProcessError) as error:
            if Path(name).exists():
                raise
            raise _DeletedError(f"{name} was deleted meanwhile") from error
