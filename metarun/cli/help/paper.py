"""The paper of an option: from the header of its file, or from the docstring of the module that its `_target_` names.

The module is read as text; nothing is imported.
"""

from __future__ import annotations

import ast
import re
import sys
from pathlib import Path

import metarun

YEAR = re.compile(r"\b(?:19|20)\d\d\b")


def paper_of(target: str, parts: dict[str, str]) -> str:
    """Return authors, title, venue, year and link as one line; an empty string where neither place names a paper.

    target: such as "metarun.algorithms.maml.Maml". parts: of the header of the option's file.
    """
    if "Paper" in parts:
        return parts["Paper"].removeprefix("Paper:").strip()
    file = module_file(target.rpartition(".")[0])
    paragraphs = (docstring_of(file) if file else "").split("\n\n")
    second = " ".join(paragraphs[1].split()) if len(paragraphs) > 1 else ""
    return second.rstrip(":") if second.count('"') >= 2 and YEAR.search(second) else ""


def module_file(name: str) -> Path | None:
    """Return the file of a module, from metarun's own folder, the current folder and Python's path; None where there is none."""
    if not re.fullmatch(r"\w+(\.\w+)*", name):
        return None
    folders = [Path(metarun.__file__).parents[1], Path.cwd(), *map(Path, sys.path)]
    places = (folder.joinpath(*name.split(".")) for folder in folders)
    files = (file for place in places for file in (place.with_suffix(".py"), place / "__init__.py"))
    return next((file for file in files if file.is_file()), None)


def docstring_of(file: Path) -> str:
    """Return the docstring of a Python file; an empty string where it has none, or cannot be read."""
    try:
        return ast.get_docstring(ast.parse(file.read_text(encoding="utf-8"))) or ""
    except (OSError, SyntaxError, ValueError):
        return ""
