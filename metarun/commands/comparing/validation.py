"""The table of runs by their validation scores."""

from __future__ import annotations

from collections.abc import Mapping, Sequence
from typing import TYPE_CHECKING, Any, NamedTuple

from metarun.commands.comparing.evaluations import Evaluation
from metarun.commands.comparing.formatting import Table, duration, score_text, spread_text
from metarun.commands.comparing.naming import names, settings
from metarun.commands.comparing.reading import leaves, look_up, mapping, sources_of, text_of, with_shared
from metarun.commands.comparing.runs import FAILED_RUN, FINISHED, Run
from metarun.errors import printable
from metarun.files.paths import names_path

if TYPE_CHECKING:
    from metarun.commands.comparing.differences import OverSeeds

LONGEST = 60
"""Letters of the longest value in a heading."""
HEAD = ("run", "seeds", "{metric}", "std", "best at", "steps", "time", "")


class Row(NamedTuple):
    """A setting: its name, its runs, and the mean of their scores with half its interval; None without a score."""

    name: str
    runs: tuple[Run, ...]
    mean: float | None
    ci95: float | None
    seeds: OverSeeds | None = None


def validation_tables(runs: Sequence[Run], *, every_seed: bool = False) -> list[Table]:
    """Return a table for each task and score, sorted by the score, the best row first.

    A row has one run, or the runs that differ in their seed alone: then the score is the mean over the seeds. every_seed: whether a row of
    several seeds is followed by a row for each seed.
    """
    groups = _groups([run for run in runs if run.evaluation is None])
    titles = headings(groups)
    return [_table(title, group, every_seed) for title, group in zip(titles, groups, strict=True)]


def ordered(runs: Sequence[Run]) -> list[Row]:
    """Return the rows of runs of one task and one score, the best first, those without a score last."""
    rows = [_row(each.name, tuple(runs[place] for place in each.places)) for each in settings(runs)]
    higher = any(run.validation is not None and run.validation.higher_is_better for run in runs)
    return sorted(rows, key=lambda row: (row.mean is None, (-1.0 if higher else 1.0) * (row.mean or 0.0)))


def _row(name: str, runs: tuple[Run, ...]) -> Row:
    scores = [run.validation for run in runs if run.validation is not None]
    if len(scores) < 2:
        return Row(name, runs, scores[0].value if scores else None, scores[0].ci95 if scores else None)
    from metarun.commands.comparing.differences import over_seeds  # imported here: torch is slow to import

    found = over_seeds([score.value for score in scores])
    return Row(name, runs, found.mean, found.ci95, found)


def _groups(runs: Sequence[Run]) -> list[list[Run]]:
    """Return the runs of each table, in the order of their first runs. A run without a score stands beside the first runs of its task."""
    groups: dict[Any, list[Run]] = {}
    for run in runs:
        if run.validation is not None:
            score = run.validation
            groups.setdefault((score.metric, score.statistic, run.task, *sorted(sizes_of(run.config).items())), []).append(run)
    for run in runs:
        if run.validation is None:
            alike = [group for group in groups.values() if run.task in (group[0].task, "?")]
            (alike[0] if alike else groups.setdefault(run.task, [])).append(run)
    order = {id(run): place for place, run in enumerate(runs)}
    return [sorted(group, key=lambda run: order[id(run)]) for group in groups.values()]


def sizes_of(config: Mapping[str, Any]) -> dict[str, str]:
    """Return the keys of a task that make its validation tasks harder or easier: not those of training, and no lists, paths or seeds."""
    task = leaves(mapping(config.get("task")))
    other = ("seed", "download", "augment", "weights", "data")
    return {
        f"task.{key}": text_of(value)
        for key, value in task.items()
        if not isinstance(value, (list, tuple)) and not names_path(key)
        if not any(part.startswith("train_") or part in (*other, "classes", "tasks", "left_out") for part in key.split("."))
    }


