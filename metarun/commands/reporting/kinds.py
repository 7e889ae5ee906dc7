"""The sections of particular tasks: families of a mixture, targets of a table, ratings, streams."""

from __future__ import annotations

import csv
from collections.abc import Mapping, Sequence
from functools import partial
from pathlib import Path
from typing import Any

from metarun.commands.comparing.reading import content_of, mapping, number
from metarun.commands.reporting.charts import Line, axis_title, lines_chart
from metarun.commands.reporting.drawing import Gallery
from metarun.commands.reporting.entries import Entry, groups_of, numbers_of
from metarun.commands.reporting.numbers import number_cell, plain, scale_of, score_cell, with_half
from metarun.commands.reporting.page import Block, Cell, Section, Table, code, section, shown
from metarun.commands.reporting.panels import families_chart, matrix_chart
from metarun.commands.reporting.standings import over_seeds

_MOST_FAMILIES, _MOST_MATRIX = 60, 1 << 22


def families_section(entries: Sequence[Entry], gallery: Gallery) -> Section | None:
    """Return the score of each model on each family of `task=mixture`."""
    scored = [entry for entry in entries if mapping(entry.report.get("by_family"))]
    if not scored:
        return None
    metrics = {entry.group: entry.metric for entry in scored}
    metric, single = scored[0].metric, len(set(metrics.values())) == 1
    names = list(dict.fromkeys(str(name) for entry in scored for name in entry.report["by_family"]))[:_MOST_FAMILIES]
    rows = {group: [_family(each, name) for name in names] for group, each in groups_of(scored).items()}
    draw, caption = partial(families_chart, names, rows, metric), "Mean and 95 % interval on each family."
    chart = gallery.picture("families", draw, caption, wide=True) if single else None
    body = [[Cell(code(group)), *(score_cell(mean, half, metrics[group]) for mean, half in cells)] for group, cells in rows.items()]
    body += _baselines_by_family(scored[0], names, metric) if single else []
    table = Table(["run", *map(shown, names)], body, _families_caption(rows, scored, metric if single else "score"))
    return section("families", "Families", chart, table)


def _family(entries: Sequence[Entry], name: str) -> tuple[float | None, float | None]:
    """Return mean and half the interval of a family: over the seeds where there are several runs."""
    figures = [mapping(mapping(entry.report["by_family"]).get(name)) for entry in entries]
    means = [number(each.get("mean")) for each in figures]
    return over_seeds(means) if len(figures) > 1 else (means[0], number(figures[0].get("ci95")))


def _baselines_by_family(entry: Entry, names: Sequence[str], metric: str) -> list[list[Cell]]:
    values = [number(mapping(entry.report["by_family"].get(name)).get("baseline")) for name in names]
    if all(value is None for value in values):
        return []
    return [[Cell("mean of the support targets"), *(score_cell(value, None, metric) for value in values)]]


def _families_caption(rows: Mapping[str, Any], scored: Sequence[Entry], metric: str) -> str:
    over = "seeds" if len(rows) < len(scored) else "the tasks of a family"
    return f"{axis_title(metric)[0].upper()}{axis_title(metric)[1:]}. Intervals are over {over}."


def targets_section(entries: Sequence[Entry]) -> Section | None:
    """Return the errors of each target of a table in its own unit."""
    rows = []
    for entry in entries:
        for target, errors in mapping(entry.report.get("by_target")).items():
            each = mapping(errors)
            low, high = number(each.get("rmse_low")), number(each.get("rmse_high"))
            between = "–" if low is None or high is None else f"{plain(low)} to {plain(high)}"
            rmse, half = number(each.get("rmse")), number(each.get("mae_ci95"))
            error = Cell(f"{plain(number(each.get('mae')))}" + (f" ± {float(f'{half:.2g}'):g}" if half else ""), number(each.get("mae")))
            rows.append([Cell(code(entry.name)), Cell(shown(target)), Cell(plain(rmse), rmse), Cell(between), error])
    if not rows:
        return None
    caption = "In the unit of each target. RMSE: root of the mean squared error over the tasks. MAE: mean absolute error."
    return section("targets", "Errors by target", Table(["run", "target", "RMSE", "95 % interval", "MAE"], rows, caption))


