"""Run one part in this process: `python -m gpu_checks.part NAME OPTIONS FILE`, where OPTIONS is a JSON object.

FILE gets a JSON object {results, failures, finished}, anew after every result, so that a part that is ended keeps what it has.
"""

from __future__ import annotations

import importlib
import json
import math
import os
import sys
import time
import traceback
from pathlib import Path
from typing import Any

from .parts import PARTS, Options


def main(name: str, options: str, file: str) -> int:
    """Run the part and write its results; return 1 where it fails."""
    part = next(each for each in PARTS if each.name == name)
    module, function, *arguments = part.place.split(":")
    begun = time.perf_counter()
    found: dict[str, Any] = {"results": {}, "failures": [], "finished": False}

    def note(key: str, value: Any) -> None:
        found["results"][key] = value
        write(Path(file), found)
        print(f"  {name} {time.perf_counter() - begun:5.1f} s  {key}: {brief(value)}", flush=True)

    try:
        run = getattr(importlib.import_module(f"gpu_checks.{module}"), function)
        found["failures"] = run(Options(**json.loads(options)), note, *arguments)
        found["finished"] = True
    except Exception as error:
        traceback.print_exc()
        found["failures"] = [f"{type(error).__name__}: {error}"[:2000]]
    write(Path(file), found)
    return int(bool(found["failures"]))


def write(file: Path, content: Any) -> None:
    """Write JSON in one move, so that a reader never sees half of it."""
    beside = file.with_name(f"{file.name}.new")
    beside.write_text(json.dumps(plain(content), indent=1) + "\n", encoding="utf-8")
    os.replace(beside, file)


def plain(value: Any) -> Any:
    """Return the value as JSON holds it; a number that is not finite becomes its name."""
    if isinstance(value, dict):
        return {str(key): plain(each) for key, each in value.items()}
    if isinstance(value, (list, tuple)):
        return [plain(each) for each in value]
    return str(value) if isinstance(value, float) and not math.isfinite(value) else value


def brief(value: Any) -> str:
    """Return a value as one short line: of a mapping, the entry "told" or "largest" where it has one."""
    if isinstance(value, dict):
        value = next((value[key] for key in ("told", "error", "left_out", "largest") if key in value), value)
    text = f"{value:.3g}" if isinstance(value, float) else str(value)
    return text if len(text) < 200 else f"{text[:197]}..."


if __name__ == "__main__":
    sys.exit(main(*sys.argv[1:]))
