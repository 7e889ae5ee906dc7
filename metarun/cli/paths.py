"""Overrides that name paths: Hydra's grammar gives a meaning to many characters that a file name may hold.

A value is a path where its key is named like one (`is_path_key`), or where the value begins like one (`/data`, `~/data`, `./data`). metarun
puts a path in quotes, so that it arrives as it was typed. These parts of Hydra's grammar keep their meaning, unless a file or folder has
exactly the typed name: `null`; a value in quotes; a list `[PATH,PATH]`; an interpolation `${…}`; and with -m, the commas and functions of
a sweep.
"""

from __future__ import annotations

import os
import re

from metarun.errors import UserError
from metarun.files.paths import escape, expanded, names_path, quoted

KEYS = ("resume", "checkpoint", "save", "init_from", "support", "query", "out")
_BEGINS_LIKE_A_PATH = re.compile(r"~|\.{0,2}/")
_QUOTED = re.compile(r"'(\\.|[^'\\])*'|\"(\\.|[^\"\\])*\"", re.DOTALL)
_SWEEP = re.compile(r"(choice|range|interval|glob|tag|sort|shuffle|extend_list)\(.*\)", re.DOTALL)
_FOREIGN = re.compile(r"[^\w\s/\\+.$%*@?|:,=\[\]{}()'\"-]", re.ASCII)
"""A character that is in no word of Hydra's grammar, such as `ü`, `~` or `#`."""


def is_path_key(key: str) -> bool:
    """Return whether a key names a path: `checkpoint`, `hydra.run.dir`, `task.root`, `task.split_file`, and a user's `task.label_files`."""
    return key in KEYS or names_path(key)


def as_typed(override: str, sweep: bool = False) -> str:
    """Return the override so that Hydra reads its paths, and characters that its grammar does not know, as they were typed.

    sweep: whether commas separate the values of a sweep. Raises UserError for an empty path.
    """
    typed, equals, value = override.partition("=")
    key = typed.lstrip("+")
    if not equals or key.startswith("~"):
        return override
    sweep = sweep and not key.startswith("hydra.")
    if is_path_key(key) or _BEGINS_LIKE_A_PATH.match(value):
        return f"{typed}={_rendered(key, value, sweep)}"
    return f"{typed}={_foreign_quoted(value, sweep)}"


def typed_paths(value: str) -> list[str]:
    """Return the paths of the value of `checkpoint=`: of one path, or of a list `[PATH,PATH]`."""
    if value.startswith("[") and value.endswith("]") and not _exists(value):
        return [_unquoted(piece) for piece in _split(value[1:-1])]
    return [_unquoted(value)]


def _rendered(key: str, value: str, sweep: bool) -> str:
    if not value:
        raise UserError(f"{key}= names no path; give one, or {key}=null for none.")
    if value == "null" or (_QUOTED.fullmatch(value) and not _exists(value)):
        return value
    if _exists(value):
        return _literal(value)
    if sweep and _SWEEP.fullmatch(value):
        return value
    if sweep and len(pieces := _split(value)) > 1:
        return ",".join(_rendered(key, piece, False) for piece in pieces)
    if value.startswith("[") and value.endswith("]"):
        return f"[{','.join(_rendered(key, piece, False) for piece in _split(value[1:-1]))}]"
    return _literal(value)


def _literal(path: str) -> str:
    """Return a path in quotes; an interpolation in it keeps its meaning unless there is a file or folder of this name."""
    text = str(expanded(path)) if path.startswith("~") else path
    return f"'{escape(text)}'" if re.search(r"\$\{[^}]", path) and not _exists(path) else quoted(text)


def _split(values: str) -> list[str]:
    """Split at the commas outside of quotes and brackets; a comma in the name of a file or folder that exists separates nothing."""
    pieces = [match[0].strip() for match in re.finditer(rf"(?:{_QUOTED.pattern}|\[[^\]]*\]|\$\{{[^}}]*\}}|[^,])+", values, re.DOTALL)]
    names: list[str] = []
    while pieces:
        count = next((count for count in range(len(pieces), 1, -1) if _exists(",".join(pieces[:count]))), 1)
        names.append(",".join(pieces[:count]))
        del pieces[:count]
    return names


def _unquoted(piece: str) -> str:
    if not _QUOTED.fullmatch(piece) or _exists(piece):
        return piece
    return re.sub(rf"(\\+)({piece[0]}|\$\{{|\Z)", lambda found: "\\" * (len(found[1]) // 2) + found[2], piece[1:-1])


def _exists(path: str) -> bool:
    return os.path.lexists(os.path.expanduser(path))


def _foreign_quoted(value: str, sweep: bool) -> str:
    """Return the value with quotes around each word with a character that Hydra's grammar does not know."""
    if not _FOREIGN.search(_QUOTED.sub("", value)) or "${" in value:
        return value
    if not sweep and not re.match(r"['\"\[{(]|\w+\(", value):
        return quoted(value)
    ends = r"\[\],'\"(){}:" if "{" in value else r"\[\],'\"()"

    def mended(found: re.Match[str]) -> str:
        text = found[0].strip()
        return quoted(text) if _FOREIGN.search(text) and not _QUOTED.fullmatch(text) else found[0]

    return re.sub(rf"{_QUOTED.pattern}|[^{ends}]+", mended, value, flags=re.DOTALL)
