"""Paths as a user types them and as metarun prints them: the home folder, and quotes for Hydra and for a shell."""

from __future__ import annotations

import os
import re
import shlex
import stat
from collections.abc import Iterable
from pathlib import Path
from typing import Any

from metarun.errors import UserError

_PLAIN = re.compile(r"[^'\"\[].*", re.DOTALL)
"""A path that needs no quotes of Hydra's grammar: metarun takes it as it is typed (`metarun.cli.paths`)."""

_NAMES = re.compile(r"(\w*_)?(root|path|file|folder|dir|subdir|directory)s?")
"""The last part of a key that names a path."""
_INTERPOLATION = re.compile(r"(\\*)\$\{")
_LITERAL_BRACE = "\\${"


def expanded(path: str | Path) -> Path:
    """Return the path with the home folder in the place of `~`; unchanged where the system knows no home folder."""
    return Path(os.path.expanduser(path))


def is_folder(path: Path, *, missing: str, shown: str, remedy: str) -> bool:
    """Return whether a path names a folder (True) or a file (False), without opening it: a pipe would keep the run waiting.

    Raises UserError with `missing` where there is nothing, and with `shown`, the path as messages have it, where the path cannot be opened
    or is neither of the two; `remedy` then says what to give.
    """
    try:
        mode = path.stat().st_mode
    except (FileNotFoundError, NotADirectoryError, ValueError):
        raise UserError(missing) from None
    except OSError as error:
        raise UserError(f"{shown} cannot be opened ({error.strerror}).") from error
    if not (stat.S_ISDIR(mode) or stat.S_ISREG(mode)):
        raise UserError(f"{shown} is a pipe, a socket or a device; {remedy}.")
    return stat.S_ISDIR(mode)


def paths_of(run: Any) -> str | list[str]:
    """Return the path of a run, or the paths of a list of runs, as text; UserError for what is no path."""
    if isinstance(run, (list, tuple)):
        return [text for each in run if isinstance(text := paths_of(each), str)]
    if isinstance(run, (str, os.PathLike)):
        return str(os.fspath(run))
    hint = "; metarun.train gives the run folder as result['folder']" if isinstance(run, dict) else ""
    raise UserError(f"name a run by its folder or a checkpoint; this value is a {type(run).__name__}{hint}.")


def names_path(key: str) -> bool:
    """Return whether a dotted key is named like a path: `task.root`, `task.split_file`, and a user's `task.label_files`."""
    return _NAMES.fullmatch(key.rpartition(".")[2]) is not None


def quoted(text: str) -> str:
    """Return text in single quotes, so that Hydra reads exactly this text: neither a list, a number nor an interpolation."""
    return f"'{escape(_INTERPOLATION.sub(lambda found: found[1] * 2 + _LITERAL_BRACE, text))}'"


def escape(text: str) -> str:
    """Return text escaped for single quotes in Hydra's grammar, where backslashes count only before a quote or at the end."""
    return re.sub(r"(\\*)('|\Z)", lambda part: part[1] * 2 + ("\\'" if part[2] else ""), text)


def word(key: str, *paths: str | Path) -> str:
    """Return `key=PATH`, or `key=[PATH,PATH]` for several paths, in the quotes that a POSIX shell and Hydra need."""
    texts = [_explicit(str(path)) for path in paths]
    if len(texts) == 1:
        plain = _PLAIN.fullmatch(texts[0]) and "${" not in texts[0] and texts[0] not in ("", "null")
        return shlex.quote(f"{key}={texts[0] if plain else quoted(texts[0])}")
    listed = ",".join(text if re.fullmatch(r"[\w./-]+", text, re.ASCII) and "/" in text else quoted(text) for text in texts)
    return shlex.quote(f"{key}=[{listed}]")


def shell_words(paths: Iterable[str]) -> str:
    """Return paths as words of a POSIX shell."""
    return " ".join(f"~/{shlex.quote(path[2:])}" if path[:2] == "~/" != path else shlex.quote(_explicit(path)) for path in paths)


def _explicit(path: str) -> str:
    """Return the path of a folder that is called `~…` so that its name does not mean a home folder."""
    return f"./{path}" if path.startswith("~") else path
