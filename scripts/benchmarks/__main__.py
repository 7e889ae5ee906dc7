"""Run the benchmark: a process for each row, then the report.

This process imports no torch before the last row ends, because Linux counts the parent's memory towards the child's peak.
"""

from __future__ import annotations

import argparse
import json
import subprocess
import sys
import time
from collections.abc import Sequence
from dataclasses import asdict, replace
from datetime import datetime
from pathlib import Path
from typing import Any

from .machine import facts
from .outcome import Options, Result
from .report import machine_line, text
from .rows import Row, rows, sections
from .startup import startup

DESCRIPTION = """Time metarun beside the plain Python loop over tasks and beside higher. The contenders take turns in one process, after a
check that all give the same loss and gradient. The report has medians and ratios. The command writes benchmark.json (every sample),
report.txt and figure.png to outputs/benchmark/<date>_<time>/. Run it on a quiet machine.

sections:
"""


def main(arguments: Sequence[str] | None = None) -> int:
    """Measure the chosen sections; return 1 if contenders disagree or a measurement fails. The report then lacks this row."""
    options = parse(arguments)
    begun, machine, headings = time.perf_counter(), facts(), sections()
    each = Options(rounds=options.repeats or (1 if options.quick else 5), seconds=0.02 if options.quick else 1.0)
    results: list[Result] = []
    failed = False
    for row in [row for row in rows(quick=options.quick) if row.section in options.only]:
        print(f"({row.section}) {row.name}", file=sys.stderr, flush=True)
        try:
            results += measure(row, each)
        except subprocess.CalledProcessError:  # the child process has printed the reason
            failed = True
        except RuntimeError as error:
            print(f"benchmark: {error}", file=sys.stderr)
            failed = True
    if not results:
        return 1
    report = "\n\n".join([machine_line(machine), text(results, headings)])
    folder = Path("outputs/benchmark") / datetime.now().strftime("%Y-%m-%d_%H-%M-%S")
    write(folder, report, {"machine": machine, "options": vars(options) | asdict(each), "sections": headings, "results": results})
    print(f"{report}\n\n{time.perf_counter() - begun:.0f} s; written to {folder}")
    return int(failed)


def parse(arguments: Sequence[str] | None) -> argparse.Namespace:
    """Read the command line."""
    headings = sections()
    listed = "\n".join(f"  {letter}  {heading}" for letter, heading in headings.items())
    parser = argparse.ArgumentParser(
        prog="scripts/benchmark", description=DESCRIPTION + listed, formatter_class=argparse.RawDescriptionHelpFormatter
    )
    parser.add_argument("--only", type=letters, default=list(headings), metavar="a,b", help="these sections instead of all")
    parser.add_argument("--repeats", type=count, metavar="N", help="turns of each contender (default 5; at most 2 in section e)")
    parser.add_argument(
        "--quick",
        action="store_true",
        help="one turn on tiny settings, to check in seconds that the benchmark works; the figures mean nothing",
    )
    return parser.parse_args(arguments)


def letters(text: str) -> list[str]:
    """Return the sections of "a,b"."""
    chosen = [letter.strip() for letter in text.split(",")]
    if unknown := [letter for letter in chosen if letter not in sections()]:
        raise argparse.ArgumentTypeError(f"there is no section '{unknown[0]}'; there are {', '.join(sections())}.")
    return chosen


def count(text: str) -> int:
    """Return a whole number of at least 1."""
    if not text.isdecimal() or int(text) < 1:
        raise argparse.ArgumentTypeError(f"'{text}' must be a whole number of at least 1.")
    return int(text)


def measure(row: Row, options: Options) -> list[Result]:
    """Return the results of a row, each with its section and name. Raises CalledProcessError if a child process fails."""
    if row.measure == "startup":
        return [{"section": row.section, "row": row.name, **result} for result in startup(options)]
    alone = [replace(row, contenders=(name,)) for name in row.contenders] if row.measure == "memory" else [row]
    return [{"section": row.section, "row": row.name, **result} for part in alone for result in in_a_process(part, options)]


def in_a_process(row: Row, options: Options) -> list[Result]:
    """Measure a row in a new process."""
    wanted = json.dumps({"row": asdict(row), "options": asdict(options)})
    done = subprocess.run([sys.executable, "-m", "benchmarks.measure", wanted], check=True, stdout=subprocess.PIPE, text=True)
    results: list[Result] = json.loads(done.stdout.splitlines()[-1])
    return results


def write(folder: Path, report: str, record: dict[str, Any]) -> None:
    """Write the report, every sample and the figure."""
    from .figure import draw  # imports torch late: see the docstring of this file

    folder.mkdir(parents=True)
    (folder / "report.txt").write_text(report + "\n", encoding="utf-8")
    (folder / "benchmark.json").write_text(json.dumps(record, indent=1) + "\n", encoding="utf-8")
    draw(record["results"], folder / "figure.png")


if __name__ == "__main__":
    sys.exit(main())
