"""Text in columns, within the width of the terminal. This module imports no Hydra."""

from __future__ import annotations

import os
import re
import shutil
import sys
import textwrap

COLUMN, NARROWEST, WIDEST = 30, 40, 120
"""Where explanations begin; the bounds of the width of a page, in columns."""


def page_width() -> int:
    """Return the number of columns: those of the terminal, or 80 where the text goes elsewhere and COLUMNS does not say another number."""
    columns = shutil.get_terminal_size((80, 24)).columns if sys.stdout.isatty() or "COLUMNS" in os.environ else 80
    return max(NARROWEST, min(columns, WIDEST))


def entry(name: str, words: str, width: int) -> str:
    """Return a name, cut where it is too long for a line, and words in a column of their own; below the name where the name is long."""
    start, indent = f"  {name}", " " * COLUMN
    start = start if len(start) <= width else f"{start[: width - 1]}…"
    if not words:
        return start
    text = wrapped(words, width, indent, indent)
    return f"{start}\n{text}" if len(start) > COLUMN - 2 else f"{start:{COLUMN}}{text.lstrip()}"


def wrapped(text: str, width: int, first: str = "", rest: str = "") -> str:
    """Return text in lines of at most `width` columns. first, rest: the indents of the first line and of the others."""
    return "\n".join(textwrap.wrap(text, width, initial_indent=first, subsequent_indent=rest, break_on_hyphens=False)) or first.rstrip()


def fitted(text: str, width: int) -> str:
    """Return a help text in lines of at most `width` columns.

    text: paragraphs of lines without an indent, and rows such as "  checkpoint  a run folder", whose words keep their column. A line with a
    deeper indent belongs to the row above.
    """
    paragraphs: list[str] = []
    for line in text.rstrip().split("\n"):
        if paragraphs and paragraphs[-1] and line and (line.startswith("   ") or not line.startswith("  ")):
            paragraphs[-1] += f" {line.strip()}"
        else:
            paragraphs.append(line)
    return "\n".join(_fitted(paragraph, width) for paragraph in paragraphs) + "\n"


def _fitted(paragraph: str, width: int) -> str:
    row = re.match(r"  \S.*?  +(?=\S)", paragraph)
    start = row[0] if row else ""
    indent = "       " if paragraph.startswith("usage:") else " " * len(start) or "    " * paragraph.startswith("  ")
    return wrapped(paragraph[len(start) :], width, start, indent)
