"""Print a Markdown table of evaluations: scripts/results_table.py FOLDER_OR_REPORT.json ...

A folder stands for all reports of `metarun eval` below it. The rows are in the order of the arguments. Reports of several families
(`task=mixture`) get a second table: the score and the rank of each model on each family, and the average rank.
--figure FILE also draws the scores by inner step, one line per report (a .png, .svg or .pdf file).
"""

from __future__ import annotations

import argparse
import json
import sys
from collections.abc import Collection, Iterator, Sequence
from itertools import chain, count
from pathlib import Path
from typing import Any

HEADER = ("algorithm", "task", "setting", "norm", "inner steps", "episodes", "score", "diverged")


def main(arguments: Sequence[str] | None = None) -> int:
    """Print the table; return 2 if a path has no report, or if the reports do not fit into one figure."""
    parser = argparse.ArgumentParser(description=__doc__, formatter_class=argparse.RawDescriptionHelpFormatter)
    parser.add_argument("paths", nargs="+", type=Path, metavar="PATH", help="a report.json, or a folder with reports below it")
    parser.add_argument("--figure", type=Path, metavar="FILE", help="draw the scores by inner step into this file")
    options = parser.parse_args(arguments)
    try:
        reports = [report for path in options.paths for report in find(path)]
        if options.figure is not None:
            draw(reports, options.figure)
    except (OSError, ValueError) as error:
        print(f"results_table: {error}", file=sys.stderr)
        return 2
    print(table([row(report) for report in reports]))
    if ranked := family_table(reports):
        print(f"\n{ranked}")
    return 0


def find(path: Path) -> Iterator[dict[str, Any]]:
    """Yield the reports that a path stands for; OSError or ValueError if there are none."""
    if path.is_file():
        report = read(path)
        if report is None:
            raise ValueError(f"'{path}' is not a report of metarun eval.")
        yield report
        return
    reports = [report for file in sorted(path.rglob("report.json")) if (report := read(file)) is not None]
    if not reports:
        raise FileNotFoundError(f"there is no report of metarun eval in '{path}'.")
    yield from reports


def read(file: Path) -> dict[str, Any] | None:
    """Read one report; None if the file is not of `metarun eval` (training writes a report.json too)."""
    try:
        report = json.loads(file.read_text(encoding="utf-8"))
    except ValueError as error:
        raise ValueError(f"'{file}' is not JSON: {error}.") from error
    return report if isinstance(report, dict) and {"metric", "mean", "ci95", "config"} <= report.keys() else None


def row(report: dict[str, Any]) -> tuple[str, ...]:
    """Return the cells of one report, in the order of `HEADER`."""
    chosen = report["config"].get("options", {})
    cells = (
        chosen.get("algo"),
        chosen.get("task"),
        setting(report),
        report.get("norm"),
        report.get("inner_steps"),
        report.get("episodes"),
        score(report),
        report.get("diverged") or None,
    )
    return tuple("" if cell is None else str(cell) for cell in cells)


def setting(report: dict[str, Any]) -> str:
    """Return "5-way 1-shot, 15 queries", and the split unless it is the test split; parts that the task lacks are left out."""
    parts = [f"{report[key]}-{word}" for key, word in (("ways", "way"), ("shots", "shot")) if report.get(key) is not None]
    queries = [f"{report['queries']} queries"] if report.get("queries") is not None else []
    split = [f"{report['split']} split"] if report.get("split", "test") != "test" else []
    return ", ".join([*([" ".join(parts)] if parts else []), *queries, *split])


def score(report: dict[str, Any]) -> str:
    """Return "97.31 % ± 0.22" for accuracy and "mse 0.431 ± 0.04" for another metric; one episode has no interval.

    The interval is over training runs where the report is of several runs, and says so; else it is over episodes.
    """
    mean, ci95 = report["mean"], report["ci95"]
    if mean is None:
        return "not finite"
    if report["metric"] == "accuracy":
        return f"{100 * mean:.2f} %" + ("" if ci95 is None else f" ± {100 * ci95:.2f}{over(report)}")
    return f"{report['metric']} {mean:.3g}" + ("" if ci95 is None else f" ± {ci95:.2g}{over(report)}")


