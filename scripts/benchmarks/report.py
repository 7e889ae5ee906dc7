"""From samples to an aligned table: medians and ratios with their range over the turns."""

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
    "of it before the first step",
    "speed, plain loop = 1",
    "range of it",
    "before metarun = 1",
    "apart: loss, gradient",
    "runs",
)
NOTES = """median and range: over the turns of a contender, each the mean of its steps. A row's contenders took turns in one process.
speed: the plain loop's time over the contender's, turn by turn; before metarun = 1: against the median of the plain loop in the same
process before metarun had touched it (allocator, threads). apart: relative difference from the plain loop in float32, checked before
timing; in float64 all agree to 1e-9. runs: recorded as a flat program, or eager, operation by operation, where that was not possible."""


def text(results: Sequence[Result], headings: Mapping[str, str]) -> str:
    """Return the report: a table for each section that has results, then what the columns mean."""
    parts = []
    for letter, heading in headings.items():
        rows = [each for each in results if each["section"] == letter]
        if rows:
            remarks = sorted(set(chain.from_iterable(each["facts"].get("remarks") or [] for each in rows)))
            parts.append("\n".join([f"({letter}) {heading}", *aligned(lines(rows)), *(f"  {sentence}" for sentence in remarks)]))
    return "\n\n".join([*parts, NOTES])


def lines(results: Sequence[Result]) -> list[tuple[str, ...]]:
    """Return the header and the cells of each result of a section that has samples; a row's name stands at its first line only."""
    cells: list[tuple[str, ...]] = [HEADER]
    shown = None
    for each in results:
        if not each["samples"]:
            continue
        beside, pristine = (samples_of(results, each["row"], name) for name in (PLAIN, PRISTINE))
        compared = each["unit"] == "s" and each["contender"] not in (PLAIN, PRISTINE)
        name = "" if each["row"] == shown else each["row"]
        cells.append((name, each["contender"], *spread(each), held_before(each), *speed(each, beside, pristine, compared), *kept(each)))
        shown = each["row"]
    return cells


def samples_of(results: Sequence[Result], row: str, contender: str) -> list[float]:
    """Return the samples of a row's contender; none where the row has no such contender."""
    return next((each["samples"] for each in results if each["row"] == row and each["contender"] == contender), [])


def spread(result: Result) -> tuple[str, str]:
    """Return median, least and greatest sample, as "2.13 ms" and "2.10 ms - 2.20 ms"; one sample has no spread."""
    samples, unit = result["samples"], result["unit"]
    return amount(median(samples), unit), f"{amount(min(samples), unit)} - {amount(max(samples), unit)}" if len(samples) > 1 else ""


def held_before(result: Result) -> str:
    """Return how much of a peak of memory was reached before the first step: data, network, and what reading them took."""
    held = result["facts"].get("before the first step")
    return "" if held is None else amount(held, result["unit"])


def speed(result: Result, beside: list[float], pristine: list[float], compared: bool) -> tuple[str, str, str]:
    """Return the ratio to the plain loop beside, its range, and the ratio to the plain loop before metarun; empty for no comparison."""
    if not compared or not beside:
        return "", "", ""
    middle, low, high = ratios(beside, result["samples"])
    before = f"{median(pristine) / median(result['samples']):.3g}x" if pristine else ""
    return f"{middle:.3g}x", f"{low:.3g} - {high:.3g}" if len(beside) > 1 else "", before


def ratios(plain: Sequence[float], contender: Sequence[float]) -> tuple[float, float, float]:
    """Return how many times as fast the contender is: median, least and greatest over the turns."""
    each = [a / b for a, b in zip(plain, contender, strict=True)]
    return median(each), min(each), max(each)


def kept(result: Result) -> tuple[str, str]:
    """Return the relative differences that were found before timing, as "1e-07, 2e-05", and how steps run, where that was looked at."""
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
    """Return the lines of a table with padded columns, without those that are empty below the header."""
    columns = [column for column in zip(*cells, strict=True) if any(column[1:])]
    widths = [max(map(len, column)) for column in columns]
    return ["  " + "  ".join(map(str.ljust, line, widths)).rstrip() for line in zip(*columns, strict=True)]


def machine_line(facts: Mapping[str, Any]) -> str:
    """Return where and when, in one line."""
    load = "" if facts["load"] is None else f", load {facts['load'][0]:.2f} before the start"
    return f"{facts['date']}: {facts['cpu']}, {facts['cores']} cores{load}; torch {facts['torch']}, metarun {facts['commit'] or facts['metarun']}"
