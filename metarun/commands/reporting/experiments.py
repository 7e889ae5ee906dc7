"""The `reproduce` entries of the experiments that metarun ships, read as plain YAML."""

from __future__ import annotations

import re
from collections.abc import Mapping
from importlib import resources
from typing import Any

import yaml

from metarun.commands.comparing.reading import mapping
from metarun.commands.reporting.entries import sequence

_NAME = re.compile(r"[\w-]+")


def reproduce_of(name: str) -> dict[str, Any]:
    """Return the `reproduce` entry of an experiment, over those of the experiments that it extends; {} for an unknown experiment."""
    node, found = _read(name), dict[str, Any]()
    for parent in sequence(node.get("defaults")):
        if isinstance(parent, str) and parent not in ("_self_", name):
            found = _merged(found, reproduce_of(parent))
    return _merged(found, mapping(node.get("reproduce")))


def _read(name: str) -> Mapping[str, Any]:
    if not _NAME.fullmatch(name):
        return {}
    file = resources.files("metarun.configs") / "experiment" / f"{name}.yaml"
    try:
        return mapping(yaml.safe_load(file.read_text(encoding="utf-8")))
    except (OSError, yaml.YAMLError):
        return {}


def _merged(first: Mapping[str, Any], second: Mapping[str, Any]) -> dict[str, Any]:
    both = {key for key in first if isinstance(first[key], Mapping) and isinstance(second.get(key), Mapping)}
    return {**first, **second, **{key: {**first[key], **second[key]} for key in both}}