def over(report: dict[str, Any]) -> str:
    """Return over how many runs the interval is, "" where it is over episodes."""
    return f" over {len(report['runs'])} seeds" if report.get("ci95_over") == "training runs" else ""


def family_table(reports: Sequence[dict[str, Any]]) -> str:
    """Return the scores and ranks of the families, and the average ranks; "" unless all reports have the same families and metric.

    Two models have the same rank where the z-test of their intervals does not separate them (`metarun.engine.ranks`).
    """
    families = list(reports[0].get("by_family") or {})
    alike = all(list(report.get("by_family") or {}) == families and report["metric"] == reports[0]["metric"] for report in reports)
    if len(families) < 2 or not alike:
        return ""
    from metarun.engine.ranks import average_ranks, by_intervals, ranks  # imported here: torch is slow to import

    found: dict[str, list[float]] = {}
    for name in families:
        means, widths = ([number(report["by_family"][name][key]) for report in reports] for key in ("mean", "ci95"))
        found[name] = ranks(means, by_intervals(means, widths), higher_is_better=reports[0]["metric"] == "accuracy")
    labels: list[str] = []
    for report in reports:
        labels.append(label(report, labels))
    cells = [[score({**report, **report["by_family"][name]}) for name in families] for report in reports]
    rows = [
        [labels[i], *(f"{cells[i][j]} ({found[name][i]:g})" for j, name in enumerate(families)), f"{rank:.2f}"]
        for i, rank in enumerate(average_ranks(found))
    ]
    return markdown([["model", *families, "average rank"], *rows])


def number(value: float | None) -> float:
    """Return a number of a report; JSON has null for one that is not finite."""
    return float("nan") if value is None else value


def draw(reports: Sequence[dict[str, Any]], file: Path) -> None:
    """Draw the score before adaptation and after each inner step; ValueError if the reports differ in their metric."""
    from metarun.records.pictures import adaptation_figure  # imported here: matplotlib is slow to import, and the table does not need it

    metrics = sorted({report["metric"] for report in reports})
    if len(metrics) > 1:
        raise ValueError(f"a figure shows one metric, but these reports have {' and '.join(metrics)}.")
    curves: dict[str, list[float]] = {}
    if several := [report for report in reports if "by_step" not in report]:
        raise ValueError(f"a figure shows one checkpoint a line, but a report is of {len(several[0]['runs'])} runs.")
    for report in reports:
        # JSON has no infinity: null stands for an inner step after which an episode was not finite.
        curves[label(report, curves)] = [float("nan") if score is None else score for score in report["by_step"]]
    settings = {setting(report) for report in reports}
    tasks = {report["config"].get("options", {}).get("task") for report in reports}
    title = f"{tasks.pop()}, {settings.pop()}" if len(tasks) == len(settings) == 1 else ""
    adaptation_figure(curves, metrics[0], title).savefig(file)


def label(report: dict[str, Any], taken: Collection[str]) -> str:
    """Return the name of a line: the algorithm, then its norm or a number if the name is taken."""
    name = str(report["config"].get("options", {}).get("algo"))
    names = chain([name, f"{name}, norm={report.get('norm')}"], (f"{name} ({i})" for i in count(2)))
    return next(name for name in names if name not in taken)


def table(rows: Sequence[Sequence[str]]) -> str:
    """Return aligned Markdown, without the columns that are empty in every row."""
    kept = [i for i in range(len(HEADER)) if any(cells[i] for cells in rows)]
    return markdown([[line[i] for i in kept] for line in (HEADER, *rows)])


def markdown(lines: Sequence[Sequence[str]]) -> str:
    """Return aligned Markdown; the first line is the header."""
    widths = [max(len(line[i]) for line in lines) for i in range(len(lines[0]))]
    head, *body = ("| " + " | ".join(cell.ljust(width) for cell, width in zip(line, widths, strict=True)) + " |" for line in lines)
    return "\n".join([head, "|" + "|".join("-" * (width + 2) for width in widths) + "|", *body])


if __name__ == "__main__":
    sys.exit(main())
