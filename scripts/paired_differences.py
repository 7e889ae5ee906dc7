"""Compare evaluations of the same episodes: scripts/paired_differences.py FIRST.csv OTHER.csv ...

`metarun eval … save=FILE` writes such files. The script compares every other file with the first, episode by episode. A hard episode is
hard for both models, so this comparison can find a difference even if the two intervals overlap. The interval is a 95 % interval of the
mean difference by Student's t, over episodes. An episode that is not finite for one model counts as worse for that model; the mean
difference is over the episodes that are finite for both, and the table says how many are not.
"""

from __future__ import annotations

import argparse
import csv
import math
import statistics
import sys
from collections.abc import Sequence
from pathlib import Path

import torch

from metarun.engine import averages


def main(arguments: Sequence[str] | None = None) -> int:
    """Print a Markdown table; return 2 if a file has no scores, or has scores of other episodes than the first file."""
    parser = argparse.ArgumentParser(description=__doc__, formatter_class=argparse.RawDescriptionHelpFormatter)
    parser.add_argument("paths", nargs="+", type=Path, metavar="FILE", help="scores by episode, from metarun eval save=FILE")
    options = parser.parse_args(arguments)
    try:
        metric, first = read(options.paths[0])
        rows = [(options.paths[0].stem, mean(first), "", "")]
        for path in options.paths[1:]:
            rows.append((path.stem, *compare(metric, first, *read(path), path)))
    except (OSError, ValueError) as error:
        print(f"paired_differences: {error}", file=sys.stderr)
        return 2
    better = "lower" if metric != "accuracy" else "higher"
    print(f"| {metric} ({len(first)} episodes) | mean | minus {rows[0][0]} | share of episodes that are {better} |")
    print("| --- | --- | --- | --- |")
    for row in rows:
        print("| " + " | ".join(row) + " |")
    return 0


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


def compare(metric: str, first: dict[int, float], name: str, other: dict[int, float], path: Path) -> tuple[str, str, str]:
    """Return the other file's mean, the mean difference with its interval, and how often the other is better; ties count half."""
    if name != metric or other.keys() != first.keys():
        raise ValueError(
            f"'{path}' has {len(other)} episodes of {name}; the first file has {len(first)} of {metric}. Evaluate both in the same way."
        )
    pairs = [(other[episode], first[episode]) for episode in first]
    finite = [new - old for new, old in pairs if math.isfinite(new) and math.isfinite(old)]
    if len(finite) < 2:
        raise ValueError(f"'{path}' and the first file have fewer than two episodes with finite scores in both.")
    wins = sum(_wins(metric, new, old) for new, old in pairs) / len(pairs)
    half = averages.interval(torch.tensor(finite, dtype=torch.float64))
    left_out = f" ({len(pairs) - len(finite)} not finite)" if len(finite) < len(pairs) else ""
    return mean(other), f"{statistics.fmean(finite):+.4f} ± {half:.4f}{left_out}", f"{wins:.0%}"


def _wins(metric: str, new: float, old: float) -> float:
    """Return 1 where the new score is better, 0.5 for a tie and 0 where it is worse; a score that is not finite is the worst."""
    sign = 1.0 if metric == "accuracy" else -1.0
    a, b = (sign * score if math.isfinite(score) else -math.inf for score in (new, old))
    return 1.0 if a > b else 0.5 if a == b else 0.0


def mean(scores: dict[int, float]) -> str:
    """Return the mean of the scores; where some are not finite, the mean is infinite, and the mean of the finite ones stands beside it."""
    finite = [score for score in scores.values() if math.isfinite(score)]
    if len(finite) == len(scores):
        return f"{statistics.fmean(finite):.4f}"
    return f"inf (finite: {statistics.fmean(finite):.4f})" if finite else "inf"


if __name__ == "__main__":
    sys.exit(main())
