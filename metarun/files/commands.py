"""Commands that metarun prints: a person can paste each of them into a shell as it is."""

from __future__ import annotations

import os
import shlex
import shutil
import sys
from collections.abc import Iterable, Mapping, Sequence
from pathlib import Path
from typing import Any

PROGRAM = "METARUN_PROGRAM"
"""The environment variable that holds the first words of the command line; the processes of a sweep's launcher inherit it."""


def command(name: str, *words: str, config: Any = None) -> str:
    """Return a command line of metarun for a POSIX shell.

    words: of the command, each as `metarun.files.paths.word` gives it or plain, such as best=3. config: of the run that the command reads,
    or a list of configs; the packages that it names besides metarun come into `trust=`.
    """
    trust = packages_of(config)
    return " ".join([program(), name, *words, *([shlex.quote(f"trust=[{','.join(trust)}]")] if trust else [])])


def packages_of(config: Any) -> list[str]:
    """Return the packages that a config, or a list of configs, names in its `_target_`s, besides metarun. It may be a stranger's."""
    found = dict[str, None]()
    for target in _targets(config):
        root = target.split(".")[0]
        if root.isidentifier() and root != "metarun":
            found[root] = None
    return list(found)


def program() -> str:
    """Return how the user starts metarun: `metarun`, `python -m metarun`, or the path of the script where PATH does not lead to it."""
    typed = _typed(sys.orig_argv)
    return shlex.join(typed) if typed else os.environ.get(PROGRAM) or "metarun"


def note_program() -> None:
    """Note in the environment how the user started metarun, for the processes of a sweep."""
    os.environ[PROGRAM] = program()


def _typed(argv: Sequence[str]) -> list[str]:
    """Return the words that start metarun; [] where another program does. argv: the words with which the system started Python."""
    for place, word in enumerate(argv[1:], start=1):
        if word == "-m":
            return [_found(argv[0]), *argv[1 : place + 2]] if argv[place + 1 : place + 2] == ["metarun"] else []
        if not word.startswith("-"):
            return [_found(word)] if Path(word).name == "metarun" else []
    return []


def _found(path: str) -> str:
    """Return the name of a program where PATH leads to it, else its path."""
    name = Path(path).name
    there = shutil.which(name)
    return name if there is not None and os.path.abspath(there) == os.path.abspath(shutil.which(path) or path) else path


def _targets(value: Any) -> Iterable[str]:
    if isinstance(value, Mapping):
        if isinstance(value.get("_target_"), str):
            yield value["_target_"]
        value = list(value.values())
    for item in value if isinstance(value, (list, tuple)) else ():
        yield from _targets(item)
