"""The names of class folders: text, and not the same text in other code points."""

from __future__ import annotations

import unicodedata
from collections.abc import Iterable
from pathlib import Path

from metarun.errors import UserError, printable


def check_names(root: Path, names: Iterable[str]) -> None:
    """Raise UserError for class folders whose names are no text, or look the same and differ in their bytes."""
    seen: dict[str, str] = {}
    for name in names:
        if not name.isprintable() and any("\ud800" <= letter <= "\udfff" for letter in name):
            raise UserError(f"the class folder '{printable(name)}' of '{printable(str(root))}' has a name that is not UTF-8; rename it.")
        twin = seen.setdefault(composed(name), name)
        if twin != name:
            raise UserError(
                f"'{printable(str(root))}' has two class folders '{printable(name)}', whose names use different code points of Unicode "
                f"({twin!a} and {name!a}); put their images into one folder."
            )


def composed(name: str) -> str:
    """Return the name with each accent and its letter as one code point, however the disk or the zip writes it."""
    return unicodedata.normalize("NFC", name)
