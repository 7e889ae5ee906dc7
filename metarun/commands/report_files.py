"""The files and the line of text that report a run or an evaluation: report.json, scores by episode, the classes of each split."""

from __future__ import annotations

import csv
import io
import json
import math
import re
from collections.abc import Mapping, Sequence
from pathlib import Path
from typing import Any

from metarun.commands.overlap import described
from metarun.commands.rating_lines import phrase
from metarun.engine.families import SHOWN_FAMILIES, ByFamily
from metarun.engine.report import Report
from metarun.engine.units import SHOWN_TARGETS, Errors
from metarun.errors import counted
from metarun.files.run_folder import CONFIG
from metarun.files.writing import write_text
from metarun.values import plain
from metarun.wiring.sources import is_mixture


def sentence(report: Report, facts: Mapping[str, Any]) -> str:
    """Return the result as one line for a person."""
    interval = f"95 % interval over {counted(report.episodes, facts['split'] + ' episode')}{origin(facts)}"
    diverged = f", {report.diverged} diverged" if report.diverged else ""
    told = targets_told(report.by_target) if report.ratings is None else phrase(report.ratings)
    beside = f"{families_told(report.metric, report.by_family)}{told}{_more(report)}"
    return f"{_score(report)}{beside}  [{interval}, {protocol(report.metric, facts)}{diverged}]"


def protocol(metric: str, facts: Mapping[str, Any]) -> str:
    """Return the protocol of an evaluation in a few words: sizes of the episodes, norm, inner steps, seed, and the training's task."""
    shots, queries = _size(facts, "shots"), counted(facts["queries"], "query")
    task = f"{shots} {'shot' if shots == '1' else 'shots'}, {queries}"
    if metric == "accuracy":
        task = f"{_size(facts, 'ways')}-way {shots}-shot, {queries} a class"
    if facts.get("members", 1) > 1:
        task = f"ensemble of {facts['members']}, {task}"
    if facts.get("task") != facts.get("trained_on"):
        task = f"{facts['task']}, trained on {facts['trained_on']}, {task}"
    if facts.get("overlap"):
        task = f"{described(facts['overlap'])} are training {facts['overlap']['kind']}, {task}"
    norm = f"norm={facts['norm']}, " if facts["norm"] else ""
    return f"{task}, {norm}{counted(facts['inner_steps'], 'inner step')}, seed {facts['seed']}"


def _size(facts: Mapping[str, Any], name: str) -> str:
    """Return a size of the episodes, such as "3", or "1 to 3" where it varies."""
    least, most = facts.get(f"min_{name}"), facts[name]
    return str(most) if least is None or least >= most else f"{least} to {most}"


def origin(facts: Mapping[str, Any]) -> str:
    """Return the classes or tasks from which the episodes come, and whether the interval leaves new ones out."""
    population = facts.get("population")
    if population is None:
        return ""
    kind = population["kind"]
    count = counted(population["count"], kind.removesuffix("es" if kind.endswith("classes") else "s"))
    if not population["covers_new"]:
        return f" of the same {count} (the interval does not cover new {kind})"
    return f" of {count}"


def _score(report: Report) -> str:
    """Return the score with its interval; where tasks of a regression are not finite, their number and the mean over the others."""
    if report.metric == "accuracy":
        return with_interval("accuracy", report.mean, report.ci95)
    beside = f"median {report.median:.4f}, mean predictor {report.baseline:.4f}"
    if math.isfinite(report.mean):
        return f"{with_interval(report.metric, report.mean, report.ci95)} ({beside})"
    others = "there is no other task"
    if report.not_finite < report.episodes:
        others = f"over the others {with_interval(report.metric, report.finite_mean, report.finite_ci95)}"
    return f"{report.metric} inf, since {report.not_finite} of {counted(report.episodes, 'task')} are not finite ({others}; {beside})"


def with_interval(metric: str, value: float | None, ci95: float | None, digits: int = 4) -> str:
    """Return a score with half its interval, such as "accuracy 98.12 % ± 0.23"; a missing or infinite interval is left out.

    digits: behind the point; an accuracy has two.
    """
    scale, digits, unit = (100.0, 2, " %") if metric == "accuracy" else (1.0, digits, "")
    if value is None:
        return f"{metric} inf"
    known = ci95 is not None and math.isfinite(ci95)
    if metric != "accuracy" and 1000 <= abs(value) < math.inf:
        digits = 1
    return f"{metric} {scale * value:,.{digits}f}{unit}" + (f" ± {scale * ci95:,.{digits}f}" if known and ci95 is not None else "")


def families_told(metric: str, by_family: ByFamily | None) -> str:
    """Return the scores of the first families with their intervals, such as "; glyphs 95.10 % ± 0.42, omniglot 97.23 % ± 0.31"."""
    each = list((by_family or {}).items())
    shown = [_family_told(metric, name, figures) for name, figures in each[:SHOWN_FAMILIES]]
    more = f" and {len(each) - len(shown)} more families in report.json" if len(each) > len(shown) else ""
    return f"; {', '.join(shown)}{more}" if shown else ""


