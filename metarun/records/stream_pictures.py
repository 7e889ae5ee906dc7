"""The matrix of a stream as a picture and as CSV: the score on each part, after each part. The picture imports matplotlib."""

from __future__ import annotations

import csv
import io
import math
from collections.abc import Sequence
from typing import TYPE_CHECKING

if TYPE_CHECKING:
    from matplotlib.figure import Figure


def matrix_figure(matrix: Sequence[Sequence[float]], rows: Sequence[int], *, metric: str, part: str, title: str = "") -> Figure:
    """Draw a matrix (R, N) whose row r is the score on each part after the first `rows[r]` parts; NaN where a part has not come.

    metric: "accuracy", drawn in percent from 0 to 100, or the name of an error. part: the word for a part, "class" or "function".
    """
    from matplotlib.figure import Figure

    percent = metric == "accuracy"
    values = [[100.0 * value if percent else value for value in row] for row in matrix]
    finite = [value for row in values for value in row if math.isfinite(value)]
    figure = Figure(figsize=(6.4, 5.2), dpi=150, layout="constrained")
    axes = figure.subplots()
    high = 100.0 if percent else max(finite, default=1.0) or 1.0
    colors = "viridis" if percent else "viridis_r"  # light is good in both
    columns = len(values[0])
    edges = [[0.5 + n for n in range(count + 1)] for count in (columns, len(rows))]
    mesh = axes.pcolormesh(*edges, values, cmap=colors, vmin=0.0, vmax=high, rasterized=True)
    axes.set_facecolor("#f0f0f0")
    if len(rows) < columns:  # bands of equal height, each with its number
        axes.set_yticks(range(1, len(rows) + 1), [str(row) for row in rows])
    axes.set(xlim=(0.5, columns + 0.5), ylim=(len(rows) + 0.5, 0.5), xlabel=f"on {part}", ylabel=f"after {part}", title=title)
    axes.spines[:].set_visible(False)
    figure.colorbar(mesh, ax=axes, label="accuracy (%)" if percent else metric.upper())
    return figure


def matrix_csv(matrix: Sequence[Sequence[float]], rows: Sequence[int]) -> str:
    """Return the matrix as CSV: a line for each row, first the number of parts so far; empty where a part has not come."""
    text = io.StringIO(newline="")
    writer = csv.writer(text)
    writer.writerow(["after", *range(1, len(matrix[0]) + 1)])
    for number, row in zip(rows, matrix, strict=True):
        writer.writerow([number, *("" if math.isnan(value) else f"{value:.6g}" for value in row)])
    return text.getvalue()
