"""The sections with curves: learning curves, scores by inner step, accuracy by presentation."""

from __future__ import annotations

from collections.abc import Mapping, Sequence
from functools import partial
from typing import Any

from metarun.commands.comparing.reading import leaves, mapping, number, text_of
from metarun.commands.comparing.validation import sizes_of
from metarun.commands.reporting.charts import MOST_LINES, Line, axis_title, lines_chart, steps_chart
from metarun.commands.reporting.drawing import Gallery, label
from metarun.commands.reporting.entries import Entry, numbers_of, sequence
from metarun.commands.reporting.numbers import scale_of
from metarun.commands.reporting.page import Picture, Prose, Section, code, section

MOST_POINTS = 200
"""Points of a line; a longer log is thinned to this number."""
SPLITS = {"val": "validation", "train": "training"}
SCORES, MOST_KEYS = ("accuracy", "mse", "mse_median", "nll", "loss"), 4
"""Logged values that depend on how hard the tasks are; keys of a task that a caption names."""


def curves_section(entries: Sequence[Entry], gallery: Gallery, key: str = "") -> Section | None:
    """Return the learning curves of each metric: validation and training. key: a logged value to draw in their place."""
    wanted = [key] if key else _usual(entries)
    pictures = [_picture(entries, gallery, name) for name in wanted]
    if not key and not any(picture is not None and picture.name.startswith("curve_train") for picture in pictures):
        pictures.append(_picture(entries, gallery, "train/loss"))
    return section("curves", "Learning curves", *pictures, _left_out(entries))


def _usual(entries: Sequence[Entry]) -> list[str]:
    """Return the validation score and the training score of each metric."""
    metrics = dict.fromkeys(entry.metric for entry in entries)
    pairs = [(_first(entries, f"val/{metric}_median", f"val/{metric}"), f"train/{metric}") for metric in metrics]
    return [name for pair in pairs for name in pair if name]


def _picture(entries: Sequence[Entry], gallery: Gallery, key: str) -> Picture | None:
    """Return the chart of a logged value; None where no run has logged it twice."""
    logged = [entry for entry in entries if history(entry.history, key)]
    lines = curves(logged, key)
    if max((len(line.x) for line in lines), default=0) < 2:
        return None
    percent = key.rsplit("/", 1)[-1] == "accuracy"
    title = f"{words(key)}{' (%)' if percent else ''}"
    draw = partial(lines_chart, lines, "outer steps", label(title, 80), factor=100.0 if percent else 1.0, logarithmic=not percent)
    caption = f"{title[0].upper()}{title[1:]} over outer steps.{_apart(logged, key)}"
    return gallery.picture(f"curve_{key.replace('/', '_')}", draw, caption)


def _apart(entries: Sequence[Entry], key: str) -> str:
    """Return a sentence where the scores of a chart are of different tasks."""
    split, _, name = key.partition("/")
    sizes = {"val": sizes_of, "train": training_sizes}.get(split)
    if sizes is None or name not in SCORES:
        return ""
    found = [sizes(entry.config) for entry in entries]
    keys = dict.fromkeys(size for each in found for size in each)
    differ = [size for size in keys if len({each.get(size) for each in found}) > 1]
    if len({entry.options.get("task") for entry in entries}) > 1:
        differ = ["task"]
    named = f"{', '.join(map(code, differ[:MOST_KEYS]))}{' and more' if len(differ) > MOST_KEYS else ''}"
    return f" The {SPLITS[split]} tasks of these runs differ in {named}, so the lines do not compare." if differ else ""


def training_sizes(config: Mapping[str, Any]) -> dict[str, str]:
    """Return the keys of a task that make its training tasks harder or easier, as `sizes_of` does for the validation tasks."""
    task = {f"task.{key}": value for key, value in leaves(mapping(config.get("task"))).items()}
    twins = {key: key.replace(".train_", ".") for key in task if ".train_" in key}
    sizes = {key: value for key, value in sizes_of(config).items() if key not in twins.values()}
    return sizes | {key: text_of(task.get(twin) if task[key] is None else task[key]) for key, twin in twins.items()}


