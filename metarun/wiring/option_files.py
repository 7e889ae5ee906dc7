"""The YAML files of the options, read as text: which keys an option has, without composing a config. This module imports no torch.

An option is the file `configs/GROUP/OPTION.yaml` with the files in its defaults list.
"""

from __future__ import annotations

import re
from collections.abc import Iterator, Mapping, Sequence
from importlib.resources import files
from importlib.resources.abc import Traversable
from typing import Any

import yaml

LOADER: Any = getattr(yaml, "CSafeLoader", yaml.SafeLoader)


def shipped() -> Traversable:
    """Return the folder of metarun's own config files."""
    return files("metarun.configs")


def options(group: str, roots: Sequence[Traversable] = ()) -> list[str]:
    """Return the names of the options of a group, sorted. roots: config folders besides the shipped one."""
    folders = [root.joinpath(group) for root in (shipped(), *roots)]
    names = {file.name for folder in folders if folder.is_dir() for file in folder.iterdir() if file.name.endswith(".yaml")}
    return sorted(name.removesuffix(".yaml") for name in names if not name.endswith("_.yaml"))


def text_of(name: str, roots: Sequence[Traversable]) -> str | None:
    """Return the text of the config file `name`, such as "algo/maml", from the first folder that has it; None where no folder does."""
    found = next((file for root in roots if (file := root.joinpath(f"{name}.yaml")).is_file()), None)
    return None if found is None else found.read_text(encoding="utf-8")


def files_of(name: str, roots: Sequence[Traversable] = (), prefix: str = "", above: tuple[str, ...] = ()) -> Iterator[tuple[str, str]]:
    """Yield (prefix, text) of an option's files, the file itself last. prefix: in front of the keys of a file, such as "images.".

    name: such as "task/features". above: the files that lead to this one; a circle ends there.
    """
    text = text_of(name, [shipped(), *roots])
    if text is None or name in above:
        return
    group = name.rpartition("/")[0]
    for entry in defaults_of(text):
        choice, option = entry
        if isinstance(option, str) and option != "_self_":
            path, at, package = choice.removeprefix("override ").partition("@")
            other = path.removeprefix("/") if path.startswith("/") else "/".join(part for part in (group, path) if part)
            inner = package if at else (path if path and not path.startswith("/") else "")
            if not package.startswith("_global_"):
                below = "" if inner in ("", "_here_") else f"{inner}."
                yield from files_of(f"{other}/{option}", roots, prefix + below, (*above, name))
    yield prefix, text


def defaults_of(text: str) -> list[tuple[str, Any]]:
    """Return the defaults list of a config file as (group, option); the group is an empty string where the entry is a name alone."""
    content = _load(text)
    entries = content.get("defaults") if isinstance(content, dict) else None
    pairs: list[tuple[str, Any]] = []
    for entry in entries if isinstance(entries, list) else ():
        pairs += [(str(group), option) for group, option in entry.items()] if isinstance(entry, dict) else [("", entry)]
    return pairs


def keys_of(name: str, roots: Sequence[Traversable] = ()) -> dict[str, Any]:
    """Return dotted key -> value of an option, such as "algo/anil"."""
    found: dict[str, Any] = {}
    for prefix, text in files_of(name, roots):
        found |= leaves(content_of(text), prefix)
    return found


def content_of(text: str) -> dict[str, Any]:
    """Return the keys of a config file with their values; {} for a file that is no mapping."""
    content = _load(text)
    return {str(key): value for key, value in content.items() if key != "defaults"} if isinstance(content, dict) else {}


def leaves(node: Mapping[Any, Any], prefix: str = "") -> dict[str, Any]:
    """Return dotted key -> value below a node. `reproduce`, and a mapping with keys that are no names, are values themselves."""
    found: dict[str, Any] = {}
    for key, value in node.items():
        name = f"{prefix}{key}"
        nested = isinstance(value, Mapping) and value and name != "reproduce" and all(re.fullmatch(r"\w+", str(each)) for each in value)
        found |= leaves(value, f"{name}.") if nested else {name: value}
    return found


def _load(text: str) -> Any:
    try:
        return yaml.load(text, Loader=LOADER)
    except yaml.YAMLError:
        return None
