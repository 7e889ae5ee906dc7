"""The report: an aligned table of medians and ratios, with their range over the turns."""

from __future__ import annotations

from collections.abc import Mapping, Sequence
from itertools import chain
from statistics import median
from typing import Any

from .outcome import PLAIN, PRISTINE, Result

HEADER = (
    "",
    "contender",
    "median",
    "range",
    "before the first step",
    "speed, plain loop = 1",
    "range of speed",
    "before metarun = 1",
    "difference: loss, gradient",
    "runs",
)
NOTES = """median and range: over the turns of a contender; a turn gives the mean over its steps. The contenders of a row took turns in one
process. speed: the plain loop's time divided by the contender's, turn by turn. before metarun = 1: relative to the median of the plain
loop in the same process before metarun changed its allocator and threads. difference: from the plain loop in float32, relative, checked
before the timing; in float64 all agree to 1e-9. runs: "recorded" as a flat program,
or "eager", operation by operation, if recording failed."""


def text(results: Sequence[Result], headings: Mapping[str, str]) -> str:
    """Return the report: a table for each section with results, then the meaning of the columns."""
    parts = []
    for letter, heading in headings.items():
        rows = [each for each in results if each["section"] == letter]
        if rows:
            remarks = sorted(set(chain.from_iterable(each["facts"].get("remarks") or [] for each in rows)))
            parts.append("\n".join([f"({letter}) {heading}", *aligned(lines(rows)), *(f"  {sentence}" for sentence in remarks)]))
    return "\n\n".join([*parts, NOTES])


def lines(results: Sequence[Result]) -> list[tuple[str, ...]]:
    """Return the header and the cells of each result that has samples. Only the first line of a row shows the row's name."""
    cells: list[tuple[str, ...]] = [HEADER]
    shown = None
    for each in results:
        if not each["samples"]:
            continue
        beside, pristine = (samples_of(results, each["row"], name) for name in (PLAIN, PRISTINE))
        compared = each["unit"] == "s" and each["contender"] not in (PLAIN, PRISTINE)
        name = "" if each["row"] == shown else each["row"]
        cells.append(
            (name, each["contender"], *spread(each), before_first_step(each), *speed(each, beside, pristine, compared), *checks(each))
        )
        shown = each["row"]
    return cells


def samples_of(results: Sequence[Result], row: str, contender: str) -> list[float]:
    """Return the samples of a row's contender; an empty list if the row lacks this contender."""
    return next((each["samples"] for each in results if each["row"] == row and each["contender"] == contender), [])


def spread(result: Result) -> tuple[str, str]:
    """Return the median and the range of the samples, as "2.13 ms" and "2.10 ms - 2.20 ms"; one sample has no range."""
    samples, unit = result["samples"], result["unit"]
    return amount(median(samples), unit), f"{amount(min(samples), unit)} - {amount(max(samples), unit)}" if len(samples) > 1 else ""


def before_first_step(result: Result) -> str:
    """Return the part of a memory peak that existed before the first step: data, network, and the memory to read them."""
    before = result["facts"].get("before the first step")
    return "" if before is None else amount(before, result["unit"])


def speed(result: Result, beside: list[float], pristine: list[float], compared: bool) -> tuple[str, str, str]:
    """Return the speed relative to the plain loop, its range, and the speed relative to the plain loop before metarun.

    The strings are empty if there is nothing to compare with.
    """
    if not compared or not beside:
        return "", "", ""
    middle, low, high = ratios(beside, result["samples"])
    before = f"{median(pristine) / median(result['samples']):.3g}x" if pristine else ""
    return f"{middle:.3g}x", f"{low:.3g} - {high:.3g}" if len(beside) > 1 else "", before


def ratios(plain: Sequence[float], contender: Sequence[float]) -> tuple[float, float, float]:
    """Return the speed of the contender relative to the plain loop: median, smallest and largest over the turns."""
    each = [a / b for a, b in zip(plain, contender, strict=True)]
    return median(each), min(each), max(each)


def checks(result: Result) -> tuple[str, str]:
    """Return the relative differences from before the timing, as "1e-07, 2e-05", and how the steps run; "" for what is unknown."""
    apart = result["facts"].get("difference") or {}
    return ", ".join(f"{value:.0e}" for value in apart.values()), result["facts"].get("runs", "")


def amount(value: float, unit: str) -> str:
    """Return a value with three digits and its unit; seconds as µs, ms or s."""
    if unit == "s":
        scale, unit = next((pair for pair in ((1.0, "s"), (1e-3, "ms")) if value >= pair[0]), (1e-6, "µs"))
        value /= scale
    if abs(value) >= 100:
        return f"{value:,.0f} {unit}"
    return f"{value:#.3g} {unit}"


def aligned(cells: Sequence[Sequence[str]]) -> list[str]:
    """Return the lines of a table with padded columns, without the columns that are empty below the header."""
    columns = [column for column in zip(*cells, strict=True) if any(column[1:])]
    widths = [max(map(len, column)) for column in columns]
    return ["  " + "  ".join(map(str.ljust, line, widths)).rstrip() for line in zip(*columns, strict=True)]


def machine_line(facts: Mapping[str, Any]) -> str:
    """Return date, machine and versions in one line."""
    load = "" if facts["load"] is None else f", load {facts['load'][0]:.2f} before the start"
    version = facts["commit"] or facts["metarun"]
    return f"{facts['date']}: {facts['cpu']}, {facts['cores']} cores{load}; torch {facts['torch']}, metarun {version}"
