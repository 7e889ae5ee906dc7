"""The width of the terminal, and sentences that fit it."""

from __future__ import annotations

import shutil
import sys
import textwrap


def terminal_width() -> int | None:
    """Return the columns of the terminal; None where the output goes elsewhere."""
    return shutil.get_terminal_size().columns if sys.stdout.isatty() else None


def wrapped(sentence: str, width: int | None) -> str:
    """Return a sentence in lines of at most `width` columns; a longer word, such as a path, stays whole. None: in one line."""
    if width is None or len(sentence) <= width:
        return sentence
    return "\n".join(textwrap.wrap(sentence, width, subsequent_indent="  ", break_long_words=False, break_on_hyphens=False))
