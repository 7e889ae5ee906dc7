"""Draw a logged value of some runs over their outer steps: scripts/learning_curves.py RUN [RUN ...] --key val/accuracy --out FILE.png

RUN is a folder of `metarun train`. --key is any key of its `metrics.jsonl` with numbers. --names=A,B names the lines; by default the
folders' names.
"""

from __future__ import annotations

import argparse
import math
import sys
from collections.abc import Sequence
from pathlib import Path

from metarun.records.pictures import history_figure
from metarun.records.tracking import parse_entry


def main(arguments: Sequence[str] | None = None) -> int:
    """Write the figure; return 2 if a folder has no numbers under the key."""
    parser = argparse.ArgumentParser(description=__doc__, formatter_class=argparse.RawDescriptionHelpFormatter)
    parser.add_argument("runs", nargs="+", type=Path, metavar="RUN", help="a folder of metarun train")
    parser.add_argument("--key", default="val/accuracy", help="the logged value to draw (default val/accuracy)")
    parser.add_argument("--names", help="the lines' names, separated by commas")
    parser.add_argument("--out", type=Path, required=True, metavar="FILE", help="a .png, .svg or .pdf file")
    options = parser.parse_args(arguments)
    try:
        names = options.names.split(",") if options.names else [run.name for run in options.runs]
        if len(set(names)) < len(options.runs) or len(names) > len(options.runs):
            raise ValueError(f"{len(options.runs)} runs need as many different names; give them with --names=A,B.")
        histories = {name: read(run, options.key) for name, run in zip(names, options.runs, strict=True)}
        history_figure(histories, options.key).savefig(options.out)
    except (OSError, ValueError) as error:
        print(f"learning_curves: {error}", file=sys.stderr)
        return 2
    return 0


def read(run: Path, key: str) -> list[tuple[int, float]]:
    """Return pairs of outer step and finite logged number; ValueError if there are none."""
    file = run / "metrics.jsonl"
    entries = [entry for line in file.read_bytes().splitlines(keepends=True) if (entry := parse_entry(line)) is not None]
    logged = [(entry["step"], entry[key]) for entry in entries if key in entry]
    if not logged:
        known = sorted({name for entry in entries for name in entry} - {"step"})
        raise ValueError(f"'{file}' has no '{key}'; it has {', '.join(known) or 'nothing yet'}.")
    finite = [(step, float(value)) for step, value in logged if isinstance(value, (int, float)) and math.isfinite(value)]
    if not finite:
        raise ValueError(f"'{key}' in '{file}' was never a finite number.")
    return sorted(finite)


if __name__ == "__main__":
    sys.exit(main())
