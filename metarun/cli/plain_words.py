"""The words key=value of the commands whose words Hydra does not read: compare, export and report."""

from __future__ import annotations

from collections.abc import Collection, Sequence

from metarun.cli.help.text import fitted, page_width
from metarun.cli.paths import typed_paths
from metarun.errors import UserError


def printed_help(arguments: Sequence[str], text: str) -> bool:
    """Print a help text where `-h` or `--help` is among the words of a command; return whether the text was asked for."""
    asked = any(word in ("-h", "--help") for word in arguments)
    if asked:
        print(fitted(text, page_width()), end="", flush=True)
    return asked


def note(given: dict[str, str], key: str, value: str, usage: str, *, may_be_empty: Collection[str] = ()) -> None:
    """Note the value of a key in `given`; UserError for a second value of the key and, except for keys that may be empty, for no value."""
    if key in given:
        raise UserError(f"{key}= may occur once.\n{usage}")
    if not value and key not in may_be_empty:
        raise UserError(f"{key}= has no value.\n{usage}")
    given[key] = value


def one_path(key: str, value: str, usage: str, remedy: str = "") -> str:
    """Return the path of a value, without quotes; UserError for a list of paths and for no path. remedy: what to do instead."""
    paths = typed_paths(value)
    if len(paths) != 1 or not paths[0]:
        raise UserError(f"{key}={value} must be one path{remedy}.\n{usage}")
    return paths[0]


def names_in(value: str) -> list[str]:
    """Return the names of a value such as "a,b" or "[a, b]"."""
    return [name.strip() for name in value.strip("[]").split(",") if name.strip()]
