"""The charts of a report: scores, differences, curves, inner steps, calibration."""

from __future__ import annotations

import math
import statistics
from collections.abc import Mapping, Sequence
from typing import TYPE_CHECKING, NamedTuple

from metarun.commands.comparing.reading import number
from metarun.commands.reporting.drawing import (
    ACCENT,
    INK,
    MUTED,
    SERIES,
    canvas,
    label,
    label_ends,
    plain_log,
    whole_numbers,
)
from metarun.commands.reporting.numbers import NAMES, plain, scale_of

if TYPE_CHECKING:
    from matplotlib.axes import Axes
    from matplotlib.figure import Figure

TICKS = (0, 1, 2, 3, 5, 10, 20, 50, 100, 200, 500, 1000, 2000, 5000)
MOST_LINES = 24


class Line(NamedTuple):
    """A line of a chart. group: lines of one group share a colour and a label; "" for a group of its own. halves: of intervals."""

    name: str
    x: Sequence[float]
    y: Sequence[float]
    group: str = ""
    halves: Sequence[float | None] = ()
    dashed: bool = False


class Mark(NamedTuple):
    """A score with half its interval in a row of its own. points: single scores, such as those of the seeds."""

    name: str
    value: float | None
    half: float | None
    points: Sequence[float] = ()
    strong: bool = False


def axis_title(metric: str) -> str:
    """Return the title of an axis with scores."""
    return "accuracy (%)" if metric == "accuracy" else label(NAMES.get(metric, metric), 80)


def colors_of(groups: Sequence[str]) -> dict[str, str]:
    """Return a colour for each group. With more groups than colours, the first one has the accent and the others are grey."""
    found = list(dict.fromkeys(groups))
    if len(found) <= len(SERIES):
        return dict(zip(found, SERIES, strict=False))
    return {group: ACCENT if place == 0 else MUTED for place, group in enumerate(found)}


def marks_chart(marks: Sequence[Mark], metric: str, *, zero: bool = False, baseline: float | None = None, title: str = "") -> Figure | None:
    """Draw a score with its interval in each row, the first one on top. zero: draw a line at 0. baseline: draw a line at this score."""
    finite = [mark for mark in marks[:40] if mark.value is not None]
    if not finite:
        return None
    factor = scale_of(metric)
    figure, axes = canvas(0.75 + 0.26 * len(finite))
    axes.grid(visible=False)
    low, high = usual_range([(factor * (mark.value or 0.0), factor * (mark.half or 0.0)) for mark in finite])
    for row, mark in enumerate(finite):
        if not low <= factor * (mark.value or 0.0) <= high:
            axes.text(0.99, row, f"{plain(factor * (mark.value or 0.0))} →", transform=axes.get_yaxis_transform(), ha="right", va="center")
            continue
        color = ACCENT if mark.strong else INK
        value, half = factor * (mark.value or 0.0), None if mark.half is None else factor * mark.half
        axes.plot([factor * point for point in mark.points], [row] * len(mark.points), "|", color=MUTED, markersize=7, alpha=0.7)
        if half is not None:
            axes.plot([value - half, value + half], [row, row], color=color, linewidth=1.8)
        axes.plot([value], [row], "o", color=color, markersize=5)
    for at, dash in ((0.0 if zero else None, "-"), (None if baseline is None else factor * baseline, (0, (4, 3)))):
        if at is not None:
            axes.axvline(at, color=MUTED, linewidth=0.9, linestyle=dash, zorder=0)
    axes.set_yticks(range(len(finite)), [label(mark.name) for mark in finite])
    for text, mark in zip(axes.get_yticklabels(), finite, strict=True):
        text.set_color(ACCENT if mark.strong else INK)
    axes.set_ylim(len(finite) - 0.4, -0.6)
    axes.grid(axis="x")
    axes.spines[["left"]].set_visible(False)
    axes.set_xlabel(title or axis_title(metric))
    return figure


def usual_range(marks: Sequence[tuple[float, float]]) -> tuple[float, float]:
    """Return the range of values that a chart shows: all, unless a few values are so large that the others would become one point.

    marks: pairs of a value and half its interval.
    """
    middle = statistics.median(value for value, _ in marks)
    usual = [(value, half) for value, half in marks if value <= 8.0 * abs(middle) and half <= 8.0 * abs(middle)]
    if len(marks) < 3 or middle <= 0.0 or len(usual) == len(marks) or len(usual) < 2:
        return -math.inf, math.inf
    return -math.inf, max(value for value, _ in usual)


