"""The table of runs by their scores on the same test episodes, with paired differences, and the table of families."""

from __future__ import annotations

from collections.abc import Sequence
from typing import Any

from metarun.commands.comparing.evaluations import Evaluation
from metarun.commands.comparing.families import family_table
from metarun.commands.comparing.formatting import Table, difference_text, score_text, spread_text
from metarun.commands.comparing.naming import may_name, settings
from metarun.commands.comparing.runs import HIGHER_IS_BETTER, Run
from metarun.commands.comparing.scoring import Scored, episodes_of, keys_of_episodes
from metarun.commands.comparing.settings import Base, Difference, Setting, base_of, difference, is_at, settings_of_scores
from metarun.commands.comparing.validation import heading_of, told_apart
from metarun.errors import UserError, counted, nearest, printable

CONDITIONS = {"norm": "norm", "inner_steps": "inner steps"}
"""Entries of a report that have a column where the rows differ in them."""
NEVER_BY_TEST = "The best was chosen by its score on these episodes, so it looks better than it is; choose by validation, or give base=RUN."


def score_tables(scored: Sequence[Scored], *, base: str | None = None, every_seed: bool = False, together: bool = False) -> list[Table]:
    """Return a table for each set of episodes, sorted by the score, the best row first; with families, a second table.

    base: the name or the path of the run that the others are compared with; None for the best run. every_seed: as in `validation_tables`.
    together: whether all runs stand in one table although their tasks differ; the user knows that they have the same episodes.
    Raises UserError where no run has an evaluation, and where no table has the base.
    """
    groups = grouped(scored, together=together)
    bases = [base_of(group, base) for group in groups]
    if base is not None and not any(bases):
        raise unknown_base(base, [each.name for group in groups for each in group])
    tables: list[Table] = []
    for group, chosen, title in zip(groups, bases, titles(groups), strict=True):
        tables.append(_table(title, group, chosen or base_of(group), every_seed, together))
        families = family_table(group)
        tables += [] if families is None else [families]
    missing = [f"{each.run.folder.name} has no score: {each.reason}" for each in scored if each.evaluation is None]
    first = tables[0]
    return [Table(first.title, first.head, first.rows, (*first.notes, *map(printable, missing)), first.data, first.key), *tables[1:]]


def unknown_base(base: str, known: Sequence[str]) -> UserError:
    """Return the error about a base that is no run. known: the names of the rows."""
    ways = f"give the path of a run, or a name of the table: {', '.join(known)}."
    return UserError(f"base={base} names none of the runs; {ways}{nearest(base, known)}")


def check_base(base: str, runs: Sequence[Run]) -> None:
    """Raise UserError for a base that can be no run, whichever of the runs the tables have; `score_tables` checks the others."""
    if not any(run.evaluation is not None or is_at(run, base) or may_name(base, run) for run in runs):
        raise unknown_base(base, [each.name for each in settings(runs)])


def grouped(scored: Sequence[Scored], *, together: bool = False) -> list[list[Setting]]:
    """Return the settings of each set of episodes, the best first; UserError where there are none."""
    groups: dict[Any, list[Scored]] = {}
    for each in scored:
        if each.evaluation is not None:
            groups.setdefault(each.evaluation.metric if together else episodes_of(each.evaluation), []).append(each)
    if not groups:
        reasons = {each.reason for each in scored if each.reason is not None}
        raise UserError(f"no run could be scored: {'; '.join(sorted(reasons)) or 'there is none'}")
    return [settings_of_scores(group) for group in groups.values()]


def titles(groups: Sequence[Sequence[Setting]]) -> list[str]:
    """Return what was scored in each table, such as "glyphs, 5-way 1-shot: accuracy on 600 test episodes, seed 0"."""
    evaluations = [group[0].evaluations[0] for group in groups]
    scored = [_scored(each) for each in evaluations]
    folders = [[run.folder.name for setting in group for run in setting.runs] for group in groups]
    keys = [keys_of_episodes(each.config, each.split) for each in evaluations]
    found = told_apart([heading_of(each) for each in evaluations], scored, keys, folders)
    return [f"{heading}{': ' if heading else ''}{each}" for heading, each in zip(found, scored, strict=True)]


def _scored(evaluation: Evaluation) -> str:
    report = evaluation.report
    count = report.get("episodes")
    split = f"{report['split']} " if report.get("split") else ""
    seed = "" if report.get("seed") is None else f", seed {report['seed']}"
    return f"{evaluation.metric} on {counted(count, f'{split}episode') if type(count) is int else f'{count} {split}episodes'}{seed}"


