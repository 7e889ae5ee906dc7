"""`metarun list`: the options of each config group with the first sentence of their file's header, or all about one option."""

from __future__ import annotations

import sys
from importlib.resources import files
from importlib.resources.abc import Traversable
from pathlib import Path

from metarun.cli.help.comments import header_of
from metarun.cli.help.text import page_width, wrapped
from metarun.cli.plain_words import printed_help
from metarun.errors import UserError, nearest
from metarun.files.paths import expanded
from metarun.wiring.suggestions import for_option

GROUPS = {
    "algo": "Algorithms",
    "algo/update": "Update rules of algo=gbml",
    "task": "Tasks",
    "task/source": "Image sources of task=stream",
    "backbone": "Backbones",
    "experiment": "Experiments",
    "optimizer": "Outer optimizers",
    "logger": "Loggers",
    "device": "Devices",
}
USAGE = "usage: metarun list [GROUP ...] [GROUP OPTION ...] [OPTION ...] [--config-dir DIR]"
HELP = f"""{USAGE}

List the options of all groups, or of those that you name: {", ".join(GROUPS)}.

  metarun list task       the options of one group
  metarun list algo maml  all about one option: its paper, its keys, the experiments that use it, and an example
  metarun list protonet   the same, where only one group has the option
  --config-dir DIR        with your own options in DIR
"""


def main(arguments: list[str]) -> int:
    """Print the groups and the options named in `arguments`, or all groups; `--config-dir DIR` adds a user's own."""
    if printed_help(arguments, HELP):
        return 0
    words, folders = parse(arguments)
    roots: list[Traversable] = [files("metarun.configs"), *folders]
    columns = page_width() if sys.stdout.isatty() else None  # for another program: an option a line
    blocks = [
        section(group, options(group, roots), columns) if name is None else detail(group, name, folders)
        for group, name in asked(words, roots)
    ]
    # In one call: a reader who closes the pipe early raises BrokenPipeError here and nowhere else.
    print("\n\n".join(blocks), flush=True)
    return 0


def detail(group: str, name: str, folders: list[Path]) -> str:
    """Return all about one option as text."""
    from metarun.cli.help.option import described

    return described(group, name, folders, page_width())


def parse(arguments: list[str]) -> tuple[list[str], list[Path]]:
    """Return the words, where "algo=maml" counts as two, and the user's config folders."""
    words: list[str] = []
    folders: list[Path] = []
    rest = list(arguments)
    while rest:
        word, _, value = rest.pop(0).partition("=")
        if word in ("--config-dir", "-cd"):
            folders.append(config_dir(value or (rest.pop(0) if rest else "")))
        elif word.startswith("-"):
            raise UserError(f"metarun list knows no '{word}'.{nearest(word, ['--config-dir', '--help'])}\n{USAGE}")
        else:
            words += [word, value] if value else [word]
    return words, folders


def asked(words: list[str], roots: list[Traversable]) -> list[tuple[str, str | None]]:
    """Return (group, option) for each option among the words, and (group, None) for a group to list; all groups without a word.

    A word after the name of a group is an option of this group, or another group. Raises UserError for an unknown or ambiguous word.
    """
    found: list[tuple[str, str | None]] = []
    group = None
    for word in words:
        if word in GROUPS:
            found.append((word, None))
            group = word
        elif group is not None and word in options(group, roots):
            found = [each for each in found if each != (group, None)]
            found.append((group, word))
        else:
            found.append(alone(word, group, roots))
    return found or [(each, None) for each in GROUPS]


def alone(word: str, group: str | None, roots: list[Traversable]) -> tuple[str, str]:
    """Return the group and the name of an option that a word names by itself. group: the group named before, which lacks the word."""
    having = [each for each in GROUPS if word in options(each, roots)] if group is None else []
    if len(having) == 1:
        return having[0], word
    if having:
        calls = " or ".join(f"`metarun list {each} {word}`" for each in having)
        raise UserError(f"'{word}' is an option of {' and '.join(having)}; write {calls}.\n{USAGE}")
    if group is not None:
        raise UserError(f"{group} has no option '{word}'.{for_option(group, word, list(options(group, roots)))}\n{USAGE}")
    names = {each: list(options(each, roots)) for each in GROUPS}
    close = nearest(word, GROUPS) or next((said for each in GROUPS if (said := for_option(each, word, names[each]))), "")
    raise UserError(f"metarun list knows no '{word}'.{close}\n{USAGE}")


def config_dir(name: str) -> Path:
    """Return the folder of --config-dir; UserError where it does not exist."""
    folder = expanded(name)
    if not name or not folder.is_dir():
        raise UserError(f"--config-dir: there is no folder '{name}'.")
    return folder


def options(group: str, roots: list[Traversable]) -> dict[str, str]:
    """Return name -> description of a group's options; of two equal names the first root wins, as in Hydra.

    The description is the first sentence of the file's header, "" where there is none. Files that end in `_` are parts of others and no
    options.
    """
    descriptions: dict[str, str] = {}
    for root in roots:
        folder = root.joinpath(group)
        for file in folder.iterdir() if folder.is_dir() else ():
            name = file.name.removesuffix(".yaml")
            if name != file.name and not name.endswith("_"):
                descriptions.setdefault(name, header_of(file.read_text(encoding="utf-8")).sentence)
    return dict(sorted(descriptions.items()))


def section(title: str, rows: dict[str, str], columns: int | None = None) -> str:
    """Return one group as text, descriptions aligned. columns: the width of the text; None: each option on one line."""
    width = max((len(name) for name in rows), default=0)
    lines = [f"  {name:{width}}  {text}".rstrip() for name, text in rows.items()]
    if columns is not None:
        lines = [wrapped(line[width + 4 :], columns, line[: width + 4], " " * (width + 4)) for line in lines]
    return "\n".join([f"{GROUPS[title]} ({title}=...)", *lines])
