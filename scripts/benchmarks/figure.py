"""The figure: speed relative to the plain loop, and peak memory."""

from __future__ import annotations

from collections.abc import Sequence
from pathlib import Path

import matplotlib

matplotlib.use("agg")

from matplotlib.axes import Axes
from matplotlib.figure import Figure
from matplotlib.ticker import LogLocator, NullFormatter, StrMethodFormatter

from .outcome import PLAIN, PRISTINE, Result
from .report import ratios, samples_of
from .rows import STEP_COUNTS, TASK_COUNTS, steps_name


def draw(results: Sequence[Result], file: Path) -> bool:
    """Draw the results into a file. Return False, without a file, if no result can be drawn."""
    speeds, memory = compared(results), [each for each in results if each["unit"] == "MiB" and each["samples"]]
    panels = bool(speeds) + 2 * bool(memory)
    if not panels:
        return False
    figure = Figure(figsize=(6.0 * panels, max(4.0, 0.28 * len(speeds) + 1.0)), layout="constrained")
    axes = list(figure.subplots(1, panels, squeeze=False)[0])
    if speeds:
        draw_speeds(axes.pop(0), speeds)
    if memory:
        draw_memory(axes[0], memory, {f"{count} tasks a step": count for count in TASK_COUNTS}, "tasks a step")
        draw_memory(axes[1], memory, {steps_name(count): count for count in STEP_COUNTS}, "inner steps")
    figure.savefig(file, dpi=120)
    return True


def compared(results: Sequence[Result]) -> list[tuple[str, tuple[float, float, float]]]:
    """Return a label and the ratios of each result that has a plain loop to compare with."""
    pairs = []
    for each in results:
        section = [other for other in results if other["section"] == each["section"]]
        plain = samples_of(section, each["row"], PLAIN)
        if each["unit"] == "s" and plain and each["contender"] not in (PLAIN, PRISTINE):
            pairs.append((f"({each['section']}) {each['row']}: {each['contender']}", ratios(plain, each["samples"])))
    return pairs


def draw_speeds(axes: Axes, speeds: Sequence[tuple[str, tuple[float, float, float]]]) -> None:
    """Draw a dot for each speed with its range over the turns. The axis is logarithmic: twice and half as fast are equally far from 1."""
    for place, (label, (middle, low, high)) in enumerate(speeds):
        colour = "tab:gray" if label.endswith("higher") else "tab:blue"
        axes.errorbar(middle, place, xerr=[[middle - low], [high - middle]], color=colour, fmt="o", capsize=2)
        axes.annotate(f"{middle:.3g}x", (high, place), xytext=(6, 0), textcoords="offset points", va="center", fontsize=8)
    axes.set_yticks(range(len(speeds)), [label for label, _ in speeds], fontsize=8)
    axes.invert_yaxis()
    axes.set_xscale("log")
    axes.xaxis.set_major_locator(LogLocator(subs=(1, 2, 5)))
    axes.xaxis.set_major_formatter(StrMethodFormatter("{x:g}"))
    axes.xaxis.set_minor_formatter(NullFormatter())
    axes.margins(x=0.15)
    axes.grid(axis="y", alpha=0.3)
    axes.axvline(1.0, color="black", linewidth=1)
    axes.set_xlabel("times as fast as the plain loop over tasks")


def draw_memory(axes: Axes, memory: Sequence[Result], places: dict[str, int], label: str) -> None:
    """Draw a line for each contender over the rows that `places` numbers."""
    for name in dict.fromkeys(each["contender"] for each in memory):
        points = sorted((places[each["row"]], each["samples"][0]) for each in memory if each["contender"] == name and each["row"] in places)
        if points:
            axes.plot(*zip(*points, strict=True), marker="o", label=name)
    axes.set_xlabel(label)
    axes.set_xticks(list(places.values()))
    axes.set_ylabel("peak memory beyond the imports (MiB)")
    axes.set_ylim(0, 1.1 * max(each["samples"][0] for each in memory))
    axes.grid(alpha=0.3)
    axes.legend()