def _left_out(entries: Sequence[Entry]) -> Prose | None:
    more = sum(bool(entry.history) for entry in entries) - MOST_LINES
    return Prose(f"The charts leave out the last {more} runs.") if more > 0 else None


def _first(entries: Sequence[Entry], *names: str) -> str:
    """Return the first of the names that a run has logged."""
    return next((name for name in names if any(name in line for entry in entries for line in entry.history)), "")


def words(key: str) -> str:
    """Return a key of the log in words: "validation accuracy" for "val/accuracy"."""
    split, _, name = key.partition("/")
    said = SPLITS.get(split, split)
    name = {"mse_median": "median mse"}.get(name, name)
    return f"{said} {name.replace('_', ' ').replace('/', ', ')}".strip()


def curves(entries: Sequence[Entry], key: str) -> list[Line]:
    """Return the line of each run that logged finite numbers under the key."""
    lines = []
    for entry in entries:
        points = sorted(history(entry.history, key))
        if points:
            every = -(-len(points) // MOST_POINTS)
            kept = [*points[:-1:every], points[-1]] if len(points) > 1 else points
            lines.append(Line(entry.name, [step for step, _ in kept], [value for _, value in kept], entry.group))
    return lines


def history(lines: Sequence[Mapping[str, Any]], key: str) -> list[tuple[float, float]]:
    """Return pairs of outer step and finite logged number."""
    found = [(number(line.get("step")), number(line.get(key))) for line in lines]
    return [(step, value) for step, value in found if step is not None and value is not None]


def steps_section(entries: Sequence[Entry], gallery: Gallery) -> Section | None:
    """Return the scores before adaptation and after each inner step: means, and medians too in regression."""
    scored = [entry for entry in entries if entry.scored and not entry.report.get("stream")]
    if not scored or len({entry.metric for entry in scored}) > 1:
        return None
    metric, pictures = scored[0].metric, []
    for key, file, word in (("by_step", "steps", "Mean"), ("median_by_step", "steps_median", "Median")):
        lines = [Line(entry.name, *_steps(entry, key), entry.group) for entry in scored]
        if metric == "accuracy" and key == "median_by_step":
            continue
        what = axis_title(metric).replace(" (%)", "").removeprefix("mean ")
        caption = f"{word} {what} on new examples of a task before adaptation (0) and after each inner step."
        drawn = gallery.picture(file, partial(steps_chart, lines, metric), caption)
        pictures += [drawn] if drawn is not None else []
    return section("steps", "Adaptation by inner step", *pictures)


def _steps(entry: Entry, key: str) -> tuple[list[float], list[float]]:
    """Return the numbers of inner steps and the scores after them, without scores that are not finite."""
    values = numbers_of(entry.report.get(key))
    steps = [number(step) for step in sequence(entry.report.get("steps"))]
    if len(steps) != len(values):  # an evaluation of an earlier version has no steps
        steps = [float(place) for place in range(len(values))]
    pairs = [(step, value) for step, value in zip(steps, values, strict=True) if step is not None and value is not None]
    return [step for step, _ in pairs], [value for _, value in pairs]


def presentations_section(entries: Sequence[Entry], gallery: Gallery) -> Section | None:
    """Return the accuracy at the n-th presentation of a class, of algorithms that read sequences."""
    lines = []
    for entry in entries:
        values = numbers_of(entry.report.get("by_presentation"))
        if values and None not in values:
            halves = numbers_of(entry.report.get("by_presentation_ci95"))
            halves = halves if len(halves) == len(values) else []
            lines.append(Line(entry.name, list(range(1, len(values) + 1)), [value or 0.0 for value in values], entry.group, halves))

    def draw() -> Any:
        return lines_chart(lines, "presentation of a class", axis_title("accuracy"), factor=scale_of("accuracy"))

    caption = "Accuracy at the n-th presentation of a class in a sequence. The first one is a guess."
    return section("presentations", "Accuracy by presentation", gallery.picture("presentations", draw, caption))
