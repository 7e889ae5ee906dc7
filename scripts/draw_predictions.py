"""Draw the predictions of evaluated models for some tasks: scripts/draw_predictions.py EVAL [EVAL ...] --out FILE.png

EVAL is the folder, or the report.json, of a `metarun eval` on a regression of one input; each EVAL becomes a column. The picture shows the
support points, the true function where the task knows it, and the central 90 % interval of the predictive distribution. The report's
scores are about the same distribution. All evaluations must have the same episodes. A network that normalises by the query batch
(norm=batch) sees the points of the curve instead of the query points.
"""

from __future__ import annotations

import argparse
import contextlib
import json
import sys
from collections.abc import Sequence
from pathlib import Path
from typing import Any

import torch

from metarun import draws
from metarun.commands.trained import Trained, assemble, load_members
from metarun.engine.evaluation import samples_of
from metarun.errors import UserError
from metarun.predictive import Predictive, quantile
from metarun.records.pictures import Panel, prediction_figure
from metarun.wiring.build import Parts, build
from metarun.wiring.instantiate import check_targets

POINTS = 300
LEVEL = 0.9


def main(arguments: Sequence[str] | None = None) -> int:
    """Write the figure; return 2 if a path is not a report of such an evaluation."""
    parser = argparse.ArgumentParser(description=__doc__, formatter_class=argparse.RawDescriptionHelpFormatter)
    parser.add_argument("paths", nargs="+", type=Path, metavar="EVAL", help="a folder of metarun eval, or its report.json")
    parser.add_argument("--episodes", default="0,1,2", help="numbers of episodes in the evaluated split, one row each (default 0,1,2)")
    parser.add_argument("--names", help="titles of the columns, separated by commas; default: the algorithms' names")
    parser.add_argument("--trust", default="", help="your modules that the runs may name, separated by commas")
    parser.add_argument("--out", type=Path, required=True, metavar="FILE", help="a .png, .svg or .pdf file")
    options = parser.parse_args(arguments)
    try:
        episodes, trust = numbers(options.episodes), options.trust.split(",")
        reports = [read(path) for path in options.paths]
        names = options.names.split(",") if options.names else [name(report) for report in reports]
        if len(set(names)) < len(reports) or len(names) > len(reports):
            raise ValueError(f"{len(reports)} evaluations need as many different names; give them with --names=A,B.")
        columns = [panels(report, episodes, trust) for report in reports]
        check_same(columns)
        titles = [f"{name}\n{figures(report)}" for name, report in zip(names, reports, strict=True)]
        figure = prediction_figure(dict(zip(titles, columns, strict=True)), f"{100 * LEVEL:.0f} % interval")
        figure.savefig(options.out)
    except (OSError, ValueError, UserError) as error:
        print(f"draw_predictions: {error}", file=sys.stderr)
        return 2
    return 0


def read(path: Path) -> dict[str, Any]:
    """Read the report of an evaluation whose observations have a variance; ValueError for another file."""
    file = path / "report.json" if path.is_dir() else path
    report = json.loads(file.read_text(encoding="utf-8"))
    if not isinstance(report, dict) or not isinstance(report.get("variance"), float):
        raise ValueError(f"'{file}' is not a report of metarun eval on a regression.")
    return report


def numbers(text: str) -> list[int]:
    """Return the numbers of the episodes; ValueError unless all are whole numbers of at least 0."""
    if not all(part.strip().isdecimal() for part in text.split(",")):
        raise ValueError(f"--episodes={text} must be whole numbers of at least 0, separated by commas.")
    return [int(part) for part in text.split(",")]


def check_same(columns: Sequence[Sequence[Panel]]) -> None:
    """Raise ValueError unless the models saw the same support sets."""
    for column in columns[1:]:
        for first, second in zip(columns[0], column, strict=True):
            if not (torch.equal(first.support_x, second.support_x) and torch.equal(first.support_y, second.support_y)):
                raise ValueError("the evaluations are not of the same episodes; give them the same task, shots, seed and split.")


def name(report: dict[str, Any]) -> str:
    """Return the algorithm, and how many of it."""
    algorithm = str(report["config"].get("options", {}).get("algo"))
    return f"{report['members']} × {algorithm}" if report.get("members", 1) > 1 else algorithm


def figures(report: dict[str, Any]) -> str:
    """Return the scores by which one reads such a picture."""
    return f"nll {report['nll']:.2f} ± {report['nll_ci95']:.2f}, covers {100 * report['coverage90']:.0f} %"


def panels(report: dict[str, Any], episodes: Sequence[int], trust: Sequence[str]) -> list[Panel]:
    """Return the evaluated model's predictions for these episodes of the evaluated split, with the same noise."""
    paths, members = load_members(report["checkpoint"])
    if members[0].step != report["step"]:
        raise ValueError(
            f"{paths[0]} is now of step {members[0].step}, but the report is of step {report['step']}; evaluate the run again."
        )
    check_targets(report["config"], trust)
    parts = build(report["config"])
    trained = assemble(parts, members)
    with torch.no_grad():
        return [panel(report, parts, trained, episode) for episode in episodes]


def panel(report: dict[str, Any], parts: Parts, trained: Trained, index: int) -> Panel:
    """Return the predictions for one episode; ValueError if the task has more than one input or output."""
    split, algorithm = report["split"], trained.algorithm
    support, query = parts.source.episode(split, index)
    if support.x.shape[1:] != (1,) or support.y.shape[1:] != (1,):
        raise ValueError("the task has more than one input or output, so a curve cannot show it.")
    seen = torch.cat([support.x, query.x])
    x = torch.linspace(float(seen.min()), float(seen.max()), POINTS, dtype=seen.dtype)[:, None]
    adapted = algorithm.adapt(trained.params, trained.state, support, draws.key(report["seed"], "evaluate", split, index))
    samples = samples_of(algorithm, adapted, query._replace(x=x, mask=None))
    predicted = Predictive(samples, torch.tensor(report["variance"], dtype=samples.dtype))
    low, high = (quantile(predicted, level) for level in ((1.0 - LEVEL) / 2.0, (1.0 + LEVEL) / 2.0))
    truth = None
    with contextlib.suppress(AttributeError):  # a source, or a family of a mixture, may have no curve
        truth = parts.source.curve(split, index, x)  # type: ignore[attr-defined]
    known = slice(None) if support.mask is None else support.mask
    return Panel(x, truth, support.x[known], support.y[known], samples, low, high)


if __name__ == "__main__":
    sys.exit(main())
