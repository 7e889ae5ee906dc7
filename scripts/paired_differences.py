"""Compare evaluations of the same episodes: scripts/paired_differences.py FIRST.csv OTHER.csv ...

`metarun eval … save=FILE` writes such files. The script compares every other file with the first, episode by episode. A hard episode is
hard for both models, so this comparison can find a difference even if the two intervals overlap. The interval is a 95 % interval of the
mean difference by Student's t, over episodes. An episode that is not finite for one model counts as worse for that model; the mean
difference is over the episodes that are finite for both, and the table says how many are not.

Several training seeds of one setting are one argument, with commas: ON_0.csv,ON_1.csv OFF_0.csv,OFF_1.csv. All arguments must name the
seeds in the same order, since the script compares the runs of one seed. Then there are two intervals. The interval over episodes holds
for these runs on new episodes; each episode counts with the mean of its differences over the seeds. The interval over seeds holds for new
runs on these episodes.
"""

from __future__ import annotations

import argparse
import csv
import math
import statistics
import sys
from collections.abc import Sequence
from pathlib import Path
from typing import NamedTuple

import torch

from metarun.engine import averages, ranks


class Runs(NamedTuple):
    """The evaluations of one setting: its name, the metric, the scores of each run by episode, in the order of the seeds, and the families.

    families: episode -> its family; {} for one family.
    """

    name: str
    metric: str
    scores: list[dict[int, float]]
    families: dict[int, str]


def main(arguments: Sequence[str] | None = None) -> int:
    """Print a Markdown table; return 2 if a file has no scores, or has scores of other episodes than the first file."""
    parser = argparse.ArgumentParser(description=__doc__, formatter_class=argparse.RawDescriptionHelpFormatter)
    parser.add_argument("paths", nargs="+", metavar="FILE[,FILE…]", help="scores by episode, from metarun eval save=FILE")
    parser.add_argument("--names", help="the settings' names, separated by commas")
    parser.add_argument("--figure", type=Path, metavar="FILE", help="draw the scores of the families into this file")
    options = parser.parse_args(arguments)
    try:
        first, *others = named([read_runs(argument) for argument in options.paths], options.names)
        rows = [(first.name, mean(first), *[""] * (2 if len(first.scores) == 1 else 3))]
        rows += [(other.name, mean(other), *compare(first, other)) for other in others]
        ranked = family_rows([first, *others])
        if options.figure is not None:
            draw([first, *others], options.figure)
    except (OSError, ValueError) as error:
        print(f"paired_differences: {error}", file=sys.stderr)
        return 2
    print(heading(first))
    print("| --- " * len(rows[0]) + "|")
    for row in rows:
        print("| " + " | ".join(row) + " |")
    if ranked:
        print()
        head, *body = ranked
        print("| " + " | ".join(head) + " |")
        print("| --- " * len(head) + "|")
        for line in body:
            print("| " + " | ".join(line) + " |")
    return 0


def family_rows(settings: Sequence[Runs]) -> list[tuple[str, ...]]:
    """Return the header and the rows of the table of families; [] for files of one family.

    Raises ValueError where a setting has other families than the first one.
    """
    first = settings[0]
    if not any(each.families for each in settings):
        return []
    for each in settings:
        if each.families != first.families:
            raise ValueError(f"'{each.name}' has other families than '{first.name}'. Evaluate both in the same way.")
    found, cells = {}, {}
    for family, scores in _by_family(settings).items():
        means = [_mean_of(each) for each in scores]
        cells[family] = [f"{value:.4f} ± {_half_width(each):.4f}" for value, each in zip(means, scores, strict=True)]
        paired = len({len(each) for each in scores}) == 1
        test = ranks.by_differences(scores) if paired else ranks.by_intervals(means, [_half_width(each) for each in scores])
        found[family] = ranks.ranks(means, test, higher_is_better=first.metric == "accuracy")
    over = "episodes" if len(first.scores) == 1 else f"{len(first.scores)} seeds"
    rows = [
        (each.name, *(f"{cells[family][place]} ({found[family][place]:g})" for family in found), f"{rank:.2f}")
        for place, (each, rank) in enumerate(zip(settings, ranks.average_ranks(found), strict=True))
    ]
    return [(f"{first.metric}, 95 % interval over {over} (rank)", *found, "average rank"), *rows]


def named(settings: list[Runs], names: str | None) -> list[Runs]:
    """Return the settings under these names, separated by commas; ValueError where their numbers differ."""
    if names is None:
        return settings
    given = names.split(",")
    if len(given) != len(settings):
        raise ValueError(f"{len(settings)} settings need as many names; --names has {len(given)}.")
    return [each._replace(name=name) for each, name in zip(settings, given, strict=True)]


def draw(settings: Sequence[Runs], file: Path) -> None:
    """Draw the scores of each family with their intervals; ValueError where the files have no families."""
    from metarun.records.pictures import families_figure  # imported here: matplotlib is slow to import, and the table does not need it

    families = _by_family(settings)
    if not families:
        raise ValueError("a figure shows families, and these files have one kind of tasks.")
    figures = {
        each.name: [(_mean_of(scores[place]), _half_width(scores[place])) for scores in families.values()]
        for place, each in enumerate(settings)
    }
    families_figure(list(families), figures, settings[0].metric).savefig(file)


def _by_family(settings: Sequence[Runs]) -> dict[str, list[list[list[float]]]]:
    """Return family -> the scores (settings, runs, episodes) of its episodes."""
    found = {}
    for family in dict.fromkeys(settings[0].families.values()):
        episodes = [episode for episode, name in settings[0].families.items() if name == family]
        found[family] = [[[run[episode] for episode in episodes] for run in each.scores] for each in settings]
    return found


