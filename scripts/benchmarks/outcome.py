"""The result of a measurement: plain JSON, one object for each contender."""

from __future__ import annotations

from dataclasses import dataclass
from typing import Any

PLAIN, PRISTINE = "plain loop", "plain loop, before metarun"

Result = dict[str, Any]
"""contender: its name. unit: "s", "episodes/s", "%" or "MiB". samples: one for each turn. facts: further values; "remarks" are sentences
for below the table, "difference" is the relative distance from the plain loop's numbers."""


@dataclass(frozen=True)
class Options:
    """rounds: turns of each contender. seconds: the approximate length of a turn."""

    rounds: int
    seconds: float
