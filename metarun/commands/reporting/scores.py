"""The sections about scores: each model with its interval and the baselines, and the paired differences."""

from __future__ import annotations

from collections.abc import Callable, Sequence
from functools import partial
from typing import Any

from metarun.commands.comparing.reading import number
from metarun.commands.reporting.charts import Mark, marks_chart
from metarun.commands.reporting.drawing import Gallery, label
from metarun.commands.reporting.entries import Entry, groups_of
from metarun.commands.reporting.numbers import NAMES, duration, number_cell, plain, scale_of, score_cell, with_half
from metarun.commands.reporting.page import Cell, Section, Table, code, section, shown
from metarun.commands.reporting.standings import baseline_of
from metarun.commands.reporting.verdict import Gap, Standing, outcome, widest


def scores_section(entries: Sequence[Entry], standings: Sequence[Standing], gallery: Gallery) -> Section | None:
    """Return the scores: a chart of the models, a table of the models where one has several seeds, and a table of the runs."""
    scored = [entry for entry in entries if entry.scored]
    marks = [_mark(standing, groups_of(scored).get(standing.name, [])) for standing in standings if standing.episodes]
    metric = scored[0].metric if scored else "score"
    one = {entry.metric for entry in scored} == {metric}
    baselines = {standing.baseline for standing in standings if standing.episodes}
    baseline = baselines.pop() if len(baselines) == 1 else None
    chart = gallery.picture("scores", lambda: marks_chart(marks, metric, baseline=baseline), _caption(standings, baseline)) if one else None
    return section("scores", "Scores", chart if len(marks) > 1 else None, models_table(standings), scores_table(entries))


def models_table(standings: Sequence[Standing]) -> Table | None:
    """Return the table of the models, with means over seeds; None where each model has one seed, so that the table of the runs says all."""
    scored = [standing for standing in standings if standing.episodes]
    if all(standing.seeds == 1 for standing in scored):
        return None
    metrics = {standing.metric for standing in scored}
    title = NAMES.get(scored[0].metric, scored[0].metric) if len(metrics) == 1 else "score"
    rows = [
        [Cell(code(each.name)), score_cell(each.mean, each.half, each.metric), number_cell(each.seeds), number_cell(each.episodes)]
        for each in scored
    ]
    single = any(standing.seeds == 1 for standing in scored)
    caption = "Means over seeds, with 95 % intervals over seeds" + (", or over tasks for a single seed." if single else ".")
    return Table(["model", title, "seeds", "tasks"], rows, caption)


def _mark(standing: Standing, entries: Sequence[Entry]) -> Mark:
    points = [entry.mean for entry in entries if entry.mean is not None] if len(entries) > 1 else []
    return Mark(standing.name, standing.mean, standing.half, points)


def _caption(standings: Sequence[Standing], baseline: float | None) -> str:
    seeds = max((standing.seeds for standing in standings), default=1)
    what = f"over {seeds} seeds, which the short strokes show" if seeds > 1 else "over tasks"
    if len({standing.seeds for standing in standings if standing.episodes}) > 1:
        what = "over tasks; over seeds, which the short strokes show, where a model has several"
    name = next((standing.baseline_name for standing in standings if standing.baseline is not None), "")
    dashed = f" Dashed: {name[0].lower()}{name[1:]}." if baseline is not None and name else ""
    return f"Mean and 95 % interval {what}.{dashed}"


Maker = Callable[[Entry], Cell]


def scores_table(entries: Sequence[Entry]) -> Table | None:
    """Return the table of the runs. A column that no run fills is left out; the caption has what many runs have in common."""
    if not entries:
        return None
    metric, single = entries[0].metric, len({entry.metric for entry in entries}) == 1
    columns: list[tuple[str, Maker]] = [
        ("run", lambda entry: Cell(code(entry.name))),
        (
            NAMES.get(metric, metric) if single else "score",
            lambda entry: score_cell(entry.report.get("mean"), entry.report.get("ci95"), entry.metric),
        ),
        ("median", lambda entry: _median(entry)),
        ("nll", lambda entry: score_cell(entry.report.get("nll"), entry.report.get("nll_ci95"), "nll")),
        ("90 % interval covers", lambda entry: score_cell(entry.report.get("coverage90"), entry.report.get("coverage90_ci95"), "accuracy")),
        ("calibration error", lambda entry: score_cell(entry.report.get("ece"), None, "accuracy")),
        ("baseline", lambda entry: _baseline(entry)),
        ("validation", lambda entry: _validation(entry)),
        ("tasks", lambda entry: number_cell(entry.report.get("episodes"))),
        ("diverged", lambda entry: number_cell(entry.report.get("diverged") or None)),
        ("steps", lambda entry: number_cell(entry.training.get("steps") or entry.report.get("step"))),
        ("training time", lambda entry: Cell(duration(entry.seconds), entry.seconds)),
        ("status", lambda entry: Cell(entry.status) if entry.status != "finished" else Cell("–")),
    ]
    columns[1:1] = [(key, partial(_condition, key)) for key in CONDITIONS if _varies(entries, key)]
    made = [(title, [maker(entry) for entry in entries]) for title, maker in columns]
    filled = [(title, cells) for title, cells in made if any(cell.text != "–" for cell in cells)]
    common = [(title, cells[0].text) for title, cells in filled if title in SHARED and len(cells) >= MANY and len({*cells}) == 1]
    kept = [(title, cells) for title, cells in filled if title not in dict(common)]
    rows = list(zip(*(cells for _, cells in kept), strict=True))
    told = f" Every run: {', '.join(f'{title} {text}' for title, text in common)}." if common else ""
    return Table([title for title, _ in kept], rows, _table_caption(entries) + told)


