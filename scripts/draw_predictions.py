"""Draw the predictions of evaluated models for some tasks: scripts/draw_predictions.py EVAL [EVAL ...] --out FILE.png

EVAL is the folder, or the report.json, of a `metarun eval` on a regression of one input; each EVAL becomes a column. The picture shows the
support points, the true function where the task knows it, and the central 90 % interval of the predictive distribution. The report's
scores are about the same distribution. Thin lines are the prediction, or samples of it. With --bayes, the first column is the exact Bayes
predictor, where the task has one (task=ambiguous). All evaluations must have the same episodes. A network that normalises by the
query batch (norm=batch) sees the points of the curve instead of the query points.
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
from metarun.engine.bounds import WithPosterior
from metarun.engine.likelihood import has_fitted_variance, predictive_of, samples_of
from metarun.errors import UserError
from metarun.predictive import Predictive, mean, quantile
from metarun.records.pictures import Panel, prediction_figure
from metarun.types import Examples
from metarun.wiring.build import Parts, build
from metarun.wiring.stored import accepted

POINTS = 300
LEVEL = 0.9
BAYES, FUNCTIONS = "Bayes", 6
"""The title of the column of the exact predictor, and how many functions to draw from it."""


def main(arguments: Sequence[str] | None = None) -> int:
    """Write the figure; return 2 if a path is not a report of such an evaluation."""
    parser = argparse.ArgumentParser(description=__doc__, formatter_class=argparse.RawDescriptionHelpFormatter)
    parser.add_argument("paths", nargs="+", type=Path, metavar="EVAL", help="a folder of metarun eval, or its report.json")
    parser.add_argument("--episodes", default="0,1,2", help="numbers of episodes in the evaluated split, one row each (default 0,1,2)")
    parser.add_argument("--names", help="titles of the columns, separated by commas; default: the algorithms' names")
    parser.add_argument("--bayes", action="store_true", help="begin with the exact Bayes predictor of the task")
    parser.add_argument("--trust", default="", help="your modules that the runs may name, separated by commas")
    parser.add_argument("--out", type=Path, required=True, metavar="FILE", help="a .png, .svg or .pdf file")
    options = parser.parse_args(arguments)
    try:
        episodes, trust = numbers(options.episodes), [name.strip() for name in options.trust.split(",") if name.strip()]
        reports = [read(path) for path in options.paths]
        names = options.names.split(",") if options.names else [name(report) for report in reports]
        if len(set(names)) < len(reports) or len(names) > len(reports):
            raise ValueError(f"{len(reports)} evaluations need as many different names; give them with --names=A,B.")
        columns = [panels(report, episodes, trust) for report in reports]
        titles = [f"{name}\n{figures(report)}" for name, report in zip(names, reports, strict=True)]
        if options.bayes:
            columns.insert(0, bayes_panels(reports[0], episodes, trust))
            titles.insert(0, f"{BAYES}\n{bound(reports[0])}")
        check_same(columns)
        figure = prediction_figure(dict(zip(titles, columns, strict=True)), f"{100 * LEVEL:.0f} % interval")
        figure.savefig(options.out)
    except (OSError, ValueError, UserError) as error:
        print(f"draw_predictions: {error}", file=sys.stderr)
        return 2
    return 0


def read(path: Path) -> dict[str, Any]:
    """Read the report of an evaluation with the likelihood of a regression; ValueError for another file."""
    file = path / "report.json" if path.is_dir() else path
    report = json.loads(file.read_text(encoding="utf-8"))
    if not isinstance(report, dict) or report.get("metric") == "accuracy" or not isinstance(report.get("nll"), float):
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


def bound(report: dict[str, Any]) -> str:
    """Return the scores of the Bayes predictor; ValueError if the report has none."""
    if report.get("bayes") is None:
        raise ValueError("--bayes: the evaluated task knows no exact Bayes predictor.")
    return f"nll {report['bayes']['nll']:.2f}, covers {100 * report['bayes']['coverage90']:.0f} %"


def panels(report: dict[str, Any], episodes: Sequence[int], trust: Sequence[str]) -> list[Panel]:
    """Return the evaluated model's predictions for these episodes of the evaluated split, with the same noise."""
    paths, members = load_members(report["checkpoint"], trust=trust)
    if members[0].step != report["step"]:
        raise ValueError(
            f"{paths[0]} is now of step {members[0].step}, but the report is of step {report['step']}; evaluate the run again."
        )
    parts = build(accepted(report["config"], trust))
    trained = assemble(parts, members)
    with torch.no_grad():
        return [panel(report, parts, trained, episode) for episode in episodes]


