"""The rows of the user's tables for a prediction: known rows with their targets, and rows to predict."""

from __future__ import annotations

import re
from collections.abc import Iterator, Sequence
from contextlib import contextmanager
from dataclasses import dataclass

import numpy as np

from metarun.errors import UserError, nearest, printable
from metarun.tasks.preparing.table_preparation import TablePreparation
from metarun.tasks.tables.columns import Columns, read_columns
from metarun.tasks.tables.csv_file import CsvFile, open_csv

_SHOWN = 10


@dataclass(frozen=True)
class TableRows:
    """The rows of a file.

    header, rows: as the file has them. inputs: feature -> its values. targets: target -> its values (M,), NaN where a query has none;
    None where the file has no targets. tasks: the task of each row; None where the file has no task column.
    """

    shown: str
    header: tuple[str, ...]
    rows: list[list[str]]
    inputs: dict[str, Sequence[object]]
    targets: dict[str, np.ndarray] | None
    tasks: list[str] | None

    def take(self, places: Sequence[int]) -> dict[str, list[object]]:
        """Return the inputs of some rows, by feature."""
        return {name: [values[place] for place in places] for name, values in self.inputs.items()}


def read_rows(path: str, key: str, prepared: TablePreparation, task_column: str | None, decimal: str | None = None) -> TableRows:
    """Read a CSV file with the columns of a trained table.

    key: "support", whose rows need their targets, or "query". task_column: of the training; the file may lack it. decimal: of the training,
    where numbers may have a decimal comma or commas between thousands. Raises UserError with the line and the column of a bad value.
    """
    needed = [*prepared.features, *(prepared.targets_named if key == "support" else ())]
    with naming(key):
        file = open_csv(path, needed=needed)
        for name in needed:
            if name not in file.header:
                raise UserError(
                    f"{key}={file.path} has no column '{printable(name)}', which the model was trained with; it has "
                    f"{printable(', '.join(file.header))}.{printable(nearest(name, file.header))}"
                )
        asked = [name for name in prepared.targets_named if name in file.header]
        known = asked if len(asked) == len(prepared.targets_named) else []
        columns = _columns(file, prepared, task_column, known, decimal, may_miss=known if key == "query" else [])
        rows = [row for _, row in file.rows()]
    tasks = None
    if task_column in columns.words:
        words = columns.words[str(task_column)]
        tasks = [words.known[code] for code in words.codes.tolist()]
    inputs: dict[str, Sequence[object]] = {}
    for name in prepared.features:
        given = columns.words.get(name)
        inputs[name] = columns.numbers[name].tolist() if given is None else [given.known[code] for code in given.codes.tolist()]
    targets = {name: columns.numbers[name] for name in known}
    usable = bool(targets) and any(np.isfinite(values).any() for values in targets.values())
    return TableRows(file.path, file.header, rows, inputs, targets if usable else None, tasks)


@contextmanager
def naming(key: str) -> Iterator[None]:
    """Let messages about a CSV file name this key of `metarun predict`, in place of those of task=table."""
    try:
        yield
    except UserError as error:
        text = re.sub(r",? or set task\.delimiter=\w+|set task\.decimal=comma, or ", "", str(error).replace("task.path=", f"{key}="))
        text = re.sub(r"; fill it in or remove the row, or .*\.$", "; fill it in or remove the row.", text)
        text = re.sub(r"correct it, name it in task\.categorical, or leave it out of task\.features", "correct it", text)
        raise UserError(text) from error


def unknown_words(rows: Sequence[TableRows], prepared: TablePreparation) -> list[str]:
    """Return a sentence about each column that has words which no training task has."""
    said = []
    for name, words in prepared.words.items():
        values = [str(value) for each in rows for value in each.inputs[name]]
        strange = dict.fromkeys(value for value in values if value and value not in set(words))
        if strange:
            count, shown = sum(value in strange for value in values), printable(", ".join(list(strange)[:_SHOWN]))
            more = ", …" if len(strange) > _SHOWN else ""
            said.append(
                f"the column '{printable(name)}' has words that no training task has ({shown}{more}), in {count} of {len(values)} rows; "
                "all inputs of the column are 0 there, as for new words in a validation"
            )
    return said


def by_task(support: TableRows, query: TableRows, task_column: str) -> dict[str, tuple[list[int], list[int]]]:
    """Return task -> the places of its known rows and of its queries.

    A file without the task column has one task, and so has the pair where the other file names at most one. Raises UserError where a query
    belongs to a task without known rows, or to a task that no column names.
    """
    for one, other, key in ((support, query, "support"), (query, support, "query")):
        named = set(other.tasks or [])
        if one.tasks is None and len(named) > 1:
            raise UserError(
                f"{key}={one.shown} has no column '{printable(task_column)}', and {other.shown} has {len(named)} tasks in it; add the "
                "column, which says which rows belong together."
            )
    if support.tasks is None or query.tasks is None:
        name = next(iter([*(support.tasks or []), *(query.tasks or [])]), "")
        return {name: (list(range(len(support.rows))), list(range(len(query.rows))))}
    missing = list(dict.fromkeys(task for task in query.tasks if task not in set(support.tasks)))
    if missing:
        shown = printable(", ".join(f"'{task}'" for task in missing[:_SHOWN])) + (", …" if len(missing) > _SHOWN else "")
        raise UserError(
            f"{len(missing)} of the {len(set(query.tasks))} tasks of query={query.shown} have no known row in {support.shown}: {shown}; "
            "add rows with their targets there, or leave these queries out."
        )
    places: dict[str, tuple[list[int], list[int]]] = {task: ([], []) for task in dict.fromkeys(query.tasks)}
    for kind, tasks in enumerate((support.tasks, query.tasks)):
        for place, task in enumerate(tasks):
            if task in places:
                places[task][kind].append(place)
    return places


def _columns(
    file: CsvFile, prepared: TablePreparation, task_column: str | None, targets: Sequence[str], decimal: str | None, may_miss: Sequence[str]
) -> Columns:
    """Read the features, the task column, if the file has it, and these targets.

    may_miss: the targets that a row may lack. A row may lack features where the training filled them.
    """
    words = {name: "feature" for name in prepared.features if name in prepared.words}
    if task_column is not None and task_column in file.header:
        words[task_column] = "task"
    numbers = dict.fromkeys([name for name in prepared.features if name not in words], "feature") | dict.fromkeys(targets, "target")
    gaps = [*may_miss, *(prepared.features if prepared.fill.fills else ())]
    try:
        return read_columns(file, words, numbers, may_miss=gaps)
    except UserError:
        if decimal is None:
            raise
        return read_columns(file, words, numbers, decimal, gaps)