BASELINES = {
    "model": "the model",
    "item_user_bias": "item + user bias",
    "item_bias": "item bias",
    "support_mean": "mean of the known ratings",
    "global_mean": "mean of all ratings",
    "popularity": "popularity",
    "random_order": "random order",
}
"""The predictors of an evaluation of ratings, in words."""


def ratings_section(entries: Sequence[Entry], gallery: Gallery) -> Section | None:
    """Return the scores of ratings beside the baselines; a chart over the known ratings where evaluations differ in their number."""
    scored = [entry for entry in entries if mapping(entry.report.get("ratings"))]
    if not scored:
        return None
    blocks: list[Block | None] = [gallery.picture("ratings", lambda: shots_chart(scored), _SHOTS_CAPTION)]
    for entry in scored[:12]:
        blocks += ratings_tables(entry, named=len(scored) > 1)
    return section("ratings", "Ratings", *blocks)


_SHOTS_CAPTION = "Mean absolute error by the number of known ratings. Bands: 95 % intervals over users."


def shots_chart(entries: Sequence[Entry]) -> Any:
    """Draw the mean absolute error over the number of known ratings; None where all evaluations have one number."""
    by_shots = sorted(((number(entry.report.get("shots")) or 0.0, entry) for entry in entries), key=lambda pair: pair[0])
    counts = [count for count, _ in by_shots]
    if len(set(counts)) < 2 or len(set(counts)) < len(counts):
        return None
    lines = []
    for key in ("model", "item_user_bias", "support_mean"):
        figures = [_figure(entry, key, "mae") for _, entry in by_shots]
        values, halves = [number(each.get("mean")) for each in figures], [number(each.get("ci95")) for each in figures]
        if None not in values:
            lines.append(Line(BASELINES[key], counts, [value or 0.0 for value in values], halves=halves))
    figure = lines_chart(lines, "known ratings of the user", "mean absolute error")
    if figure is not None:
        figure.axes[0].set_xticks(counts, [f"{count:g}" for count in counts])
    return figure


def _figure(entry: Entry, predictor: str, score: str) -> Mapping[str, Any]:
    ratings = mapping(entry.report.get("ratings"))
    of = mapping(ratings.get("model")) if predictor == "model" else mapping(mapping(ratings.get("baselines")).get(predictor))
    return mapping(of.get(score))


def ratings_tables(entry: Entry, named: bool) -> list[Table]:
    """Return the table of errors and of the order of a user's queries, and the table of the rankings of all items."""
    scores = [str(name) for name in mapping(mapping(entry.report.get("ratings")).get("model"))]
    short = [name for name in scores if name in ("mae", "rmse") or name.startswith("ndcg")]
    users = plain(number(mapping(entry.report.get("ratings")).get("users")))
    who = f"{code(entry.name)}: means" if named else "Means"
    over = f"{who} over {users} users with 95 % intervals."
    made = [
        (short, f"{over} mae and rmse: lower is better. ndcg: the order of the user's queries; higher is better."),
        ([name for name in scores if name not in short], f"{over} Rankings of all items that the user has not rated; higher is better."),
    ]
    return [_ratings_table(entry, names, caption) for names, caption in made if names]


def _ratings_table(entry: Entry, scores: Sequence[str], caption: str) -> Table:
    ratings = mapping(entry.report.get("ratings"))
    rows = []
    for predictor in [name for name in BASELINES if name == "model" or name in mapping(ratings.get("baselines"))]:
        figures = [_figure(entry, predictor, score) for score in scores]
        cells = [_plain_score(each.get("mean"), each.get("ci95")) for each in figures]
        if any(cell.value is not None for cell in cells):
            rows.append([Cell(BASELINES[predictor], strong=predictor == "model"), *cells])
    paired = [mapping(mapping(ratings.get("minus_item_user_bias")).get(score)) for score in scores]
    if any(paired):
        cells = [_plain_score(each.get("mean"), each.get("ci95"), signed=True) for each in paired]
        rows.append([Cell("the model minus item + user bias, in pairs"), *cells])
    return Table(["predictor", *map(shown, scores)], rows, caption)


