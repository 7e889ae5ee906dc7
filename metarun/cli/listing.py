"""`metarun list`: the options of each config group with the first sentence of their file's header, read as text."""

from __future__ import annotations

import re
from importlib.resources import files
from importlib.resources.abc import Traversable
from pathlib import Path

from metarun.errors import UserError, nearest
from metarun.files.paths import expanded

GROUPS = {
    "algo": "Algorithms",
    "algo/update": "Update rules of algo=gbml",
    "task": "Tasks",
    "task/source": "Image sources of task=stream",
    "backbone": "Backbones",
    "experiment": "Experiments",
}
USAGE = "usage: metarun list [algo|algo/update|task|task/source|backbone|experiment ...] [--config-dir DIR]"


def main(arguments: list[str]) -> int:
    """Print the groups named in `arguments`, or all of them; `--config-dir DIR` adds a user's own."""
    wanted, folders = parse(arguments)
    if wanted is None:
        print(USAGE, flush=True)
        return 0
    roots: list[Traversable] = [files("metarun.configs"), *folders]
    # In one call: a reader who closes the pipe early raises BrokenPipeError here and nowhere else.
    print("\n\n".join(section(group, options(group, roots)) for group in wanted), flush=True)
    return 0


def parse(arguments: list[str]) -> tuple[list[str] | None, list[Path]]:
    """Return the groups to print (None: the usage) and the user's config folders."""
    wanted, folders, rest = [], [], list(arguments)
    while rest:
        word, _, value = rest.pop(0).partition("=")
        if word in ("-h", "--help"):
            return None, []
        if word in ("--config-dir", "-cd"):
            folders.append(config_dir(value or (rest.pop(0) if rest else "")))
        elif word in GROUPS:
            wanted.append(word)
        else:
            raise UserError(f"metarun list knows no '{word}'.{nearest(word, [*GROUPS, '--config-dir'])}\n{USAGE}")
    return wanted or list(GROUPS), folders


def config_dir(name: str) -> Path:
    """Return the folder of --config-dir; UserError where it does not exist."""
    folder = expanded(name)
    if not name or not folder.is_dir():
        raise UserError(f"--config-dir: there is no folder '{name}'.")
    return folder


def options(group: str, roots: list[Traversable]) -> dict[str, str]:
    """Return name -> description of a group's options; of two equal names the first root wins, as in Hydra.

    Files that end in `_` are parts of others and no options.
    """
    descriptions: dict[str, str] = {}
    for root in roots:
        folder = root.joinpath(group)
        for file in folder.iterdir() if folder.is_dir() else ():
            name = file.name.removesuffix(".yaml")
            if name != file.name and not name.endswith("_"):
                descriptions.setdefault(name, description(file.read_text(encoding="utf-8")))
    return dict(sorted(descriptions.items()))


def description(text: str) -> str:
    """Return the first sentence of a YAML file's header comment, without its full stop; "" where there is no header."""
    header: list[str] = []
    for line in text.splitlines():
        comment = line.removeprefix("#").strip()
        if comment.startswith("@package"):
            continue
        if not line.startswith("#") or not comment:  # an empty comment line ends the paragraph
            if header:
                break
            if line and not line.startswith("#"):
                return ""
            continue
        header.append(comment)
    # A full stop ends a sentence only before a capital letter: "Finn et al. 2017" and "5 shots, e.g. on glyphs" go on.
    return re.split(r"(?<=[.!?])\s+(?=[A-Z`])", " ".join(header))[0].rstrip(".")


def section(title: str, rows: dict[str, str]) -> str:
    """Return one group as text, descriptions aligned."""
    width = max((len(name) for name in rows), default=0)
    lines = [f"  {name:{width}}  {text}".rstrip() for name, text in rows.items()]
    return "\n".join([f"{GROUPS[title]} ({title}=...)", *lines])
