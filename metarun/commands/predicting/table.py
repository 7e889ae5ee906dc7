"""The targets of the user's rows, in their own unit: adapt to the known rows of each task, and predict the others."""

from __future__ import annotations

import math
from collections.abc import Iterator, Mapping, Sequence
from pathlib import Path
from typing import Any, NamedTuple

import numpy as np
import torch

from metarun.commands.model import Model
from metarun.engine.averages import interval
from metarun.errors import UserError, counted, printable
from metarun.records.predictions import Found, write_rows
from metarun.tasks.preparing.table_preparation import TablePreparation
from metarun.tasks.tables.table_rows import TableRows, by_task, read_rows, unknown_words
from metarun.values import plain

LEVEL = 0.9
"""The probability of the intervals."""


class Predicted(NamedTuple):
    """Predictions of M rows and D targets, in the unit of the targets, and the mean of the known targets of each row's task.

    values, means: (M, D). low, high: (M, D), the ends of the interval of `LEVEL`; None where the method has no distribution.
    """

    values: np.ndarray
    means: np.ndarray
    low: np.ndarray | None
    high: np.ndarray | None


def predict_table(model: Model, config: Mapping[str, Any], path: Path) -> Found:
    """Predict the rows of `query` from those of `support`, write the CSV file, and return the result.

    config: the keys support, query and abstain of `predict.yaml`. Raises UserError for tables that do not fit the model or each other.
    """
    prepared, task = model.preparation, model.members[0].config["task"]
    assert isinstance(prepared, TablePreparation)
    if config["abstain"] is not None:
        raise UserError("abstain= rejects images of unknown classes, and this run predicts numbers; leave it out.")
    column, decimal = task.get("task_column"), task.get("decimal")
    support = read_rows(config["support"], "support", prepared, column, decimal)
    query = read_rows(config["query"], "query", prepared, column, decimal)
    groups = by_task(support, query, str(column))
    predicted = predict_rows(model, support, query, groups)
    write_rows(path, [*query.header, *_header(query, prepared, predicted)], _rows(query, predicted))
    lines, facts = scores(query, prepared.targets_named, predicted)
    told = f"{counted(len(query.rows), 'row')} of {counted(len(groups), 'task')} predicted from {counted(len(support.rows), 'known row')}"
    lines = [*unknown_words([support, query], prepared), told, *lines]
    facts = {"tasks": len(groups), "known_rows": len(support.rows), "queries": len(query.rows), "targets": facts, "predictions": str(path)}
    error = next((each["mae"] for each in facts["targets"].values()), 0.0)
    return Found([*lines, f"predictions: {path}"], facts, error)


def predict_rows(model: Model, support: TableRows, query: TableRows, groups: Mapping[str, tuple[list[int], list[int]]]) -> Predicted:
    """Adapt to the known rows of each task and predict its queries; UserError where an output is not finite."""
    assert support.targets is not None
    shape = (len(query.rows), len(support.targets))
    values, means, low, high = (np.full(shape, np.nan) for _ in range(4))
    ranged = True
    for task, (known, asked) in groups.items():
        targets = {name: column[known] for name, column in support.targets.items()}
        predictor = model.adapt(support.take(known), targets)
        x = query.take(asked)
        values[asked] = predictor.predict(x)
        means[asked] = [float(column.mean()) for column in targets.values()]
        if not np.isfinite(values[asked]).all():
            named = f" of task '{printable(task)}'" if len(groups) > 1 else ""
            raise UserError(
                f"the predictions{named} are not finite numbers, so the adaptation to its known rows diverged; check these rows."
            )
        ends = predictor.interval(x, LEVEL) if ranged else None
        ranged = ends is not None
        if ends is not None:
            low[asked], high[asked] = ends
    return Predicted(values, means, low if ranged else None, high if ranged else None)


def scores(query: TableRows, targets: Sequence[str], predicted: Predicted) -> tuple[list[str], dict[str, Any]]:
    """Return the errors of the rows whose targets are known, in the unit of each target: lines for a person, and facts for report.json."""
    lines, facts = list[str](), dict[str, Any]()
    if query.targets is None:
        return lines, facts
    for place, name in enumerate(targets):
        truth = query.targets[name]
        real = np.isfinite(truth)
        if not real.any():
            continue
        errors = predicted.values[real, place] - truth[real]
        mae, half = float(np.abs(errors).mean()), _half(np.abs(errors))
        rmse, mean = math.sqrt(float(np.square(errors).mean())), float(np.abs(predicted.means[real, place] - truth[real]).mean())
        facts[name] = {"mae": mae, "mae_ci95": half, "rmse": rmse, "mae_of_the_mean": mean, "rows": int(real.sum()), "ci95_over": "rows"}
        said = f"{name}: mean absolute error {plain(mae)} ± {plain(half, 3)} (95 % interval over {counted(int(real.sum()), 'row')}), "
        said += f"root mean square error {plain(rmse)}; the mean of the task's known rows would have a mean absolute error of {plain(mean)}"
        if predicted.low is not None and predicted.high is not None:
            inside = (predicted.low[real, place] <= truth[real]) & (truth[real] <= predicted.high[real, place])
            facts[name]["inside_90"] = float(inside.mean())
            said += f"; {100 * inside.mean():.1f} % of the targets lie in their 90 % interval"
        lines.append(said)
    return lines, facts


def _half(errors: np.ndarray) -> float:
    """Return half the 95 % interval of a mean; infinity for a single value."""
    return interval(torch.from_numpy(errors)) if len(errors) > 1 else math.inf


def _header(query: TableRows, prepared: TablePreparation, predicted: Predicted) -> list[str]:
    """Return the names of the new columns, which differ from those that the file has already."""
    ends = [] if predicted.low is None else ["low 90 %", "high 90 %"]
    names, taken = list[str](), set(query.header)
    for name in (f"{target} {what}" for target in prepared.targets_named for what in ("predicted", *ends)):
        free = next(each for each in (name, *(f"{name} ({number})" for number in range(2, len(taken) + 3))) if each not in taken)
        taken.add(free)
        names.append(free)
    return names


def _rows(query: TableRows, predicted: Predicted) -> Iterator[list[str]]:
    """Yield each query row as its file has it, with the predicted targets and their intervals; each number reads back as it is."""
    parts = [each for each in (predicted.values, predicted.low, predicted.high) if each is not None]
    for row, *values in zip(query.rows, *parts, strict=True):
        yield [*row, *(repr(float(value[target])) for target in range(len(values[0])) for value in values)]
