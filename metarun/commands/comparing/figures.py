"""Figures of a comparison: scores by inner step, and scores of families."""

from __future__ import annotations

import math
from collections.abc import Sequence
from pathlib import Path

from metarun.commands.comparing.families import family_figures, family_scores
from metarun.commands.comparing.reading import number
from metarun.commands.comparing.settings import Setting
from metarun.commands.comparing.validation import heading_of
from metarun.errors import UserError
from metarun.records.pictures import adaptation_figure, families_figure


def draw_steps(groups: Sequence[Sequence[Setting]], file: Path) -> None:
    """Draw the score before adaptation and after each inner step, one line for each setting; several seeds have the mean over the seeds.

    Raises UserError where the scores are of different tasks, or where an evaluation has no scores by step.
    """
    found = _one(groups, "figure")
    curves = {each.name: by_step(each) for each in found}
    adaptation_figure(curves, found[0].metric, heading_of(found[0].evaluations[0])).savefig(file)


def by_step(setting: Setting) -> list[float]:
    """Return the mean over the runs of the scores before adaptation and after inner steps; NaN where one is not finite."""
    curves = [sample.report.get("by_step") for sample in setting.samples]
    lists = [curve for curve in curves if isinstance(curve, list) and curve]
    if len(lists) < len(curves) or len({len(curve) for curve in lists}) > 1:
        raise UserError(f"'{setting.name}' has no scores by inner step, or different ones; evaluate its runs with by_step=all.")
    return [_mean([number(score) for score in scores]) for scores in zip(*lists, strict=True)]


def _mean(scores: Sequence[float | None]) -> float:
    known = [score for score in scores if score is not None]
    return sum(known) / len(known) if len(known) == len(scores) else math.nan


def draw_families(groups: Sequence[Sequence[Setting]], file: Path) -> None:
    """Draw the score of each setting on each family with its interval; UserError where the tasks have no families."""
    found = _one(groups, "families")
    figures = family_figures(found, family_scores(found))
    if not figures:
        raise UserError("families= draws the scores of several families, and these runs have one kind of tasks, or different families.")
    rows = {
        each.name: [(values[place].mean, math.nan if (half := values[place].ci95) is None else half) for values in figures.values()]
        for place, each in enumerate(found)
    }
    families_figure(list(figures), rows, found[0].metric).savefig(file)


def _one(groups: Sequence[Sequence[Setting]], key: str) -> Sequence[Setting]:
    if len(groups) != 1:
        raise UserError(f"{key}= shows the scores of one set of episodes, and these runs have {len(groups)}; name runs of one task.")
    return groups[0]