def headings(groups: Sequence[Sequence[Run]]) -> list[str]:
    """Return what distinguishes the tasks of the tables, such as "glyphs, 5-way 1-shot"."""
    tasks = [task_of(group[0].task, group[0].config) for group in groups]
    folders = [[run.folder.name for run in group] for group in groups]
    scores = [next((f"{each.metric} {each.statistic}" for run in group if (each := run.validation) is not None), "") for group in groups]
    return told_apart(tasks, scores, [sizes_of(group[0].config) for group in groups], folders)


def told_apart(
    headings: Sequence[str], beside: Sequence[str], keys: Sequence[Mapping[str, str]], folders: Sequence[Sequence[str]]
) -> list[str]:
    """Return the headings, with the keys in which those that are equal differ; where no short key differs, with the folders of the runs.

    beside: what else the title of each table says. keys: dotted key -> value. folders: the names of the folders of its runs.
    """
    found = list(zip(headings, beside, strict=True))
    for heading, rest in {title for title in found if found.count(title) > 1}:
        alike = [place for place, other in enumerate(found) if other == (heading, rest)]
        known = [key for key in dict.fromkeys(key for place in alike for key in keys[place]) if not key.endswith("._target_")]
        values = {key: [keys[place].get(key, "null") for place in alike] for key in known}
        differ = [key for key in known if len(set(values[key])) > 1 and max(map(len, values[key])) <= LONGEST][:3]
        for number, place in enumerate(alike):
            found[place] = (", ".join([heading, *(f"{key}={values[key][number]}" for key in differ)]), rest)
    clear = [found.count(title) == 1 for title in found]
    runs = [f"{'run' if len(names) == 1 else 'runs'} {', '.join(dict.fromkeys(names))}" for names in folders]
    return [printable(each if alone else f"{each}, {run}") for (each, _), alone, run in zip(found, clear, runs, strict=True)]


def heading_of(evaluation: Evaluation) -> str:
    """Return the task of an evaluation, such as "glyphs, 5-way 1-shot"."""
    return task_of(text_of(evaluation.report.get("task") or ""), evaluation.config)


def task_of(option: str, config: Mapping[str, Any]) -> str:
    """Return a task with its sizes and its families. option: of the group `task`."""
    task = mapping(config.get("task"))
    sources = mapping(with_shared(task).get("sources"))
    each = {key: [node.get(key) for node in sources.values()] if sources else [task.get(key)] for key in ("ways", "shots")}
    ways, shots = (values[0] if values.count(values[0]) == len(values) else None for values in each.values())
    words = [f"{value}-{word}" for value, word in ((ways, "way"), (shots, "shot")) if type(value) is int]
    families = sources_of(task)
    of = f" of {', '.join(families)}" if families else ""
    return ", ".join(filter(None, (f"{option}{of}", " ".join(words))))


def _table(heading: str, runs: Sequence[Run], every_seed: bool) -> Table:
    rows, own = ordered(runs), dict(zip(map(id, runs), names(runs), strict=True))
    score = next((run.validation for run in runs if run.validation is not None), None)
    metric = "score" if score is None else score.metric
    lines: list[tuple[str, ...]] = []
    for row in rows:
        lines.append(_cells(row, metric))
        if every_seed and len(row.runs) > 1:
            lines += [_cells(_row(f"  {own[id(run)]}", (run,)), metric) for run in row.runs]
    order = "" if score is None else f", the {'highest' if score.higher_is_better else 'lowest'} first"
    statistic = "no validation score yet" if score is None else f"{_named(score.statistic, metric)} of validation tasks"
    return Table(
        title=f"{heading}: {statistic}{order}",
        head=tuple(cell.format(metric=metric) for cell in HEAD),
        rows=tuple(lines),
        notes=tuple(_notes(rows)),
        data=tuple(_data(row, metric) for row in rows),
        key="validation",
    )