def ratings_sentences(entries: Sequence[Entry]) -> list[str]:
    """Return how each model stands to item + user bias, the baseline that needs no network, for the verdict."""
    said = []
    for entry in entries[:5]:
        ratings = mapping(entry.report.get("ratings"))
        minus = mapping(mapping(ratings.get("minus_item_user_bias")).get("mae"))
        mean, half = number(minus.get("mean")), number(minus.get("ci95"))
        if mean is None or half is None:
            continue
        size = with_half(abs(mean), half, "mae")
        told = f"is better than item + user bias by {size}" if mean < -half else f"is worse than item + user bias by {size}"
        if abs(mean) <= half:
            told = f"and item + user bias are not separated (a difference of {size})"
        said.append(f"{code(entry.name)} {told} in mean absolute error, over {plain(number(ratings.get('users')))} users.")
    return said


def _plain_score(value: Any, half: Any, signed: bool = False) -> Cell:
    mean, interval = number(value), number(half)
    if mean is None:
        return Cell("–")
    sign = "+" if signed else ""
    text = f"{mean:{sign}.3f}" + (f" ± {interval:.3f}" if interval is not None else "")
    return Cell(text.replace("-", "−"), mean)


STREAM = (
    ("average", "average at the end"),
    ("learned", "right after a part"),
    ("forgetting", "forgetting"),
    ("forgetting_from_best", "forgetting from the best"),
    ("backward_transfer", "backward transfer"),
)
"""Figures of a stream and their titles."""


def stream_section(entries: Sequence[Entry], gallery: Gallery) -> Section | None:
    """Return the figures of streams: scores by the number of parts, the table, and the matrix of each evaluation."""
    scored = [entry for entry in entries if mapping(entry.report.get("stream"))]
    if not scored:
        return None
    metric, single = scored[0].metric, len({entry.metric for entry in scored}) == 1
    parts = "classes" if metric == "accuracy" else "functions"
    lines = []
    for entry in scored if single else ():
        stream = entry.report["stream"]
        lengths, values = numbers_of(stream.get("lengths")), numbers_of(stream.get("held_out"))
        if len(lengths) == len(values) and None not in lengths and None not in values and len(values) > 1:
            halves = numbers_of(stream.get("held_out_ci95"))
            line = Line(entry.name, [each or 0.0 for each in lengths], [each or 0.0 for each in values], entry.group)
            lines.append(line._replace(halves=halves if len(halves) == len(values) else ()))

    def draw() -> Any:
        return lines_chart(lines, f"{parts} so far", axis_title(metric), factor=scale_of(metric))

    chart = gallery.picture("stream", draw, f"Score on held-out examples of all {parts} so far.")
    matrices = [_matrix(entry, gallery, place, len(scored)) for place, entry in enumerate(scored[:6], start=1)]
    return section("stream", "Streams", chart, _stream_table(scored), *matrices)


def _stream_table(entries: Sequence[Entry]) -> Table:
    rows = []
    for entry in entries:
        stream = entry.report["stream"]
        cells = [score_cell(stream.get(key), stream.get(f"{key}_ci95"), entry.metric) for key, _ in STREAM]
        rows.append([Cell(code(entry.name)), *cells, number_cell(entry.report.get("episodes"))])
    return Table(["run", *(title for _, title in STREAM), "trajectories"], rows, "Intervals are 95 % intervals over trajectories.")


def _matrix(entry: Entry, gallery: Gallery, place: int, count: int) -> Block | None:
    """Return the picture of `stream_matrix.csv`, which an evaluation writes."""
    found = None if entry.evaluation is None else read_matrix(entry.evaluation)
    if found is None:
        return None
    rows, matrix = found
    part = "class" if entry.metric == "accuracy" else "function"
    name = "stream_matrix" if count == 1 else f"stream_matrix_{place}"
    caption = f"{code(entry.name)}: the score on each {part} (columns) after each {part} of the stream (rows)."
    return gallery.picture(name, lambda: matrix_chart(matrix, rows, entry.metric, part), caption)


def read_matrix(folder: Path) -> tuple[list[int], list[list[float | None]]] | None:
    """Return the numbers of parts and the matrix that an evaluation wrote; None where there is no such file, or one of another form."""
    content = content_of(folder / "stream_matrix.csv")
    if len(content) > _MOST_MATRIX:
        return None
    try:
        lines = list(csv.reader(content.decode("utf-8").splitlines()))
        rows = [int(line[0]) for line in lines[1:]]
        matrix = [[number(float(each)) if each else None for each in line[1:]] for line in lines[1:]]
    except (ValueError, IndexError, csv.Error):
        return None
    widths = {len(row) for row in matrix}
    return (rows, matrix) if len(widths) == 1 and min(widths) > 0 else None
