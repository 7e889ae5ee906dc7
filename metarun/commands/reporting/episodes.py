"""The picture of sampled regressions: a row for each task, a column for each model."""

from __future__ import annotations

from collections.abc import Mapping, Sequence
from typing import TYPE_CHECKING

from metarun.commands.reporting.drawing import ACCENT, INK, MUTED, RULE, SERIES, WIDTH, blank, label
from metarun.commands.reporting.looking import Curve

if TYPE_CHECKING:
    from matplotlib.axes import Axes
    from matplotlib.figure import Figure


def curves_chart(columns: Mapping[str, Mapping[int, Curve]], titles: Mapping[str, str]) -> Figure | None:
    """Draw the curves of each model. columns: model -> episode -> curve. titles: model -> a second line below its name.

    The models of a row share axes, so that they can be compared. An episode whose support differs between the models is left out.
    """
    episodes = [index for index in next(iter(columns.values()), {}) if all(index in each for each in columns.values())]
    episodes = [index for index in episodes if _same([each[index] for each in columns.values()])]
    if not episodes:
        return None
    width = max(2.4, min(2.3, 1.9) * len(columns)) if len(columns) > 2 else WIDTH * (0.65 if len(columns) == 1 else 1.0)
    figure = blank(0.35 + 1.65 * len(episodes), width)
    grid = figure.subplots(len(episodes), len(columns), sharex="row", sharey="row", squeeze=False)
    for column, (name, curves) in enumerate(columns.items()):
        second = titles.get(name, "")
        grid[0][column].set_title(label(name, 30) + (f"\n{second}" if second else ""), fontsize=8.5)
        for row, index in enumerate(episodes):
            _draw(grid[row][column], curves[index])
    return figure


def _same(curves: Sequence[Curve]) -> bool:
    first = curves[0].support
    return all(curve.support.shape == first.shape and bool((curve.support == first).all()) for curve in curves)


def _draw(axes: Axes, curve: Curve) -> None:
    x = curve.x.numpy()
    if curve.low is not None and curve.high is not None:
        axes.fill_between(x, curve.low.numpy(), curve.high.numpy(), color=ACCENT, alpha=0.16, linewidth=0)
    if curve.before is not None:
        axes.plot(x, curve.before.numpy(), color=MUTED, linewidth=0.9)
    for sample in curve.samples:
        axes.plot(x, sample.numpy(), color=ACCENT, linewidth=0.8 if len(curve.samples) > 1 else 1.5)
    if curve.truth is not None:
        axes.plot(x, curve.truth.numpy(), color=INK, linewidth=1.0, linestyle=(0, (4, 3)))
    axes.plot(curve.support[:, 0].numpy(), curve.support[:, 1].numpy(), "o", color=SERIES[1], markersize=3.6, zorder=4)
    axes.tick_params(length=0)
    axes.grid(axis="y", color=RULE)
