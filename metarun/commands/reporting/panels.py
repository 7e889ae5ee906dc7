"""The pictures of a report with cells or panels: classes, predictions against true targets, families, streams."""

from __future__ import annotations

import math
from collections.abc import Mapping, Sequence
from typing import TYPE_CHECKING

from metarun.commands.reporting.charts import axis_title, colors_of
from metarun.commands.reporting.drawing import ACCENT, MUTED, RULE, SERIES, WIDTH, blank, canvas, label
from metarun.commands.reporting.numbers import scale_of

if TYPE_CHECKING:
    from matplotlib.figure import Figure


def confusion_chart(names: Sequence[str], shares: Sequence[Sequence[float | None]]) -> Figure | None:
    """Draw shares of predictions by true class (rows), in [0, 1]; None where the two classes never met."""
    if not names:
        return None
    count = len(names)
    size = 1.3 + 0.2 * count
    figure, axes = canvas(size + 0.4, max(3.2, size + 0.9))
    axes.grid(visible=False)
    from matplotlib.patches import Rectangle

    for row in range(count):
        for column in range(count):
            share = shares[row][column]
            if share is not None:
                color = ACCENT if row == column else SERIES[1]
                box = Rectangle((column - 0.46, row - 0.46), 0.92, 0.92, facecolor=color, alpha=0.06 + 0.94 * min(1.0, share), linewidth=0)
                axes.add_patch(box)
    shown = [label(name, 22) for name in names]
    axes.set_xticks(range(count), shown, rotation=90)
    axes.set_yticks(range(count), shown)
    axes.set(xlim=(-0.5, count - 0.5), ylim=(count - 0.5, -0.5), xlabel="predicted", ylabel="true")
    axes.tick_params(labelsize=7)
    axes.spines[:].set_visible(False)
    return figure


def scatter_chart(panels: Mapping[str, tuple[Sequence[float], Sequence[float]]]) -> Figure | None:
    """Draw predictions (second) against true targets (first), one panel for each model, with the line of perfect predictions."""
    panels = {name: pair for name, pair in panels.items() if pair[0]}
    if not panels:
        return None
    columns = min(3, len(panels))
    rows = math.ceil(len(panels) / columns)
    figure = blank(2.1 * rows + 0.3, max(2.6, WIDTH * columns / 2.2))
    grid = figure.subplots(rows, columns, sharex=True, sharey=True, squeeze=False).flatten()
    values = [value for pair in panels.values() for part in pair[:1] for value in part]
    low, high = min(values), max(values)
    pad = 0.06 * (high - low or 1.0)
    for axes, (name, (true, predicted)) in zip(grid, panels.items(), strict=False):
        axes.plot([low, high], [low, high], color=MUTED, linewidth=0.9, linestyle=(0, (4, 3)))
        inside = [min(max(value, low - pad), high + pad) for value in predicted]
        axes.scatter(true, inside, s=5, color=ACCENT, alpha=0.35, linewidth=0, rasterized=len(true) > 400)
        axes.set_title(label(name, 34))
        axes.set(xlim=(low - pad, high + pad), ylim=(low - pad, high + pad))
        axes.tick_params(length=0)
        axes.grid(color=RULE)
    for axes in grid[len(panels) :]:
        axes.set_visible(False)
    figure.supxlabel("true", color=MUTED, fontsize=9)
    figure.supylabel("predicted", color=MUTED, fontsize=9)
    return figure


def families_chart(families: Sequence[str], rows: Mapping[str, Sequence[tuple[float | None, float | None]]], metric: str) -> Figure | None:
    """Draw the score of each model on each family, a panel for each family. rows: model -> mean and half the interval by family."""
    if not rows or not families:
        return None
    factor, names = scale_of(metric), list(rows)
    columns = min(3, len(families))
    lines = math.ceil(len(families) / columns)
    figure = blank((0.7 + 0.24 * len(rows)) * lines, WIDTH * 1.25 if columns > 1 else WIDTH)
    grid = figure.subplots(lines, columns, sharey=True, squeeze=False).flatten()
    colors = colors_of(names)
    for place, (axes, family) in enumerate(zip(grid, families, strict=False)):
        for row, name in enumerate(names):
            mean, half = rows[name][place]
            if mean is None:
                continue
            if half is not None:
                axes.plot([factor * (mean - half), factor * (mean + half)], [row, row], color=colors[name], linewidth=1.8)
            axes.plot([factor * mean], [row], "o", color=colors[name], markersize=5)
        axes.set_title(label(family, 24))
        axes.set_yticks(range(len(names)), [label(name) for name in names])
        axes.set_ylim(len(names) - 0.4, -0.6)
        axes.grid(axis="x")
        axes.tick_params(length=0)
        axes.spines[["left"]].set_visible(False)
        axes.margins(x=0.12)
    for axes in grid[len(families) :]:
        axes.set_visible(False)
    figure.supxlabel(axis_title(metric), color=MUTED, fontsize=9)
    return figure


def matrix_chart(matrix: Sequence[Sequence[float | None]], rows: Sequence[int], metric: str, part: str) -> Figure | None:
    """Draw the score on each part of a stream (columns) after a number of parts (rows); None where a part has not come."""
    values = [[math.nan if value is None else scale_of(metric) * value for value in row] for row in matrix]
    finite = [value for row in values for value in row if math.isfinite(value)]
    if not finite:
        return None
    from matplotlib.colors import LinearSegmentedColormap

    good, poor = "#0b4f9c", "#e9eff6"
    colors = LinearSegmentedColormap.from_list("accent", [poor, good] if metric == "accuracy" else [good, poor])
    figure, axes = canvas(3.4, 4.4)
    axes.grid(visible=False)
    columns = len(values[0])
    edges = [[0.5 + place for place in range(count + 1)] for count in (columns, len(values))]
    mesh = axes.pcolormesh(*edges, values, cmap=colors, vmin=0.0, vmax=100.0 if metric == "accuracy" else max(finite), rasterized=True)
    if len(values) < columns:
        axes.set_yticks(range(1, len(values) + 1), [str(row) for row in rows])
    axes.set(xlim=(0.5, columns + 0.5), ylim=(len(values) + 0.5, 0.5), xlabel=f"score on {part}", ylabel=f"after {part}")
    axes.spines[:].set_visible(False)
    bar = figure.colorbar(mesh, ax=axes, label=axis_title(metric), shrink=0.8)
    bar.outline.set_visible(False)
    bar.ax.tick_params(length=0)
    return figure