def _family_told(metric: str, name: str, figures: Mapping[str, Any]) -> str:
    value = with_interval(metric, figures["mean"] if math.isfinite(figures["mean"]) else None, figures["ci95"]).removeprefix(f"{metric} ")
    return f"{name} {value}" + (f" (median {figures['median']:.4f})" if "median" in figures and metric != "accuracy" else "")


def targets_told(errors: Errors | None) -> str:
    """Return the errors of the first targets in their own units, such as "; price: RMSE 12.3 (11.2 to 13.4), MAE 9.1 ± 0.8"."""
    parts = []
    for target, each in list((errors or {}).items())[:SHOWN_TARGETS]:
        low, high, half = (each.get(name, math.nan) for name in ("rmse_low", "rmse_high", "mae_ci95"))
        rmse = f" ({plain(low)} to {plain(high)})" if math.isfinite(low) and math.isfinite(high) else _plus_minus(each.get("rmse_ci95"))
        parts.append(f"; {target}: RMSE {plain(each['rmse'])}{rmse}, MAE {plain(each['mae'])}{_plus_minus(half)}")
    more = len(errors or {}) - len(parts)
    return "".join(parts) + (f"; {more} more targets in report.json" if more else "")


def _plus_minus(half: float | None) -> str:
    return f" ± {plain(half, 2)}" if half is not None and math.isfinite(half) else ""


def _more(report: Report) -> str:
    """Return the other scores: accuracy by presentation for readers of sequences, likelihood and coverage for regression."""
    if report.by_presentation is not None:
        named = [n for n in (1, 2, 5, 10) if n <= len(report.by_presentation)]
        percent = "/".join(f"{100 * report.by_presentation[n - 1]:.1f}" for n in named)
        return f"; by presentation {'/'.join(map(str, named))}: {percent} %"
    if report.metric == "accuracy" or report.nll is None or report.coverage90 is None:
        return ""
    text = f"; {with_interval('nll', report.nll, report.nll_ci95, digits=3)}"
    if report.joint_nll is not None and f"{report.joint_nll:.3f}" != f"{report.nll:.3f}":  # both are equal for a single hypothesis
        text += f", joint {report.joint_nll:.3f}"
    if report.own_nll is not None and report.variance is not None:  # without a fitted variance, both are the same
        text += f", under the learned variance {report.own_nll:.3f}"
    return f"{text}, 90 % interval covers {100 * report.coverage90:.1f} %{bound(report)}"


def bound(report: Report) -> str:
    """Return the scores of the exact Bayes predictor, where the task has one."""
    if report.bayes is None:
        return ""
    nll, joint, mse, point = (report.bayes[name] for name in ("nll", "joint_nll", "mse", "point_nll"))
    return f"; Bayes nll {nll:.3f}, joint {joint:.3f}, mse {mse:.4f}, its mean as a point prediction: nll {point:.3f}"


def write_config(config: Mapping[str, Any], folder: Path) -> None:
    """Write the config of a run into its folder as config.json, and the files of `write_splits`."""
    write_json(folder / CONFIG, config)
    write_splits(config, folder)


def write_splits(config: Mapping[str, Any], folder: Path) -> None:
    """Write into the run folder the classes or tasks of each split of the user's own data, and the classes and files left out."""
    task = config["task"]
    inside = {f"_{name}": node for name, node in (task.get("sources") or {}).items()} if is_mixture(task) else {}
    for suffix, node in [("", task), ("", task.get("images")), ("", task.get("source")), *inside.items()]:
        for key in ("classes", "tasks", "left_out"):
            if isinstance(node, Mapping) and isinstance(node.get(key), Mapping):
                write_json(folder / f"{key}{suffix}.json", node[key])


def write_json(path: Path, content: Any) -> None:
    """Write a JSON file. Numbers that are not finite become null, since JSON has no such numbers."""

    def finite(value: Any) -> Any:
        if isinstance(value, Mapping):
            return {key: finite(item) for key, item in value.items()}
        if isinstance(value, (list, tuple)):
            return [finite(item) for item in value]
        return None if isinstance(value, float) and not math.isfinite(value) else value

    path.parent.mkdir(parents=True, exist_ok=True)
    write_text(path, readable_json(finite(content)) + "\n")


def readable_json(content: Any) -> str:
    r"""Return JSON with the letters of every script unescaped; half surrogate pairs, which UTF-8 cannot write, become "\udcfc"."""
    text = json.dumps(content, indent=2, ensure_ascii=False)
    return re.sub("[\ud800-\udfff]", lambda found: json.dumps(found[0])[1:-1], text)


def write_scores(path: Path, report: Report) -> None:
    """Write the score of each episode as CSV; its user, negative log-likelihoods and family where the report has them."""
    text = io.StringIO(newline="")
    writer = csv.writer(text)
    columns: dict[str, Sequence[Any]] = {report.metric: report.scores, **(report.target_errors or {})}
    if by_user := report.rating_scores:
        columns = {"user": by_user["user"], **columns, **by_user}
    per_episode = (("nll", report.nlls), ("joint_nll", report.joint_nlls), ("family", report.families))
    columns |= {name: each for name, each in per_episode if each}
    writer.writerow(["episode", *columns])
    writer.writerows([episode, *values] for episode, values in enumerate(zip(*columns.values(), strict=True)))
    write_text(path, text.getvalue())