def _table(title: str, found: Sequence[Setting], base: Base | None, every_seed: bool, together: bool) -> Table:
    assert base is not None
    alone = len(found) == 1
    differences = {id(each): difference(each, base.setting) for each in found if each is not base.setting}
    several = any(each.over is not None for each in found)
    lines: list[tuple[str, ...]] = []
    for each in found:
        lines.append(_cells(each, differences.get(id(each))))
        if every_seed and len(each.samples) > 1:
            single = [each._replace(name=f"  {sample.name}", samples=(sample,), over=None) for sample in each.samples]
            lines += [_cells(one, None) for one in single]
    metric, evaluation = found[0].metric, found[0].evaluations[0]
    minus = "" if alone else f"minus {base.setting.name}"
    head = ("run", "seeds", metric, "iqm", minus, "over seeds", "better in", "diverged", *CONDITIONS.values())
    constant = [len({_condition(each, key) for each in found}) == 1 for key in CONDITIONS]
    order = "highest" if HIGHER_IS_BETTER.get(metric, False) else "lowest"
    return Table(
        title=printable(f"{title}, the {order} first"),
        head=head if several else tuple("" if name in ("iqm", "over seeds") else name for name in head),
        rows=tuple((*line[: -len(constant)], *_without(line[-len(constant) :], constant)) for line in lines),
        notes=tuple(map(printable, _notes(found, base, list(differences.values()), together))),
        data=tuple(_data(each, base, differences.get(id(each))) for each in found),
        key=evaluation.split,
    )


def _cells(each: Setting, against: Difference | None) -> tuple[str, ...]:
    metric, found = each.metric, None if against is None else against.found
    over = None if found is None else found.over_seeds
    left_out = f" ({found.not_finite} not finite)" if found is not None and found.not_finite else ""
    return (
        each.name,
        str(len(each.samples)) if len(each.samples) > 1 else "",
        score_text(metric, each.mean, each.ci95),
        spread_text(metric, None if each.over is None else each.over.iqm),
        "" if against is None else "–" if found is None else difference_text(metric, *found.over_episodes) + left_out,
        "" if over is None else difference_text(metric, *over),
        "" if found is None else f"{found.wins:.0%}",
        str(diverged) if (diverged := sum(sample.report.get("diverged") or 0 for sample in each.samples)) else "",
        *(_condition(each, key) for key in CONDITIONS),
    )


def _condition(each: Setting, key: str) -> str:
    value = each.evaluations[0].report.get(key)
    return "" if value is None else printable(value)


def _without(cells: Sequence[str], constant: Sequence[bool]) -> list[str]:
    """Return the cells, with nothing in the columns that are the same in every row."""
    return ["" if same else cell for cell, same in zip(cells, constant, strict=True)]


def _notes(found: Sequence[Setting], base: Base, differences: Sequence[Difference], together: bool) -> list[str]:
    """Return sentences on how the columns are made, and on the choice of the base."""
    single, several = any(each.over is None for each in found), any(each.over is not None for each in found)
    over = " or ".join([*(["the episodes of a single run"] if single else []), *(["the seeds of a setting"] if several else [])])
    notes = [f"±: half the 95 % interval over {over}."]
    if several:
        notes.append("iqm: interquartile mean over the seeds.")
    if any(each.found is not None for each in differences):
        points = ", in percentage points" if found[0].metric == "accuracy" else ""
        notes.append(f"minus {base.setting.name}: mean difference episode by episode{points}, with its interval over the episodes.")
        if any(each.found is not None and each.found.over_seeds is not None for each in differences):
            notes.append("over seeds: the same difference with its interval over the seeds.")
        notes.append("better in: share of the episodes in which the run is better; a tie counts half.")
    if len(found) > 1 and base.chosen_by == "validation":
        notes.append(f"{base.setting.name} has the best validation score.")
    if len(found) > 1 and base.chosen_by == "test":
        notes.append(NEVER_BY_TEST)
    if together and len({episodes_of(evaluation) for each in found for evaluation in each.evaluations}) > 1:
        notes.append("The configs of the tasks differ; tables=one takes their episodes for the same ones.")
    return [*notes, *(each.reason for each in differences if each.reason is not None)]


def _data(each: Setting, base: Base, against: Difference | None) -> dict[str, Any]:
    found, seeds = None if against is None else against.found, each.over
    over = None if found is None else found.over_seeds
    return {
        "name": each.name,
        "metric": each.metric,
        "mean": each.mean,
        "ci95": each.ci95,
        "ci95_over": "episodes" if seeds is None else "seeds",
        "std": seeds and seeds.std,
        "iqm": seeds and seeds.iqm,
        "count": len(each.samples),
        "validation": each.validation,
        "base": base.setting.name,
        "base_chosen_by": base.chosen_by,
        "difference": None if found is None else found.over_episodes.mean,
        "difference_ci95": None if found is None else found.over_episodes.ci95,
        "difference_seeds_ci95": None if over is None else over.ci95,
        "difference_by_seed": None if found is None else list(found.by_seed),
        "better_in": None if found is None else found.wins,
        "not_finite": None if found is None else found.not_finite,
        **{key: each.evaluations[0].report.get(key) for key in CONDITIONS},
        "runs": [
            {"seed": sample.seed, "mean": sample.mean, "ci95": sample.ci95, "diverged": sample.report.get("diverged")}
            for sample in each.samples
        ],
        "folders": [str(evaluation.folder) for evaluation in each.evaluations],
    }
