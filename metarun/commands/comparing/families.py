"""The score and the rank of each setting on each family of tasks, and the average rank."""

from __future__ import annotations

import math
from collections.abc import Mapping, Sequence

from metarun.commands.comparing.differences import Interval, average_ranks, family_interval, family_ranks, interval
from metarun.commands.comparing.formatting import Table, score_text
from metarun.commands.comparing.reading import mapping, number
from metarun.commands.comparing.runs import HIGHER_IS_BETTER
from metarun.commands.comparing.settings import Setting
from metarun.engine import ranks

Figures = dict[str, list[Interval]]
"""Family -> the score of each setting with its interval."""


def family_table(found: Sequence[Setting]) -> Table | None:
    """Return the table of the families; None unless all settings have the same families, two of them at least."""
    paired = family_scores(found)
    figures = family_figures(found, paired)
    if len(figures) < 2:
        return None
    metric = found[0].metric
    ranked = family_ranks(paired, metric) if paired else _by_intervals(figures, metric)
    average = average_ranks(ranked)
    rows = [
        (each.name, *(_cell(metric, figures[name][place], ranked[name][place], len(found)) for name in figures), f"{average[place]:.2f}")
        for place, each in enumerate(found)
    ]
    test = "the paired differences" if paired else "the intervals"
    return Table(
        title=f"{metric} of each family (rank), and the average rank",
        head=("run", *figures, "average rank"),
        rows=tuple(rows) if len(found) > 1 else tuple((*row[:-1], "") for row in rows),
        notes=(f"Two runs share a rank where {test} do not separate them at 95 %.",) if len(found) > 1 else (),
        data=tuple(
            {
                "name": each.name,
                "average_rank": average[place],
                **{f"{name} {key}": value for name in figures for key, value in figures[name][place]._asdict().items()},
                **{f"{name} rank": ranked[name][place] for name in figures},
            }
            for place, each in enumerate(found)
        ),
        key="families",
    )


def _cell(metric: str, figure: Interval, rank: float, settings: int) -> str:
    return score_text(metric, figure.mean, figure.ci95) + (f" ({rank:g})" if settings > 1 else "")


def family_scores(found: Sequence[Setting]) -> dict[str, list[list[list[float]]]]:
    """Return family -> the scores (settings, runs, episodes); {} unless each run has scores of the same episodes and families."""
    scores = [[sample.scores for sample in each.samples] for each in found]
    known = [one for each in scores for one in each if one is not None]
    if not known or len(known) < sum(map(len, scores)) or not known[0].families:
        return {}
    if any(one.families != known[0].families or one.by_episode.keys() != known[0].by_episode.keys() for one in known):
        return {}
    numbers: dict[str, list[int]] = {}
    for episode, family in known[0].families.items():
        numbers.setdefault(family, []).append(episode)
    runs = [[one.by_episode for one in each if one is not None] for each in scores]
    return {name: [[[run[n] for n in inside] for run in each] for each in runs] for name, inside in numbers.items()}


def family_figures(found: Sequence[Setting], paired: Mapping[str, Sequence[Sequence[Sequence[float]]]]) -> Figures:
    """Return the figures of each family: from the scores by episode, else from the reports; {} where their families differ."""
    if paired:
        return {name: [family_interval(runs) for runs in each] for name, each in paired.items()}
    families = [list(mapping(sample.report.get("by_family"))) for each in found for sample in each.samples]
    if not families or any(names != families[0] for names in families):
        return {}
    return {name: [_reported(each, name) for each in found] for name in families[0]}


def _reported(setting: Setting, family: str) -> Interval:
    figures = [mapping(mapping(sample.report.get("by_family"))[family]) for sample in setting.samples]
    means = [math.inf if (mean := number(each.get("mean"))) is None else mean for each in figures]
    return Interval(means[0], number(figures[0].get("ci95"))) if len(means) == 1 else interval(means)


def _by_intervals(figures: Figures, metric: str) -> dict[str, list[float]]:
    found = {}
    for name, each in figures.items():
        means, widths = [one.mean for one in each], [math.nan if one.ci95 is None else one.ci95 for one in each]
        found[name] = ranks.ranks(means, ranks.by_intervals(means, widths), higher_is_better=HIGHER_IS_BETTER.get(metric, False))
    return found
