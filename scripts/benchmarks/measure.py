"""Measure one row in its own process: `python -m benchmarks.measure JSON` prints a JSON list of results as its last line.

If contenders disagree, the process prints a sentence and exits with code 1.
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
from .processes import divided_step
from .rows import Row
from .steps import step
from .streams import stream

MEASURES: dict[str, Callable[[Row, Options], list[Result]]] = {
    "step": step,
    "evaluation": evaluation,
    "dealing": dealing,
    "memory": memory,
    "family": family,
    "processes": divided_step,
    "stream": stream,
}


def main(text: str) -> int:
    """Measure the row of a JSON object {row, options}."""
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
