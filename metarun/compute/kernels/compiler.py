"""Compiles C files for this processor at their first use, and keeps the libraries for later runs."""

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

from metarun.errors import first_line
from metarun.files.cache import cache_folder

log = logging.getLogger(__name__)

COMPILERS = ("cc", "gcc", "clang")
"""Compilers to look for, in this order, where the environment variable CC names none."""

_INSTRUCTIONS = {
    "AVX512": ["-mavx512f", "-mavx512bw", "-mavx512dq", "-mavx512vl", "-mfma", "-mtune=skylake-avx512"],
    "AVX2": ["-mavx2", "-mfma", "-mtune=haswell"],
}
"""Compiler options by torch's CPU capability, which a user may have lowered: the instruction sets that torch itself relies on, and no more.
The tuning decides whether sums stay in registers."""
_SECONDS = 120
"""Time limit of a compiler call."""


class NoLibraryError(Exception):
    """The library cannot be made here; the message gives the reason in a few words."""


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
        library = cache_folder() / "kernels" / f"{source.stem}-{digest}.so"
        if library.exists():
            try:
                return ctypes.CDLL(str(library))
            except OSError as error:
                log.info("%s is damaged and is compiled again: %s", library, first_line(error))
        _compile(command, source, library)
        return ctypes.CDLL(str(library))
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


def _compile(command: list[str], source: Path, library: Path) -> None:
    """Compile next to the library's place and move the result there, so that a run that starts meanwhile never reads half a library."""
    start = time.perf_counter()
    library.parent.mkdir(parents=True, exist_ok=True)
    with tempfile.TemporaryDirectory(dir=library.parent) as folder:
        output = Path(folder) / library.name
        subprocess.run([*command, "-o", str(output), str(source)], capture_output=True, timeout=_SECONDS, check=True)
        output.replace(library)
    log.info("compiled %s in %.1f s", source.name, time.perf_counter() - start)
