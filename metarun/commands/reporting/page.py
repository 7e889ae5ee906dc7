"""The plain model of a report's page: text, tables, pictures and commands. The templates turn the model into HTML.

Every text is plain text, which the templates escape. In `Prose` and in verdicts, text between two backticks is set as code.
"""

from __future__ import annotations

from collections.abc import Sequence
from dataclasses import dataclass, field
from typing import Any

from metarun.errors import printable

MOST_LETTERS = 160
"""Letters of a name that a page shows."""


@dataclass(frozen=True)
class Cell:
    """A cell of a table. text: as shown. value: the number by which the column is sorted; None for text and for a missing number."""

    text: str
    value: float | None = None
    strong: bool = False


@dataclass(frozen=True)
class Table:
    """A table. numeric: for each column, whether its cells are numbers, which are aligned to the right."""

    columns: Sequence[str]
    rows: Sequence[Sequence[Cell]]
    caption: str = ""
    numeric: Sequence[bool] = ()
    kind: str = field(default="table", init=False)

    @property
    def aligned(self) -> list[bool]:
        """For each column, whether it holds numbers."""
        if self.numeric:
            return list(self.numeric)
        return [any(row[place].value is not None for row in self.rows) for place in range(len(self.columns))]


@dataclass(frozen=True)
class Picture:
    """A drawing. svg: made by `metarun.commands.reporting.drawing`, which escapes its texts. name: of the file that `figures=` writes."""

    name: str
    svg: str
    caption: str = ""
    alt: str = ""
    wide: bool = False
    kind: str = field(default="picture", init=False)


@dataclass(frozen=True)
class Prose:
    """A paragraph."""

    text: str
    kind: str = field(default="prose", init=False)


@dataclass(frozen=True)
class Command:
    """A command to paste into a shell."""

    text: str
    title: str = ""
    kind: str = field(default="command", init=False)


@dataclass(frozen=True)
class Listing:
    """A list of sentences. tone: "note" or "warning"."""

    items: Sequence[str]
    tone: str = "note"
    kind: str = field(default="listing", init=False)


@dataclass(frozen=True)
class Tile:
    """An image of an episode. png: base64. mark: "support", "right" or "wrong". text: below the image. title: what a pointer shows."""

    png: str
    mark: str
    text: str = ""
    title: str = ""


@dataclass(frozen=True)
class TileRow:
    """The images of one class."""

    title: str
    support: Sequence[Tile]
    query: Sequence[Tile]


@dataclass(frozen=True)
class Tiles:
    """An episode of images with the predictions of a model."""

    title: str
    rows: Sequence[TileRow]
    kind: str = field(default="tiles", init=False)


Block = Table | Picture | Prose | Command | Listing | Tiles


@dataclass(frozen=True)
class Section:
    """A part of the page. key: its anchor."""

    key: str
    title: str
    blocks: Sequence[Block]

    @property
    def pairs(self) -> bool:
        """Whether a wide screen shows two pictures side by side."""
        return sum(isinstance(block, Picture) and not block.wide for block in self.blocks) > 1


@dataclass(frozen=True)
class Page:
    """A whole report. facts: pairs of a word and its value, in the head of the page."""

    title: str
    verdict: Sequence[str]
    facts: Sequence[tuple[str, str]]
    sections: Sequence[Section]
    footer: str = ""


def section(key: str, title: str, *blocks: Block | None) -> Section | None:
    """Return the section with the blocks that exist; None where only paragraphs or nothing exist."""
    found = [block for block in blocks if block is not None]
    return Section(key, title, found) if any(not isinstance(block, Prose) for block in found) else None


def shown(text: Any, most: int = MOST_LETTERS) -> str:
    """Return a text from a file for a page: in one line without control characters, shortened, without backticks."""
    line = printable(text).replace("`", "'")
    return line if len(line) <= most else f"{line[: most - 1]}…"


def code(text: Any, most: int = MOST_LETTERS) -> str:
    """Return a name as `Prose` and verdicts set it."""
    return f"`{shown(text, most)}`"
