"""A config as a flat list of parameters, for loggers that show one column for each."""

from __future__ import annotations

from collections.abc import Iterator, Mapping
from typing import Any


def flatten(config: Mapping[str, Any], prefix: str = "") -> Iterator[tuple[str, bool | int | float | str]]:
    """Yield the leaves of a nested config as ("algo.inner_lr", 0.4). A `_target_` yields the node's name and the last part of the path."""
    for key, value in config.items():
        name = f"{prefix}{key}"
        if isinstance(value, Mapping):
            yield from flatten(value, f"{name}.")
        elif key == "_target_":
            yield prefix[:-1] or name, str(value).rsplit(".", 1)[-1]
        else:
            yield name, shown(value)


def shown(value: Any) -> bool | int | float | str:
    """Return a value as a scalar: a list or mapping as text, and None as "null"."""
    return value if isinstance(value, (bool, int, float, str)) else "null" if value is None else str(value)