def _mean_of(runs: Sequence[Sequence[float]]) -> float:
    return statistics.fmean(score for run in runs for score in run)


def _half_width(runs: Sequence[Sequence[float]]) -> float:
    """Return half the interval of the mean: over the episodes of a single run, over several runs otherwise."""
    values = runs[0] if len(runs) == 1 else [statistics.fmean(run) for run in runs]
    return averages.interval(torch.tensor(values, dtype=torch.float64))


def heading(first: Runs) -> str:
    """Return the first line of the table."""
    better = "lower" if first.metric != "accuracy" else "higher"
    size, share = f"{first.metric} ({len(first.scores[0])} episodes", f"share of episodes that are {better}"
    if len(first.scores) == 1:
        return f"| {size}) | mean | minus {first.name} | {share} |"
    over_seeds = f"minus {first.name} over {len(first.scores)} seeds (seed by seed)"
    return f"| {size}, {len(first.scores)} seeds) | mean | minus {first.name} over episodes | {over_seeds} | {share} |"


def read_runs(argument: str) -> Runs:
    """Return the runs that an argument names. Several runs have the name of the first file without the number at its end.

    Raises ValueError where two runs have scores of different episodes.
    """
    paths = [Path(name) for name in argument.split(",")]
    (metric, first), *others = [read(path) for path in paths]
    families = [read_families(path) for path in paths]
    for path, other in zip(paths[1:], others, strict=True):
        _check_same(metric, first, *other, str(path))
    stem = paths[0].stem
    name = (stem.rstrip("0123456789").rstrip("_-. ") or stem) if others else stem
    return Runs(name, metric, [first, *(scores for _, scores in others)], families[0] if families.count(families[0]) == len(paths) else {})


def read(path: Path) -> tuple[str, dict[int, float]]:
    """Return the metric's name and the score of each episode."""
    with path.open(newline="", encoding="utf-8") as file:
        rows = list(csv.reader(file))
    if len(rows) < 2 or len(rows[0]) < 2 or rows[0][0] != "episode":
        raise ValueError(f"'{path}' holds no scores by episode; write it with metarun eval save=FILE.")
    try:
        return rows[0][1], {int(row[0]): float(row[1]) for row in rows[1:]}
    except (ValueError, IndexError) as error:
        raise ValueError(f"'{path}' has a line that is not an episode and its score.") from error


def read_families(path: Path) -> dict[int, str]:
    """Return the family of each episode; {} for a file without families."""
    with path.open(newline="", encoding="utf-8") as file:
        return {int(row["episode"]): row["family"] for row in csv.DictReader(file) if row.get("family")}


def compare(first: Runs, other: Runs) -> tuple[str, ...]:
    """Return the mean difference with its interval over episodes, with several seeds also the one over seeds, and the share of wins.

    Ties count half.
    """
    _check_same(first.metric, first.scores[0], other.metric, other.scores[0], other.name)
    if len(other.scores) != len(first.scores):
        raise ValueError(f"'{other.name}' has {len(other.scores)} runs and '{first.name}' has {len(first.scores)}; name one for each seed.")
    runs = list(zip(other.scores, first.scores, strict=True))
    pairs = [(new[episode], old[episode]) for new, old in runs for episode in old]
    wins = sum(_wins(first.metric, new, old) for new, old in pairs) / len(pairs)
    by_episode = [[new[episode] - old[episode] for new, old in runs] for episode in first.scores[0]]
    finite = [differences for differences in by_episode if all(map(math.isfinite, differences))]
    if len(finite) < 2:
        raise ValueError(f"'{other.name}' and '{first.name}' have fewer than two episodes with finite scores in both.")
    left_out = f" ({len(by_episode) - len(finite)} not finite)" if len(finite) < len(by_episode) else ""
    over_episodes = with_interval([statistics.fmean(differences) for differences in finite]) + left_out
    if len(runs) == 1:
        return over_episodes, f"{wins:.0%}"
    by_seed = [statistics.fmean(differences) for differences in zip(*finite, strict=True)]
    return over_episodes, f"{with_interval(by_seed)} ({', '.join(f'{value:+.4f}' for value in by_seed)})", f"{wins:.0%}"


def with_interval(differences: Sequence[float]) -> str:
    """Return the mean of the differences with its interval."""
    return f"{statistics.fmean(differences):+.4f} ± {averages.interval(torch.tensor(differences, dtype=torch.float64)):.4f}"


def _wins(metric: str, new: float, old: float) -> float:
    """Return 1 where the new score is better, 0.5 for a tie and 0 where it is worse; a score that is not finite is the worst."""
    sign = 1.0 if metric == "accuracy" else -1.0
    a, b = (sign * score if math.isfinite(score) else -math.inf for score in (new, old))
    return 1.0 if a > b else 0.5 if a == b else 0.0


def mean(runs: Runs) -> str:
    """Return the mean of all scores; where some are not finite, the mean is infinite, and the mean of the finite ones stands beside it."""
    scores = [score for run in runs.scores for score in run.values()]
    finite = [score for score in scores if math.isfinite(score)]
    if len(finite) == len(scores):
        return f"{statistics.fmean(finite):.4f}"
    return f"inf (finite: {statistics.fmean(finite):.4f})" if finite else "inf"


def _check_same(metric: str, first: dict[int, float], name: str, other: dict[int, float], path: str) -> None:
    if name != metric or other.keys() != first.keys():
        raise ValueError(
            f"'{path}' has {len(other)} episodes of {name}; the first file has {len(first)} of {metric}. Evaluate both in the same way."
        )


if __name__ == "__main__":
    sys.exit(main())
