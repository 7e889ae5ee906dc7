"""The header of a config file, and the comment beside each of its keys.

A header is the comment lines at the top; some of its parts open with a label such as "Paper:". A key has its comment behind its value,
and goes on in comment lines below that are indented further than the key:

inner_lr: 0.4  # rate of an inner step; a long comment
               # may go on below
"""

from __future__ import annotations

import re
from collections.abc import Iterator
from typing import NamedTuple

import yaml

from metarun.wiring.option_files import LOADER

SENTENCE_END = re.compile(r"(?<=[.!?])\s+(?=[A-Z`])")
"""A full stop ends a sentence only before a capital letter: "Finn et al. 2017" and "5 shots, e.g. on glyphs" go on."""
LABELS = ("Paper", "Example", "Command", "Time", "Score", "Published", "Defaults", "Docs")
"""Words that open a part of a header, at the start of a line or of a sentence, and before a colon."""
_OPENING = re.compile(rf"(?:^|\n|(?<=[.!?]) )(?=({'|'.join(LABELS)})\b[^:]{{0,90}}:)")


class Header(NamedTuple):
    """The comment at the top of a config file.

    text: the sentences in front of the first label. parts: label -> the sentences that it opens, with the label.
    """

    text: str
    parts: dict[str, str]

    @property
    def sentence(self) -> str:
        """The first sentence, without its full stop."""
        return SENTENCE_END.split(self.text)[0].rstrip(".")


def header_of(text: str) -> Header:
    """Return the header of a config file; its texts are empty where the file has none."""
    lines: list[str] = []
    for line in text.splitlines():
        comment = line.removeprefix("#").strip()
        if comment.startswith("@package"):
            continue
        if not line.startswith("#") or not comment:  # an empty comment line ends the header
            if lines or (line and not line.startswith("#")):
                break
            continue
        lines.append(comment)
    opening, *rest = (" ".join(part.split()) for part in _OPENING.split("\n".join(lines)))
    return Header(opening, dict(zip(rest[::2], rest[1::2], strict=True)))


def comments_of(text: str) -> dict[str, str]:
    """Return dotted key -> comment for each key of a config file that has one. Keys in braces have none of their own."""
    try:
        node = yaml.compose(text, Loader=LOADER)
    except yaml.YAMLError:
        return {}
    lines = text.splitlines()
    return {key: comment for key, comment in _comments(node, lines, "") if comment} if isinstance(node, yaml.MappingNode) else {}


def _comments(node: yaml.MappingNode, lines: list[str], prefix: str) -> Iterator[tuple[str, str]]:
    for key, value in node.value:
        name = f"{prefix}{key.value}"
        nested = isinstance(value, yaml.MappingNode) and not value.flow_style and value.value
        end = key.end_mark if nested else value.end_mark
        yield name, _comment(lines, end.line, end.column, 10_000 if nested else key.start_mark.column)
        if nested:
            yield from _comments(value, lines, f"{name}.")


def _comment(lines: list[str], line: int, column: int, indent: int) -> str:
    """Return the comment after a place in the text, with the comment lines below that are indented further than the key."""
    if line >= len(lines):
        return ""
    found = re.match(r"\s*:?\s*#\s*(.*)", lines[line][column:])
    if found is None:
        return ""
    words = [found[1].strip()]
    for following in lines[line + 1 :]:
        more = re.match(r"(\s*)#\s*(.*)", following)
        if more is None or len(more[1]) <= indent:
            break
        words.append(more[2].strip())
    return " ".join(words)
