"""The sections from a look at numbered episodes: calibration, classes, predicted against true, sampled episodes."""

from __future__ import annotations

import base64
import io
from collections.abc import Mapping, Sequence
from typing import Any

from torch import Tensor

from metarun.commands.reporting.charts import reliability_chart
from metarun.commands.reporting.drawing import Gallery
from metarun.commands.reporting.episodes import curves_chart
from metarun.commands.reporting.looking import Look, Shown
from metarun.commands.reporting.numbers import fixed, number_cell
from metarun.commands.reporting.page import Block, Cell, Prose, Section, Table, Tile, TileRow, Tiles, code, section, shown
from metarun.commands.reporting.panels import confusion_chart, scatter_chart

BINS, HARDEST, PAIRS, DENSE = 15, 15, 8, 0.4
"""Bins of confidence, as for the calibration error; classes of the confusion; pairs of classes of the table; share of
the pairs of classes that must have met for a picture of the confusion."""
MOST_MODELS, MOST_SHOTS, MOST_QUERIES, MOST_WAYS = 6, 5, 10, 10
TILES = "Left of each arrow: the known images of a class. Right: new images with the probability of the predicted class. "
TILES += "Blue is right. Orange is wrong, with the number of the predicted class."
PIXELS = 84
"""The longest side of an image of an episode."""


def calibration_section(looks: Mapping[str, Look], gallery: Gallery) -> Section | None:
    """Return the reliability diagram of classifications."""
    bins = {name: reliability(look.confidence) for name, look in looks.items() if look.confidence}
    caption = "Accuracy of the predictions by their confidence. On the dashed line, a model is as often right as it is sure. "
    caption += f"The area of a dot is the share of the predictions. {_from(looks)}"
    return section(
        "calibration", "Reliability", gallery.picture("reliability", lambda: reliability_chart(dict(list(bins.items())[:7])), caption)
    )


def _from(looks: Mapping[str, Look]) -> str:
    counts = {look.episodes for look in looks.values()}
    return f"From the first {max(counts, default=0)} scored tasks."


