"""Pictures of adaptation. The first figure imports matplotlib. This module does not touch matplotlib's global state (pyplot)."""

from __future__ import annotations

import math
from collections.abc import Mapping, Sequence
from typing import TYPE_CHECKING, Any

from torch import Tensor

if TYPE_CHECKING:
    from matplotlib.axes import Axes
    from matplotlib.figure import Figure

# Okabe and Ito's colours: colour-blind readers can tell them apart too.
_RIGHT, _WRONG = "#0072B2", "#D55E00"
_CYCLE = ("#0072B2", "#D55E00", "#009E73", "#CC79A7", "#E69F00", "#56B4E9", "#000000")
_MOST_CURVES = 6
_TICKS = (0, 1, 2, 3, 5, 10, 20, 50, 100, 200, 500, 1000)


def curve_figure(
    x: Tensor, truth: Tensor | None, support_x: Tensor, support_y: Tensor, by_step: Sequence[Tensor], title: str = ""
) -> Figure:
    """Draw a task of one input and one output: the support points, the truth, and the model before and after inner steps.

    x: (B,) or (B, 1), in any order. truth: outputs at x, or None. support_x, support_y: (K,) or (K, 1). by_step: the model's outputs at x
    before adaptation and after each inner step. If there are many steps, the figure shows some of them, with the first and the last.
    """
    from matplotlib import colormaps
    from matplotlib.figure import Figure

    figure = Figure(figsize=(6.4, 4.0), dpi=110, layout="constrained")
    axes = figure.subplots()
    order = x.detach().flatten().cpu().argsort()

    def line(y: Tensor, **style: Any) -> None:
        axes.plot(_numbers(x)[order], _numbers(y)[order], **style)

    if truth is not None:
        line(truth, color="#d0d0d0", linewidth=5.0, label="truth")
    line(by_step[0], color="#999999", linewidth=1.6, linestyle="--", label="before adaptation")
    last = len(by_step) - 1
    steps = _some([step for step in _TICKS if 0 < step < last] + [last] * (last > 0), _MOST_CURVES)
    for i, step in enumerate(steps):
        shade = colormaps["viridis_r"](0.25 + 0.65 * (i + 1) / len(steps))
        line(by_step[step], color=shade, linewidth=1.8, label=f"after {step} step{'s' if step > 1 else ''}")
    axes.scatter(_numbers(support_x), _numbers(support_y), color=_WRONG, zorder=3, s=36, edgecolor="white", linewidth=0.8, label="support")
    axes.set(xlabel="x", ylabel="y", title=title)
    axes.legend(frameon=False, fontsize=8, loc="center left", bbox_to_anchor=(1.0, 0.5))
    _plain_frame(axes)
    return figure


def adaptation_figure(by_step: Mapping[str, Sequence[float]], metric: str, title: str = "") -> Figure:
    """Draw the score before adaptation and after each inner step, one line per name.

    A single score is a horizontal line. If a line ends early, dots lead from its last score to its name.
    metric: "accuracy" in [0, 1] (drawn in percent), or an error such as "mse".
    """
    from matplotlib.figure import Figure

    figure = Figure(figsize=(7.0, 4.0), dpi=150, layout="constrained")
    axes = figure.subplots()
    longest = max((len(scores) - 1 for scores in by_step.values()), default=0) or 1
    percent = metric == "accuracy"
    ends: list[tuple[float, str, str]] = []
    for i, (name, scores) in enumerate(by_step.items()):
        color, values = _CYCLE[i % len(_CYCLE)], [100.0 * score if percent else score for score in scores]
        if len(values) == 1:
            axes.axhline(values[0], color=color, linewidth=1.8, linestyle="--")
        else:
            axes.plot(range(len(values)), values, color=color, linewidth=2.0, marker="o" if len(values) <= 12 else None, clip_on=False)
            axes.plot([len(values) - 1, longest], [values[-1]] * 2, color=color, linewidth=1.0, linestyle=":")
        ends.append((values[-1], name, color))
    if longest > 12:
        axes.set_xscale("symlog", linthresh=1.0)
    ticks = range(longest + 1) if longest <= 12 else [tick for tick in _TICKS if tick <= longest]
    axes.set_xticks(ticks, [str(tick) for tick in ticks])
    axes.minorticks_off()
    axes.set_xlim(-0.02 * longest if longest <= 12 else -0.1, longest)
    axes.set(xlabel="inner steps", ylabel="query accuracy (%)" if percent else f"query {metric.upper()}", title=title)
    _plain_frame(axes)
    _label_ends(axes, ends, "{:.1f} %" if percent else "{:.3g}")
    return figure


def families_figure(families: Sequence[str], settings: Mapping[str, Sequence[tuple[float, float]]], metric: str) -> Figure:
    """Draw the score of each setting on each family with its interval, one panel for each family, since their scales may differ.

    settings: name -> the mean and half the interval on each family, in the order of `families`. metric: as in `adaptation_figure`.
    """
    from matplotlib.figure import Figure

    figure = Figure(figsize=(1.5 + 2.3 * len(families), 1.2 + 0.32 * len(settings)), dpi=150, layout="constrained")
    scale = 100.0 if metric == "accuracy" else 1.0
    rows = range(len(settings))
    for place, (axes, family) in enumerate(zip(figure.subplots(1, len(families), sharey=True, squeeze=False)[0], families, strict=True)):
        for row, each in zip(rows, settings.values(), strict=True):
            mean, half = (scale * value for value in each[place])
            axes.errorbar(mean, row, xerr=half if math.isfinite(half) else None, fmt="o", color=_CYCLE[row % len(_CYCLE)], capsize=3)
        axes.set_title(family)
        axes.set_yticks(list(rows), list(settings))
        axes.set_ylim(len(settings) - 0.5, -0.5)
        axes.set_xlabel("accuracy in %" if metric == "accuracy" else metric)
        axes.margins(x=0.15)
        _plain_frame(axes)
    return figure


def _label_ends(axes: Axes, ends: list[tuple[float, str, str]], form: str) -> None:
    """Write names and last scores at the right ends of the lines, and move them apart if they would overlap."""
    low, high = axes.get_ylim()
    gap, last = 0.062 * (high - low), float("-inf")
    for value, name, color in sorted(end for end in ends if math.isfinite(end[0])):
        last = max(value, last + gap)
        text = f"{name}  {form.format(value)}"
        axes.annotate(text, (1.015, last), xycoords=("axes fraction", "data"), color=color, va="center", fontsize=9, annotation_clip=False)


def _some(steps: Sequence[int], limit: int) -> list[int]:
    """Return at most `limit` of the steps, evenly spread, including the first and the last."""
    if len(steps) <= limit:
        return list(steps)
    return sorted({steps[round(i * (len(steps) - 1) / (limit - 1))] for i in range(limit)})


def _numbers(values: Tensor) -> Any:
    return values.detach().flatten().cpu().numpy()


def _plain_frame(axes: Axes) -> None:
    axes.spines[["top", "right"]].set_visible(False)
    axes.grid(axis="y", color="#e6e6e6", linewidth=0.8)
    axes.set_axisbelow(True)
