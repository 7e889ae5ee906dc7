"""The picture of a regression: predicted against true values of one episode, a panel for each target. Drawing imports matplotlib."""

from __future__ import annotations

from collections.abc import Sequence
from typing import TYPE_CHECKING

from torch import Tensor

if TYPE_CHECKING:
    from matplotlib.figure import Figure

MOST_TARGETS = 4
_BEFORE, _AFTER, _EQUAL = "#999999", "#0072B2", "#d0d0d0"


def agreement_figure(
    truth: Tensor, predicted: Tensor, *, before: Tensor | None = None, names: Sequence[str] = (), title: str = ""
) -> Figure:
    """Draw predicted against true values. A perfect prediction lies on the line.

    truth, predicted: (B, D), for the same queries. before: (B, D), the prediction before adaptation. names: of the D targets, () for none.
    The figure shows at most 4 targets, and leaves out values that are not finite.
    """
    from matplotlib.figure import Figure

    targets = min(truth.shape[1], MOST_TARGETS)
    figure = Figure(figsize=(0.6 + 3.4 * targets, 3.9), dpi=110, layout="constrained")
    for column, axes in enumerate(figure.subplots(1, targets, squeeze=False)[0]):
        x = truth[:, column].detach().double().cpu()
        axes.axline((float(x.nanmean()), float(x.nanmean())), slope=1.0, color=_EQUAL, linewidth=3.0, label="equal", zorder=0)
        for label, values, color in _series(predicted, before):
            y = values[:, column].detach().double().cpu()
            known = x.isfinite() & y.isfinite()
            axes.scatter(x[known].numpy(), y[known].numpy(), color=color, s=22, linewidth=0, alpha=0.85, label=label)
        name = names[column] if names else ""
        axes.set_xlabel(f"{name}, true" if name else "true", parse_math=False)
        axes.set_ylabel(f"{name}, predicted" if name else "predicted", parse_math=False)
        axes.spines[["top", "right"]].set_visible(False)
    handles, labels = figure.axes[0].get_legend_handles_labels()
    figure.legend(handles, labels, loc="outside lower center", ncols=len(labels), frameon=False, fontsize=8)
    figure.suptitle(title, fontsize=10)
    return figure


def _series(predicted: Tensor, before: Tensor | None) -> list[tuple[str, Tensor, str]]:
    after = [("predicted" if before is None else "after adaptation", predicted, _AFTER)]
    return after if before is None else [("before adaptation", before, _BEFORE), *after]
