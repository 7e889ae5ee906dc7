"""The picture of an episode of images: known images and queries with their predictions, class by class. Drawing imports matplotlib."""

from __future__ import annotations

from collections.abc import Sequence
from typing import TYPE_CHECKING

import torch
from torch import Tensor

if TYPE_CHECKING:
    from matplotlib.axes import Axes
    from matplotlib.figure import Figure

# Okabe and Ito's colours: colour-blind readers can tell them apart too.
_RIGHT, _WRONG, _SUPPORT = "#0072B2", "#D55E00", "#888888"
_MOST_WAYS, _MOST_SHOTS, _MOST_QUERIES = 10, 5, 8
_BOX, _ROW, _LINE = 0.92, 1.16, 0.13
"""Side of the square that holds an image, the height of a row, and of a second line below a query. A column is one unit wide."""
_LETTERS, _SHORT = 20, 13
"""Most letters of a class's name beside its row, and below a query."""


def episode_figure(
    support_x: Tensor,
    support_y: Tensor,
    query_x: Tensor,
    query_y: Tensor,
    probabilities: Tensor,
    *,
    names: Sequence[str] | None = None,
    support_mask: Tensor | None = None,
    query_mask: Tensor | None = None,
) -> Figure:
    """Draw one row per class: the support images on the left, the queries with their predictions on the right.

    support_x, query_x: (B, C, H, W) in [0, 1], C = 1 or 3. support_y, query_y: (B, N) one-hot. probabilities: (B, N), of the queries.
    names: of the N classes; None for their numbers. *_mask: (B,) bool, False on padding. Images keep the ratio of their sides.
    The figure shows at most 10 classes, 5 shots and 8 queries; the accuracy covers all queries.
    """
    support_rows, query_rows = _rows_by_class(support_y, support_mask), _rows_by_class(query_y, query_mask)
    certain, predicted = probabilities.detach().cpu().max(dim=1)
    classes = [n for n, rows in enumerate(support_rows) if rows][:_MOST_WAYS]
    shots = min(max((len(support_rows[n]) for n in classes), default=1), _MOST_SHOTS)
    queries = min(max((len(query_rows[n]) for n in classes), default=1), _MOST_QUERIES)
    long, short = (shown_names(names, support_y.shape[1], most) for most in (_LETTERS, _SHORT))
    margin = 0.3 + 0.09 * max((len(long[n]) for n in classes), default=1)
    height, least = (_ROW, 5.5) if names is None else (_ROW + _LINE, 6.6)
    # With few queries, the line above them is wider than they are. A figure without room for it collapses.
    figure, axes = _canvas(margin, shots + max(queries + 0.9, least), height * len(classes))
    for place, n in enumerate(classes):
        top = height * place
        axes.text(-0.12, top + 0.46, long[n], ha="right", va="center", fontsize=9, color="#333333", parse_math=False)
        for column, row in enumerate(support_rows[n][:shots]):
            _place(axes, support_x[row], column, top, _SUPPORT, "")
        for column, row in enumerate(query_rows[n][:queries]):
            right = int(predicted[row]) == n
            label = _label(short[int(predicted[row])], f"{float(certain[row]):.0%}", right, named=names is not None)
            _place(axes, query_x[row], shots + 0.5 + column, top, _RIGHT if right else _WRONG, label)
    named = "predicted class and probability" if names is None else "probability, and predicted class if wrong"
    for left, text in ((0.0, "support"), (shots + 0.5, f"query: {named}, {_accuracy(query_rows, predicted)}")):
        axes.text(left, -0.12, text, fontsize=9, color="#333333")
    return figure


def _label(guess: str, share: str, right: bool, *, named: bool) -> str:
    """Return the text below a query. named: whether classes have names, which take a line of their own; a right guess needs no name."""
    mark = "✓" if right else "✗"
    return f"{mark} {guess}  {share}" if not named else f"{mark} {share}" if right else f"{mark} {share}\n{guess}"


def shown_names(names: Sequence[str] | None, ways: int, most: int) -> list[str]:
    """Return the names of the classes of an episode for a picture; numbers where there are no names.

    A name of a nested folder loses the folders that all names share, and a long name its middle: "n0…key" of "n01-donkey".
    """
    if names is None:
        return [str(n) for n in range(ways)]
    parts = [name.split("/") for name in names]
    shared = 0
    while all(len(each) > shared + 1 for each in parts) and len({each[shared] for each in parts}) == 1:
        shared += 1
    return [_cut("/".join(each[shared:]), most) for each in parts]


def _cut(name: str, most: int) -> str:
    plain = "".join(letter if letter.isprintable() else "\ufffd" for letter in name)
    return plain if len(plain) <= most else f"{plain[: (most - 1) // 2]}…{plain[len(plain) - most // 2 :]}"


def _canvas(margin: float, width: float, height: float) -> tuple[Figure, Axes]:
    """Return one pair of axes in which an image is one unit wide. Drawing one pair of axes per image would take ten times as long."""
    from matplotlib.figure import Figure

    across, down = margin + width - 0.4, height + 0.33
    figure = Figure(figsize=(0.85 * across, 0.85 * down), dpi=110, layout="constrained")
    axes = figure.subplots()
    axes.set_axis_off()
    axes.set(xlim=(-margin, width - 0.4), ylim=(height + 0.03, -0.3), aspect="equal")
    return figure, axes


def _place(axes: Axes, image: Tensor, left: float, top: float, color: str, label: str) -> None:
    from matplotlib.patches import Rectangle

    pixels = image.detach().cpu().clamp(0.0, 1.0).permute(1, 2, 0).numpy()
    high, wide = (_BOX * side / max(pixels.shape[:2]) for side in pixels.shape[:2])
    first, above = left + 0.5 - wide / 2, top + (_BOX - high) / 2
    box = (first, first + wide, above + high, above)
    axes.imshow(pixels if pixels.shape[-1] == 3 else pixels[..., 0], cmap="gray", vmin=0.0, vmax=1.0, extent=box, aspect="equal")
    axes.add_patch(Rectangle((first, above), wide, high, fill=False, edgecolor=color, linewidth=1.8 if label else 1.0))
    axes.text(left + 0.5, top + 0.96, label, ha="center", va="top", fontsize=7, linespacing=1.05, color=color, parse_math=False)


def _rows_by_class(y: Tensor, mask: Tensor | None) -> list[list[int]]:
    used = torch.ones(len(y), dtype=torch.bool) if mask is None else mask.detach().cpu()
    labels = y.detach().cpu().argmax(dim=1)
    return [((labels == n) & used).nonzero().flatten().tolist() for n in range(y.shape[1])]


def _accuracy(query_rows: list[list[int]], predicted: Tensor) -> str:
    total = sum(len(rows) for rows in query_rows)
    right = sum(int(predicted[row]) == n for n, rows in enumerate(query_rows) for row in rows)
    return f"{right} of {total} right"