MANY, SHARED = 5, ("baseline", "tasks", "steps")
"""From this number of rows on, a column of `SHARED` with one value for all rows is in the caption: a wide table hides its last columns."""


CONDITIONS = ("task", "split", "ways", "shots", "seed")
"""Entries of a report that the table shows where they differ; scores then do not compare."""


def _varies(entries: Sequence[Entry], key: str) -> bool:
    return len({str(entry.report.get(key)) for entry in entries if entry.scored}) > 1


def _condition(key: str, entry: Entry) -> Cell:
    value = entry.report.get(key) if entry.scored else None
    return Cell("–" if value is None else shown(value), number(value))


def _table_caption(entries: Sequence[Entry]) -> str:
    """Return the protocol of the evaluations in words, where it is one."""
    from metarun.commands.report_files import protocol

    told = set()
    for entry in entries:
        if entry.scored and all(key in entry.report for key in ("shots", "queries", "norm", "inner_steps", "seed")):
            told.add(protocol("accuracy" if entry.metric == "accuracy" else entry.metric, entry.report))
    return f"{told.pop()}. Intervals are 95 % intervals over tasks." if len(told) == 1 else "Intervals are 95 % intervals over tasks."


def _median(entry: Entry) -> Cell:
    if entry.metric == "accuracy":
        return Cell("–")
    value = number(entry.report.get("median"))
    return Cell(plain(value), value)


def _baseline(entry: Entry) -> Cell:
    value, _ = baseline_of(entry.report)
    return score_cell(value, None, entry.metric)


def _validation(entry: Entry) -> Cell:
    """Return the score by which `best.pt` was chosen."""
    metric = "accuracy" if entry.metric == "accuracy" and "nll" not in str(entry.training.get("select")) else "score"
    return score_cell(entry.best.get("score"), None, metric)


def differences_section(base: str, gaps: Sequence[Gap], metric: str, gallery: Gallery) -> Section | None:
    """Return the paired differences of the other models to `base`, which is `second` in each gap."""
    usable = [gap for gap in gaps if gap.mean is not None]
    if not usable:
        return None
    marks = [Mark(gap.first, gap.mean, widest(gap)) for gap in usable]
    title = f"difference to {label(base, 60)}" + (" (points)" if metric == "accuracy" else "")
    draw = gallery.picture("differences", lambda: marks_chart(marks, metric, zero=True, title=title), _differences_caption(base, usable))
    return section("differences", "Paired differences", draw, _gaps_table(usable, metric))


def _differences_caption(base: str, gaps: Sequence[Gap]) -> str:
    which = "the wider of the two intervals" if any(gap.seeds > 1 for gap in gaps) else "the 95 % interval"
    return f"Mean difference to {code(base)} on the same tasks, with {which}. An interval across 0 does not separate two models."


def _gaps_table(gaps: Sequence[Gap], metric: str) -> Table:
    words = {"win": "better", "loss": "worse", "tie": "not separated"}
    rows = []
    for gap in gaps:
        factor = scale_of(metric)
        text = with_half(gap.mean, gap.half, metric, signed=True).replace(" %", "")
        seeds = "–" if gap.seeds_half is None else f"± {with_half(gap.seeds_half, None, metric).replace(' %', '')}"
        verdict = words[outcome(gap, metric)]
        lost: Any = gap.lost or None
        rows.append(
            [
                Cell(code(gap.first)),
                Cell(text, factor * (gap.mean or 0.0)),
                Cell(seeds, gap.seeds_half),
                number_cell(gap.episodes),
                number_cell(gap.seeds if gap.seeds > 1 else None),
                number_cell(lost),
                Cell(verdict),
            ]
        )
    unit = "points" if metric == "accuracy" else NAMES.get(metric, metric)
    titles = ["run", f"difference ({unit})", "over seeds", "tasks", "seeds", "not finite", "verdict"]
    kept = [place for place in range(len(titles)) if any(row[place].text != "–" for row in rows)]
    caption = "The first interval is over tasks: it holds for these runs on new tasks."
    if any(gap.seeds > 1 for gap in gaps):
        caption += " The second interval is over seeds: it holds for new runs on these tasks."
    return Table([titles[place] for place in kept], [[row[place] for place in kept] for row in rows], caption)