def _named(statistic: str, metric: str) -> str:
    """Return the score in words: "mean accuracy", "median mse after 1 inner step", "mean nll"."""
    name, _, rest = statistic.partition(" ")
    return " ".join(filter(None, ("mean" if name == "nll" else name, metric, rest)))


def _cells(row: Row, metric: str) -> tuple[str, ...]:
    scored = [run.validation for run in row.runs if run.validation is not None]
    several = len(row.runs) > 1
    of = f"{len(scored)} of {len(row.runs)}" if len(scored) < len(row.runs) else str(len(row.runs))
    seconds = [run.seconds for run in row.runs if run.seconds is not None]
    return (
        row.name,
        of if several else "",
        "–" if row.mean is None else score_text(metric, row.mean, row.ci95),
        spread_text(metric, None if row.seeds is None else row.seeds.std),
        span([each.step for each in scored]),
        span([run.steps for run in row.runs]),
        duration(sum(seconds) / len(seconds) if seconds else None),
        _state(row.runs),
    )


def span(values: Sequence[int]) -> str:
    """Return a number, or the smallest and the largest one: "500", "500–900"; "" for none."""
    return "" if not values else str(values[0]) if len(set(values)) == 1 else f"{min(values)}–{max(values)}"


def _state(runs: Sequence[Run]) -> str:
    other = [run.status for run in runs if run.status != FINISHED]
    if len(runs) == 1:
        return other[0] if other else ""
    return ", ".join(f"{other.count(status)} {status}" for status in dict.fromkeys(other))


def _notes(rows: Sequence[Row]) -> list[str]:
    """Return sentences on the intervals, on the failed jobs, and on runs whose validation tasks are of other classes."""
    over = [word for word, found in (("seeds", _any(rows, True)), ("validation tasks", _any(rows, False))) if found]
    notes = []
    if over:
        single = " of a setting, or over the tasks of a single run" if over[1:] else ""
        notes.append(f"±: half the 95 % interval over the {over[0]}{single}.")
    if any(row.seeds is not None for row in rows):
        notes.append("std: standard deviation over the seeds. time: of one run, on average.")
    runs = [run for row in rows for run in row.runs]
    if len({text_of(look_up(run.config, "task.classes.val")) for run in runs if run.validation is not None}) > 1:
        notes.append("The runs have validation tasks of different classes, so their scores are not of the same tasks.")
    notes += [f"{run.folder.name} failed: {shortened(run.error)}" for run in runs if run.status == FAILED_RUN and run.error is not None]
    return [printable(note) for note in notes]


def shortened(sentence: str, most: int = 160) -> str:
    """Return the beginning of a long sentence."""
    return sentence if len(sentence) <= most else f"{sentence[: most - 1]}…"


def _any(rows: Sequence[Row], several: bool) -> bool:
    return any(row.ci95 is not None and (row.seeds is not None) is several for row in rows)


def _data(row: Row, metric: str) -> dict[str, Any]:
    over = None if row.ci95 is None else "seeds" if row.seeds is not None else "validation tasks"
    seeds = row.seeds
    figures = {"std": None if seeds is None else seeds.std, "iqm": None if seeds is None else seeds.iqm}
    return {
        "name": row.name,
        "metric": metric,
        "mean": row.mean,
        "ci95": row.ci95,
        "ci95_over": over,
        **figures,
        "count": len(row.runs),
        "status": _state(row.runs) or FINISHED,
        "steps": max(run.steps for run in row.runs),
        "seconds": max((run.seconds for run in row.runs if run.seconds is not None), default=None),
        "runs": [
            {
                "folder": str(run.folder),
                "seed": run.seed,
                "status": run.status,
                "error": run.error,
                "steps": run.steps,
                "seconds": run.seconds,
                "score": None if run.validation is None else run.validation.value,
                "ci95": None if run.validation is None else run.validation.ci95,
                "best_step": None if run.validation is None else run.validation.step,
            }
            for run in row.runs
        ],
    }
