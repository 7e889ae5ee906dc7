"""Measure one row in a process of its own: `python -m benchmarks.measure JSON`; the last line that it prints is a JSON list of results.

Exit code 1, and a sentence, where contenders disagree.
"""

from __future__ import annotations

import json
import sys
from collections.abc import Callable
from typing import Any

from .agreement import DisagreementError
from .dealing import dealing
from .evaluations import evaluation
from .families import family
from .memory import memory
from .outcome import Options, Result
from .rows import Row
from .steps import step

MEASURES: dict[str, Callable[[Row, Options], list[Result]]] = {
    "step": step,
    "evaluation": evaluation,
    "dealing": dealing,
    "memory": memory,
    "family": family,
}


def main(text: str) -> int:
    """Measure what a JSON object {row, options} describes."""
    wanted = json.loads(text)
    fields: dict[str, Any] = {key: tuple(value) if isinstance(value, list) else value for key, value in wanted["row"].items()}
    row = Row(**fields)
    try:
        results = MEASURES[row.measure](row, Options(**wanted["options"]))
    except DisagreementError as error:
        print(f"benchmark: section {row.section}, {row.name}: {error}", file=sys.stderr)
        return 1
    print(json.dumps(results))
    return 0


if __name__ == "__main__":
    sys.exit(main(sys.argv[1]))