def panel(report: dict[str, Any], parts: Parts, trained: Trained, index: int) -> Panel:
    """Return the predictions for one episode; ValueError if the task has more than one input or output."""
    split, algorithm = report["split"], trained.algorithm
    support, query, x = points_of(parts, split, index)
    adapted = algorithm.adapt(trained.params, trained.state, support, draws.key(report["seed"], "evaluate", split, index))
    asked = query._replace(x=x, y=torch.zeros_like(x), mask=None)
    variance = None if report["variance"] is None else torch.tensor(report["variance"])
    predicted = predictive_of(algorithm, adapted, asked, variance)
    assert predicted is not None  # `read` takes only reports with a likelihood
    samples = samples_of(algorithm, adapted, asked) if has_fitted_variance(algorithm) else mean(predicted)[None]
    return drawn(parts, split, index, support, x, predicted, samples)


def bayes_panels(report: dict[str, Any], episodes: Sequence[int], trust: Sequence[str]) -> list[Panel]:
    """Return the predictions of the exact Bayes predictor for these episodes, with functions drawn from its posterior."""
    bound(report)
    parts, split, column = build(accepted(report["config"], trust)), report["split"], []
    for index in episodes:
        support, _, x = points_of(parts, split, index)
        assert isinstance(parts.source, WithPosterior)
        predicted = parts.source.posterior(support, x)
        assert predicted.log_priors is not None
        chance = draws.uniform(draws.key(report["seed"], "posterior", split, index), FUNCTIONS, dtype=torch.float64)
        chosen = torch.searchsorted(predicted.log_priors.double().exp().cumsum(0), chance).clamp(max=len(predicted.means) - 1)
        column.append(drawn(parts, split, index, support, x, predicted, predicted.means[chosen, 0]))
    return column


def points_of(parts: Parts, split: str, index: int) -> tuple[Examples, Examples, torch.Tensor]:
    """Return support and query of an episode, and the points of the curves; ValueError if a curve cannot show the task."""
    support, query = parts.source.episode(split, index)
    if support.x.shape[1:] != (1,) or support.y.shape[1:] != (1,):
        raise ValueError("the task has more than one input or output, so a curve cannot show it.")
    seen = torch.cat([support.x, query.x])
    return support, query, torch.linspace(float(seen.min()), float(seen.max()), POINTS, dtype=seen.dtype)[:, None]


def drawn(parts: Parts, split: str, index: int, support: Examples, x: torch.Tensor, predicted: Predictive, samples: torch.Tensor) -> Panel:
    """Return the panel of a predictive distribution at x (B, 1), with some samples (S, B, 1) of it."""
    low, high = (quantile(predicted, level) for level in ((1.0 - LEVEL) / 2.0, (1.0 + LEVEL) / 2.0))
    truth = None
    with contextlib.suppress(AttributeError):  # a source, or a family of a mixture, may have no curve
        truth = parts.source.curve(split, index, x)  # type: ignore[attr-defined]
    known = slice(None) if support.mask is None else support.mask
    return Panel(x, truth, support.x[known], support.y[known], samples, low, high)


if __name__ == "__main__":
    sys.exit(main())
