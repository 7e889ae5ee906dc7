"""What a measurement hands on: plain JSON, one result for each contender."""

from __future__ import annotations

from dataclasses import dataclass
from typing import Any

PLAIN, PRISTINE = "plain loop", "plain loop, before metarun"

Result = dict[str, Any]
"""contender: its name. unit: "s", "episodes/s", "%" or "MiB". samples: one for each turn. facts: whatever else is worth keeping;
"remarks" are sentences for below the table, "difference" says how far numbers are from the plain loop's."""


@dataclass(frozen=True)
class Options:
    """rounds: turns of each contender. seconds: about how long a turn is."""

    rounds: int
    seconds: float
