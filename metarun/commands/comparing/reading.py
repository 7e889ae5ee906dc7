"""The files of a run folder as data. A kill may have cut a file short, and a stranger may have written it, so each value is checked."""

from __future__ import annotations

import json
import math
from collections.abc import Mapping
from pathlib import Path
from typing import Any

import yaml

from metarun.files.writing import open_to_read

LARGEST = 64 << 20
"""Most bytes of a file that is read; a report of the largest data sets has about 1 MB, and the metrics of a long run some 10 MB."""

LARGEST_NUMBER = 1e300
"""A larger number counts as not finite, since sums of such numbers overflow."""


def content_of(path: Path) -> bytes:
    """Return the content of a file; b"" where it is missing, too large, a link or no regular file, or cannot be read."""
    try:
        with open_to_read(path) as file:
            content = file.read(LARGEST + 1)
    except (OSError, ValueError):
        return b""
    return content if len(content) <= LARGEST else b""


def json_of(path: Path) -> dict[str, Any]:
    """Return the mapping in a JSON file; {} where there is none."""
    try:
        content = json.loads(content_of(path) or b"{}")
    except (ValueError, RecursionError):
        return {}
    return content if isinstance(content, dict) else {}


def yaml_of(path: Path) -> Any:
    """Return the plain values in a YAML file, whose `${…}` stay text; None where it cannot be read."""
    try:
        return yaml.safe_load(content_of(path))
    except (yaml.YAMLError, ValueError, RecursionError):
        return None


def lines_of(path: Path) -> list[dict[str, Any]]:
    """Return the lines of `metrics.jsonl`: each has the whole number "step". A line that a kill cut short is left out."""
    lines = []
    for text in content_of(path).splitlines():
        try:
            line = json.loads(text)
        except (ValueError, RecursionError):
            continue
        if isinstance(line, dict) and type(line.get("step")) is int:
            lines.append(line)
    return lines


def number(value: Any) -> float | None:
    """Return a number below `LARGEST_NUMBER`; None for anything else, such as the null of a value that was not finite."""
    return float(value) if type(value) in (int, float) and abs(value) < LARGEST_NUMBER else None


def mapping(value: Any) -> Mapping[str, Any]:
    """Return a mapping; {} for anything else."""
    return value if isinstance(value, Mapping) else {}


def look_up(config: Mapping[str, Any], dotted: str) -> Any:
    """Return the value at a dotted key; None where there is none."""
    node: Any = config
    for part in dotted.split("."):
        node = mapping(node).get(part)
    return node


def leaves(node: Mapping[str, Any], prefix: str = "") -> dict[str, Any]:
    """Return dotted key -> value of the leaves of nested mappings."""
    found: dict[str, Any] = {}
    for key, value in node.items():
        found |= leaves(value, f"{prefix}{key}.") if isinstance(value, Mapping) else {f"{prefix}{key}": value}
    return found


OF_MIXTURE = ("_target_", "noise", "only", "sources", "weights")
"""The keys of `task=mixture` that are its own; each other key, where it is not null, sets the key of this name of every source."""
OF_IMAGES = ("image_size", "channels")
"""Of the others, those that convert the images of a source that has no such key itself."""


def sources_of(task: Mapping[str, Any]) -> list[str]:
    """Return the names of the sources of a mixture that take part, in their order; [] for another task."""
    sources, only = mapping(task.get("sources")), task.get("only")
    return [str(name) for name in (only if isinstance(only, list) else sources) if isinstance(sources.get(name), Mapping)]


def with_shared(task: Mapping[str, Any]) -> dict[str, Any]:
    """Return the config of a mixture with the values that it sets for all sources in each source; other tasks as they are.

    A source that takes no part is left out, and so is one of weight 0.
    """
    if not (names := sources_of(task)):
        return dict(task)
    weights = mapping(task.get("weights"))
    shared = {key: value for key, value in task.items() if key not in OF_MIXTURE and value is not None}
    found = {}
    for name in (name for name in names if weights.get(name) != 0):
        node = mapping(task["sources"][name])
        found[name] = with_shared({**node, **{key: value for key, value in shared.items() if key in node or key not in OF_IMAGES}})
    return {**{key: task[key] for key in OF_MIXTURE if key in task and key != "only"}, "sources": found}


def text_of(value: Any) -> str:
    """Return a value as one types it: `null`, `true`, `0.001`, `[1,2]`. A number that was typed as text is that number."""
    if value is None or isinstance(value, bool):
        return {None: "null", True: "true", False: "false"}[value]
    if isinstance(value, float) and abs(value) < 1e15 and value == int(value):
        return str(int(value))
    if isinstance(value, str):
        return _text_of_word(value)
    if isinstance(value, (list, tuple)):
        return f"[{','.join(map(text_of, value))}]"
    if isinstance(value, Mapping):
        return f"{{{','.join(f'{key}:{text_of(item)}' for key, item in value.items())}}}"
    return str(value)


def _text_of_word(word: str) -> str:
    if word.lower() in ("true", "false", "null"):
        return word.lower()
    try:
        typed = math.nan if word.isalpha() else float(word)
    except ValueError:
        return word
    return text_of(typed) if math.isfinite(typed) else word