def reliability(confidence: Sequence[tuple[float, bool]]) -> list[tuple[float, float, float]]:
    """Return for each bin that has a prediction: its mean confidence, its accuracy, and its share of the predictions."""
    bins: list[list[tuple[float, bool]]] = [[] for _ in range(BINS)]
    for pair in confidence:
        bins[min(BINS - 1, max(0, -int(-pair[0] * BINS // 1) - 1))].append(pair)
    total = len(confidence)
    return [(sum(p for p, _ in each) / len(each), sum(right for _, right in each) / len(each), len(each) / total) for each in bins if each]


def classes_section(looks: Mapping[str, Look], gallery: Gallery) -> Section | None:
    """Return the hardest classes and the pairs that the models confuse; the confusion is that of the first model."""
    found = {name: look for name, look in looks.items() if look.confused}
    if not found:
        return None
    name, look = next(iter(found.items()))
    hardest = [each for each, *_ in accuracies(look)[:HARDEST]]
    shares = [[_share(look, true, guess) for guess in hardest] for true in hardest]
    met = sum(share is not None for row in shares for share in row)
    caption = f"{code(name)}: of the queries of a class (row) in tasks with the class of the column, the share that got this class. "
    caption += f"Blue: right. Orange: wrong. Blank: the two classes never met. {_from(found)}"
    dense = met >= DENSE * len(hardest) ** 2  # of many classes, few meet in a task: the picture would show a diagonal
    chart = gallery.picture("confusion", lambda: confusion_chart(hardest, shares), caption) if dense else None
    return section("classes", "Classes", _hardest_table(found), chart, _pairs_table(name, look))


def accuracies(look: Look) -> list[tuple[str, float, int]]:
    """Return the classes with their accuracy and their number of queries, the hardest first."""
    queries: dict[str, int] = {}
    right: dict[str, int] = {}
    for (true, guess), count in look.confused.items():
        queries[true] = queries.get(true, 0) + count
        right[true] = right.get(true, 0) + (count if true == guess else 0)
    return sorted(((name, right[name] / queries[name], queries[name]) for name in queries), key=lambda each: (each[1], -each[2], each[0]))


def _share(look: Look, true: str, guess: str) -> float | None:
    met = look.met[true, guess]
    return look.confused[true, guess] / met if met else None


def _hardest_table(looks: Mapping[str, Look]) -> Table:
    by_model = {name: {each: (share, count) for each, share, count in accuracies(look)} for name, look in list(looks.items())[:MOST_MODELS]}
    first = next(iter(looks.values()))
    rows = []
    for name, _, count in accuracies(first)[:HARDEST]:
        cells = [_percent(each.get(name, (None, 0))[0]) for each in by_model.values()]
        rows.append([Cell(shown(name)), *cells, number_cell(count)])
    total = len(accuracies(first))
    caption = (
        f"The hardest of {total} classes, by the accuracy of the first model."
        if total > len(rows)
        else "Accuracy of each class, the hardest first."
    )
    return Table(["class", *(shown(name, 40) for name in by_model), "queries"], rows, f"{caption} {_from(looks)}")


def _percent(share: float | None) -> Cell:
    return Cell("–") if share is None else Cell(f"{fixed(100 * share, 1)} %", share)


def _pairs_table(name: str, look: Look) -> Table | None:
    wrong = {pair: count for pair, count in look.confused.items() if pair[0] != pair[1]}
    most = sorted(wrong, key=lambda pair: (-wrong[pair], pair))[:PAIRS]
    if not most:
        return None
    rows = [
        [Cell(shown(true)), Cell(shown(guess)), number_cell(wrong[true, guess]), _percent(_share(look, true, guess))]
        for true, guess in most
    ]
    caption = f"{code(name)}: the most frequent mistakes, and their share of the queries of the true class in tasks with both classes."
    return Table(["true class", "predicted", "queries", "share"], rows, caption)


def scatter_section(looks: Mapping[str, Look], targets: Sequence[str], gallery: Gallery) -> Section | None:
    """Return the predictions against the true targets of regressions, a panel for each model, or for each target of one model."""
    found = {name: look for name, look in looks.items() if look.pairs}
    panels: dict[str, tuple[list[float], list[float]]] = {}
    for name, look in list(found.items())[:MOST_MODELS]:
        for target in sorted({target for _, _, target in look.pairs})[:MOST_MODELS]:
            word = targets[target] if target < len(targets) else f"target {target + 1}"
            title = name if len(targets) < 2 and not any(place for _, _, place in look.pairs) else f"{name}, {word}"
            pairs = [(true, guess) for true, guess, place in look.pairs if place == target]
            panels[title] = ([true for true, _ in pairs], [guess for _, guess in pairs])
    panels = dict(list(panels.items())[:MOST_MODELS])
    unit = " Targets are standardised: 1 is a standard deviation of the training targets." if targets else ""
    caption = f"Predicted against true targets. On the dashed line, a prediction is right. {_from(found)}{unit}"
    drawn = gallery.picture("predicted", lambda: scatter_chart(panels), caption, wide=len(panels) > 1)
    return section("predicted", "Predicted against true", drawn)


def episodes_section(looks: Mapping[str, Look], gallery: Gallery, titles: Mapping[str, str], bayes: str = "") -> Section | None:
    """Return the sampled episodes. titles: model -> a line of scores below its name. bayes: the same for the exact Bayes predictor."""
    shown_looks = dict(list(looks.items())[:MOST_MODELS])
    columns: dict[str, Mapping[int, Any]] = {}
    if any(look.bayes for look in shown_looks.values()):
        columns["Bayes, the bound"] = next(look.bayes for look in shown_looks.values() if look.bayes)
        titles = {**titles, "Bayes, the bound": bayes}
    columns |= {name: look.curves for name, look in shown_looks.items() if look.curves}
    caption = (
        "A row is a task, a column a model. Dots: the known points. Dashed: the true function. Blue: the prediction, or samples of it, "
    )
    caption += "with the 90 % interval. Grey: before adaptation."
    drawn = gallery.picture("predictions", lambda: curves_chart(columns, titles), caption, wide=len(columns) > 2) if columns else None
    blocks: list[Block | None] = [drawn]
    for name, look in shown_looks.items():
        blocks += [
            tiles(f"{code(name)}, task {index}", each) for index, each in list(look.shown.items())[: 3 if len(shown_looks) < 3 else 1]
        ]
    if any(look.shown for look in shown_looks.values()):
        blocks.insert(
            0,
            Prose(TILES),
        )
    return section("episodes", "Sampled tasks", *blocks)


def tiles(title: str, episode: Shown) -> Tiles:
    """Return an episode of images: a numbered row for each class with its known images and its queries."""
    support, query = episode.support, episode.query
    certain, guess = episode.probabilities.max(dim=-1)
    used = [place for place in range(len(episode.names)) if _rows_of(support.y, support.mask, place)]
    numbers = {place: number for number, place in enumerate(used, start=1)}
    rows: list[TileRow] = []
    for place in used[:MOST_WAYS]:
        before = [Tile(png(support.x[row]), "support") for row in _rows_of(support.y, support.mask, place)[:MOST_SHOTS]]
        after = []
        for row in _rows_of(query.y, query.mask, place)[:MOST_QUERIES]:
            right, said = int(guess[row]) == place, numbers.get(int(guess[row]), "–")
            text = f"{float(certain[row]):.0%}" if right else f"{said}: {float(certain[row]):.0%}"
            after.append(Tile(png(query.x[row]), "right" if right else "wrong", text, shown(episode.names[int(guess[row])])))
        rows.append(TileRow(f"{numbers[place]}: {shown(episode.names[place])}", before, after))
    return Tiles(title, rows)


def _rows_of(y: Tensor, mask: Tensor | None, place: int) -> list[int]:
    of_class = y.argmax(dim=1) == place
    return (of_class if mask is None else of_class & mask).nonzero()[:, 0].tolist()


def png(image: Tensor) -> str:
    """Return an image (C, H, W) in [0, 1] as a small PNG in base64."""
    from PIL import Image

    pixels = (image.clamp(0.0, 1.0) * 255.0).round().byte().permute(1, 2, 0).numpy()
    picture = Image.fromarray(pixels[..., 0] if pixels.shape[-1] == 1 else pixels)
    picture.thumbnail((PIXELS, PIXELS))
    if picture.mode == "L":
        picture = picture.quantize(16)
    file = io.BytesIO()
    picture.save(file, format="png", optimize=True)
    return base64.b64encode(file.getvalue()).decode()
