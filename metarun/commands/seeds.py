"""Several runs of one setting, scored one by one on the same episodes: the mean over training seeds with its interval."""

from __future__ import annotations

from collections.abc import Mapping, Sequence
from pathlib import Path
from typing import Any

import torch

from metarun.commands import rating_lines
from metarun.commands.comparing.naming import is_free
from metarun.commands.overrides import leaves
from metarun.commands.report_files import bound, families_told, origin, protocol, targets_told, with_interval
from metarun.engine.averages import interquartile_mean, interval, mean, std
from metarun.engine.families import over_runs as families_over_runs
from metarun.engine.report import Report
from metarun.engine.units import over_runs as targets_over_runs
from metarun.errors import UserError, counted
from metarun.records.checkpoint import Checkpoint


def check_runs(paths: Sequence[Path], members: Sequence[Checkpoint]) -> None:
    """Raise UserError unless the runs differ in their seed, and in no setting that changes the training."""
    seeds: dict[Any, Path] = {}
    first = dict(leaves(members[0].config))
    for path, member in zip(paths, members, strict=True):
        seed = member.config.get("seed")
        if seed in seeds:
            raise UserError(
                f"{seeds[seed]} and {path} were both trained with seed={seed}; "
                "an interval over training seeds needs runs that differ in their seed."
            )
        seeds[seed] = path
        own = dict(leaves(member.config))
        for key in sorted(first.keys() | own.keys()):
            if not is_free(key) and first.get(key) != own.get(key):
                raise UserError(
                    f"{path} has {key}={own.get(key)}, and {paths[0]} has {first.get(key)}; "
                    "an interval over training seeds needs runs of one setting."
                )


def over_runs(reports: Sequence[Report]) -> dict[str, Any]:
    """Return the figures over runs: mean, ci95 (Student's t over the runs), std and interquartile mean of the runs' means.

    diverged, not_finite: the sums over the runs. bayes: the bound of the task, which is the same for all runs.
    by_family: for each family of tasks, the mean of the runs' means with its interval.
    """
    means = torch.tensor([report.mean for report in reports], dtype=torch.float64)
    return {
        "metric": reports[0].metric,
        "mean": mean(means),
        "ci95": interval(means),
        "ci95_over": "training runs",
        "iqm": interquartile_mean(means.tolist()),
        "std": std(means),
        "episodes": reports[0].episodes,
        "diverged": sum(report.diverged for report in reports),
        "not_finite": sum(report.not_finite for report in reports),
        "bayes": reports[0].bayes,
        "by_target": targets_over_runs([report.by_target for report in reports]),
        "by_family": families_over_runs([report.by_family for report in reports]),
        "ratings": rating_lines.over_runs([report.ratings for report in reports]),
    }


def lines(reports: Sequence[Report], members: Sequence[Checkpoint], facts: Mapping[str, Any], figures: Mapping[str, Any]) -> list[str]:
    """Return one line for each run, and one for all of them."""
    metric = reports[0].metric
    text = [
        f"seed {member.config.get('seed')}: {with_interval(metric, report.mean, report.ci95)} over {counted(report.episodes, 'episode')}"
        + (f", {report.diverged} diverged" if report.diverged else "")
        for report, member in zip(reports, members, strict=True)
    ]
    middle = with_interval(metric, figures["iqm"], None).removeprefix(f"{metric} ")
    episodes = f"{counted(reports[0].episodes, facts['split'] + ' episode')}{origin(facts)}"
    diverged = f", {figures['diverged']} diverged" if figures["diverged"] else ""
    families, ratings = families_told(metric, figures.get("by_family")), figures.get("ratings")
    targets = targets_told(figures.get("by_target")) if ratings is None else rating_lines.phrase(ratings)
    beside = f"{families}{targets}{bound(reports[0])}"
    total = f"{with_interval(metric, figures['mean'], figures['ci95'])}, interquartile mean {middle}{beside}"
    return [*text, f"{total}  [95 % interval over {len(reports)} training seeds, each on {episodes}, {protocol(metric, facts)}{diverged}]"]