def lines_chart(
    lines: Sequence[Line], x_title: str, y_title: str, *, factor: float = 1.0, height: float = 2.9, logarithmic: bool = False
) -> Figure | None:
    """Draw lines with their names at their ends. A line of one point becomes a horizontal dashed line."""
    usable = [_finite(line) for line in lines[:MOST_LINES]]
    usable = [line for line in usable if line.x]
    if not usable:
        return None
    figure, axes = canvas(max(height, 0.6 + 0.165 * len({line.group or line.name for line in usable})))
    _draw_lines(axes, usable, factor, logarithmic)
    axes.set(xlabel=x_title, ylabel=y_title)
    whole_numbers(axes)
    return figure


def _finite(line: Line) -> Line:
    kept = [place for place, value in enumerate(line.y) if number(value) is not None]
    halves = [line.halves[place] for place in kept] if line.halves else ()
    return line._replace(x=[line.x[place] for place in kept], y=[line.y[place] for place in kept], halves=halves)


def _draw_lines(axes: Axes, lines: Sequence[Line], factor: float, logarithmic: bool) -> None:
    colors = colors_of([line.group or line.name for line in lines])
    right = max(max(line.x) for line in lines)
    ends: dict[str, list[float]] = {}
    for line in lines[::-1]:
        group = line.group or line.name
        color, y = colors[group], [factor * value for value in line.y]
        thin = color == MUTED
        dash = (0, (4, 3)) if line.dashed else "-"
        if len(y) == 1:
            axes.axhline(y[0], color=color, linewidth=1.3, linestyle=(0, (4, 3)))
        else:
            axes.plot(line.x, y, color=color, linewidth=1.0 if thin else 1.8, linestyle=dash, alpha=0.7 if thin else 1.0)
            if line.x[-1] < right:
                axes.plot([line.x[-1], right], [y[-1]] * 2, color=color, linewidth=0.8, linestyle=":")
        if 1 < len(y) <= 12:
            axes.plot(line.x, y, "o", color=color, markersize=3.2)
        halves = [0.0 if half is None else factor * half for half in line.halves]
        if len(y) > 1 and any(halves) and len(lines) <= len(SERIES):
            low, high = ([value + sign * half for value, half in zip(y, halves, strict=True)] for sign in (-1, 1))
            axes.fill_between(line.x, low, high, color=color, alpha=0.14, linewidth=0)
        ends.setdefault(group, []).append(y[-1])
    values = [value for line in lines for value in line.y]
    if logarithmic and 0.0 < 5.0 * min(values) < max(values):
        plain_log(axes)
    left = min(min(line.x) for line in lines)
    axes.set_xlim(left if right > left else left - 1, right if right > left else right + 1)
    axes.margins(y=0.06)
    label_ends(axes, [(sum(each) / len(each), label(group, 26), colors[group]) for group, each in ends.items()])


def steps_chart(lines: Sequence[Line], metric: str) -> Figure | None:
    """Draw the score before adaptation and after each inner step."""
    if not lines or max(len(line.x) for line in lines) < 2:
        return None
    values = [value for line in lines for value in line.y if value > 0.0]
    wide = metric != "accuracy" and bool(values) and max(values) > 40.0 * min(values)
    figure = lines_chart(lines, "inner steps", axis_title(metric), factor=scale_of(metric), logarithmic=wide)
    if figure is None:
        return None
    axes, longest = figure.axes[0], int(max(max(line.x) for line in lines))
    if longest > 12:
        axes.set_xscale("symlog", linthresh=1.0)
        axes.set_xlim(0, longest)
    ticks = list(range(longest + 1)) if longest <= 12 else [tick for tick in TICKS if tick <= longest]
    axes.set_xticks(ticks, [str(tick) for tick in ticks])
    axes.minorticks_off()
    return figure


def reliability_chart(bins: Mapping[str, Sequence[tuple[float, float, float]]]) -> Figure | None:
    """Draw accuracy against confidence. bins: model -> mean confidence, accuracy and share of the queries of each bin, in [0, 1]."""
    if not any(bins.values()):
        return None
    figure, axes = canvas(3.3, 4.4)
    colors = colors_of(list(bins))
    axes.plot([0, 100], [0, 100], color=MUTED, linewidth=0.9, linestyle=(0, (4, 3)))
    ends = []
    for name, points in bins.items():
        x, y = ([100.0 * point[place] for point in points] for place in (0, 1))
        axes.plot(x, y, color=colors[name], linewidth=1.4)
        axes.scatter(x, y, s=[6.0 + 90.0 * point[2] for point in points], color=colors[name], linewidth=0, zorder=3)
        ends.append((y[-1], label(name, 26), colors[name]))
    low = max(0.0, min(100.0 * point[0] for points in bins.values() for point in points) - 4.0)
    axes.set(xlabel="confidence (%)", ylabel="accuracy (%)", xlim=(low, 100.5), ylim=(0, 101))
    label_ends(axes, ends)
    return figure
