"""Functions in C, compiled for this processor when they are first wanted and kept for later runs."""

from __future__ import annotations

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
from pathlib import Path

import torch

from metarun.cache import cache_folder
from metarun.errors import first_line

log = logging.getLogger(__name__)

COMPILERS = ("cc", "gcc", "clang")
"""Looked for in this order, where the environment variable CC names none."""

_INSTRUCTIONS = {
    "AVX512": ["-mavx512f", "-mavx512bw", "-mavx512dq", "-mavx512vl", "-mfma", "-mtune=skylake-avx512"],
    "AVX2": ["-mavx2", "-mfma", "-mtune=haswell"],
}
"""Options by what torch has found that the processor can do (and the user has left it): what torch itself makes sure of, and no more. The
tuning decides whether sums stay in registers."""
_SECONDS = 120


class NoLibraryError(Exception):
    """There is no such library here, with the reason in a few words."""


def load(source: Path) -> ctypes.CDLL:
    """Return the library compiled from a C file, which may include headers of its folder.

    Raises NoLibraryError where the system, the processor or the compiler does not allow it.
    """
    if sys.platform not in ("linux", "darwin"):
        raise NoLibraryError(f"they are not made for {sys.platform}")
    compiler = _compiler()
    command = [*compiler, "-O3", *_instructions(), "-shared", "-fPIC"]
    try:
        version = subprocess.run([*compiler, "--version"], capture_output=True, timeout=_SECONDS, check=True).stdout
        read = [file.read_bytes() for file in (source, *sorted(source.parent.glob("*.h")))]
        known = hashlib.sha256(b"\0".join([*read, version, " ".join(command).encode()])).hexdigest()[:16]
        library = cache_folder() / "kernels" / f"{source.stem}-{known}.so"
        if library.exists():
            try:
                return ctypes.CDLL(str(library))
            except OSError as error:
                log.info("%s is broken and is compiled again: %s", library, first_line(error))
        _compile(command, source, library)
        return ctypes.CDLL(str(library))
    except subprocess.CalledProcessError as error:
        said = (error.stderr or b"").decode(errors="replace").strip().splitlines()
        reason = next((line for line in said if "error" in line), said[0] if said else f"exit code {error.returncode}")
        raise NoLibraryError(f"{command[0]} failed: {reason}") from error
    except (OSError, subprocess.TimeoutExpired) as error:
        raise NoLibraryError(first_line(error)) from error


def _compiler() -> list[str]:
    try:
        chosen = shlex.split(os.environ.get("CC", ""))
    except ValueError as error:
        raise NoLibraryError(f"CC={os.environ['CC']} cannot be read: {first_line(error)}") from error
    if chosen:
        return chosen
    found = next((compiler for compiler in COMPILERS if shutil.which(compiler)), None)
    if found is None:
        raise NoLibraryError(f"there is no C compiler ({', '.join(COMPILERS)})")
    return [found]


def _instructions() -> list[str]:
    capability = torch.backends.cpu.get_cpu_capability()
    if capability in _INSTRUCTIONS:
        return _INSTRUCTIONS[capability]
    if platform.machine() in ("arm64", "aarch64"):
        return []  # the vectors that they are made for are part of every such processor
    raise NoLibraryError(f"they are not made for a processor with {capability}")


def _compile(command: list[str], source: Path, library: Path) -> None:
    """Compile beside the library's place and move it there, so that runs that start at the same time do not read half of it."""
    start = time.perf_counter()
    library.parent.mkdir(parents=True, exist_ok=True)
    with tempfile.TemporaryDirectory(dir=library.parent) as folder:
        made = Path(folder) / library.name
        subprocess.run([*command, "-o", str(made), str(source)], capture_output=True, timeout=_SECONDS, check=True)
        made.replace(library)
    log.info("compiled %s in %.1f s", source.name, time.perf_counter() - start)
