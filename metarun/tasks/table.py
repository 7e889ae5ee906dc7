"""A user's own table as regression tasks: each row is an example, and one column names the task of the row.

Tasks, not rows, are split into train, val and test, so the score is about unseen tasks. The mean and standard deviation of the TRAIN
tasks' rows standardise inputs and targets. Predicting the train tasks' mean therefore gives an mse of about 1.
"""

from __future__ import annotations

import logging
from collections import Counter
from collections.abc import Collection, Mapping, Sequence
from dataclasses import dataclass, field
from itertools import accumulate
from pathlib import Path
from typing import Any, Literal

import numpy as np
import torch
from torch import Tensor

from metarun import draws
from metarun.episodes import first_of
from metarun.errors import UserError, nearest, printable
from metarun.files.paths import expanded
from metarun.tasks.episode_sizes import together
from metarun.tasks.fingerprint import Fingerprint, of_table
from metarun.tasks.points import Points, PointSampling, divide
from metarun.tasks.pool import SPLITS
from metarun.tasks.preparing.table_preparation import TablePreparation, prepared
from metarun.tasks.tables.columns import Columns, Decimal, Words, read_columns
from metarun.tasks.tables.csv_file import CsvFile, Delimiter, looks_like_data, open_csv
from metarun.tasks.tables.missing import Missing, fill_gaps, without_gaps
from metarun.tasks.tables.standardising import Standard, standardised
from metarun.types import Episode
from metarun.values import Listed, Names, Seed, Shares, Text

log = logging.getLogger(__name__)


@dataclass(frozen=True)
class TableTasks:
    """Regression episodes from the rows of tasks: K support and Q query rows of one task, all different.

    x: (M, D), y: (M, D') all rows, standardised; the rows of one task are next to each other.
    tasks: split -> names of its tasks; as the argument `tasks` of `table` it restores the same split.
    skipped: split -> its tasks that are left out because they have too few rows.
    counts: task -> its number of rows, in the order of the rows.
    inputs, targets: the standardisation of raw values, to turn predictions back.
    sampling: shots and queries are rows of an episode. skip_small: whether tasks with too few rows may be left out.
    used: the splits whose episodes must be possible. Another split with too few tasks raises UserError only when it is dealt.
    data: the name of the table, as it begins the names of `origins`. files: the fingerprint of its file; {} where there is none.
    prepared: how raw rows become `x` and `y`; None where that is unknown.
    """

    x: Tensor
    y: Tensor
    tasks: Mapping[str, Sequence[str]]
    counts: Mapping[str, int]
    inputs: Standard
    targets: Standard
    sampling: PointSampling
    skip_small: bool = False
    used: Sequence[str] = SPLITS
    objective: str = "regression"
    data: str = ""
    files: Fingerprint = field(default_factory=dict, repr=False, compare=False)
    prepared: TablePreparation | None = field(default=None, repr=False, compare=False)
    skipped: Mapping[str, Sequence[str]] = field(init=False)
    _used: Mapping[str, tuple[Tensor, Tensor]] = field(init=False, repr=False)
    _said: Mapping[str, str] = field(init=False, repr=False)

    def __post_init__(self) -> None:
        needed = {split: sum(self.sampling.sizes(split)) for split in SPLITS}
        small = {split: [name for name in self.tasks[split] if self.counts[name] < needed[split]] for split in SPLITS}
        used = {split: [name for name in self.tasks[split] if self.counts[name] >= needed[split]] for split in SPLITS}
        left_out = {split for split in SPLITS if small[split] and used[split] and self.skip_small}
        said = {split: self.sampling.too_few(split, {name: self.counts[name] for name in self.tasks[split]}) for split in SPLITS}
        object.__setattr__(self, "_said", {split: said[split] for split in SPLITS if small[split] and split not in left_out})
        if at_once := [sentence for split, sentence in self._said.items() if split in self.used]:
            raise UserError(together(at_once))
        for split in sorted(left_out):
            counts = (len(small[split]), len(self.tasks[split]), split, needed[split])
            log.warning("%d of the %d %s tasks have fewer than %d rows and are left out", *counts)
        object.__setattr__(self, "skipped", small)
        ends = accumulate(self.counts.values())
        start = {name: end - count for (name, count), end in zip(self.counts.items(), ends, strict=True)}
        object.__setattr__(
            self,
            "_used",
            {split: tuple(torch.tensor([of[name] for name in used[split]]) for of in (start, self.counts)) for split in SPLITS},
        )

    def episode(self, split: str, index: int) -> Episode:
        """Deal episode `index`: x (K, D) and y (K, D') of the support, (Q, D) and (Q, D') of the query."""
        return first_of(self.batch(split, torch.tensor([index])))

    def batch(self, split: str, indices: Tensor) -> Episode:
        """Deal the episodes `indices` (T,) at once, with a leading axis T."""
        key = self.sampling.key(split, indices)
        if split in self._said:
            raise UserError(self._said[split])
        shots, queries = self.sampling.sizes(split)
        starts, counts = self._used[split]
        task = draws.integers(draws.fold(key, "task"), size=len(starts))
        rows = starts[task][:, None] + draws.distinct(draws.fold(key, "rows"), shots + queries, counts[task])
        x, y = (values.index_select(0, rows.flatten()).unflatten(0, rows.shape) for values in (self.x, self.y))
        return divide(x, y, shots, self.sampling.used(split, key))

    def origins(self, split: str) -> tuple[str, ...]:
        """Return the names of the split's tasks behind the name of the table, without the tasks that are left out."""
        names = [name for name in self.tasks[split] if name not in set(self.skipped[split])]
        return tuple(f"{self.data}/{name}" if self.data else name for name in names)

    def fingerprint(self) -> Fingerprint:
        """Return the fingerprint of the file."""
        return {**self.files, "name": self.data} if self.files else {}

    def units(self) -> dict[str, float]:
        """Return target -> the standard deviation that standardises it; {} where the preparation is unknown."""
        known = self.prepared
        return {} if known is None else dict(zip(known.targets_named, known.target_deviations, strict=True))

    def preparation(self) -> TablePreparation | None:
        """Return how raw rows become inputs and targets."""
        return self.prepared

    def population(self, split: str) -> int:
        """Return the number of tasks of a split."""
        return len(self._used[split][0])


def table(
    *,
    path: Text,
    task_column: Text,
    target: Text | Names,
    features: Names | None = None,
    categorical: Sequence[Text] = (),
    delimiter: Delimiter | None = None,
    decimal: Decimal | None = None,
    missing: Missing = "refuse",
    missing_target: Literal["refuse", "drop"] = "refuse",
    split: Shares = (0.7, 0.15, 0.15),
    split_seed: Seed = 0,
    tasks: Mapping[str, Listed] | None = None,
    skip_small: bool = False,
    used: Sequence[str] = SPLITS,
    data: str | None = None,
    **sampling: Points,
) -> TableTasks:
    """Read a CSV file with a header line as regression tasks: x (B, D) and y (B, number of targets), both standardised.

    task_column: names the task of a row. target: one column or several. features: the input columns; None for all others.
    categorical: the features that hold words; each becomes one 0/1 input per word of the train tasks.
    delimiter, decimal: see `open_csv` and `read_columns`; None finds them. missing, missing_target: see `metarun.tasks.tables.missing`.
    split: shares of the tasks for train, val and test, dealt in an order of `split_seed`. tasks: each split's tasks by name, instead.
    skip_small: leave out tasks with too few rows. used: see `TableTasks`.
    sampling: the keys of `PointSampling`; shots and queries are rows, 10 queries by default. data: names the table instead of its file.
    Raises UserError for columns that do not exist, values that are missing, no numbers or outlandish, and tasks too small or too few.
    """
    targets = [target] if isinstance(target, str) else list(target)
    inputs = _columns(file := open_csv(path, delimiter, [task_column, *targets]), task_column, targets, features, categorical)
    columns = _read(file, task_column, inputs, targets, categorical, decimal, missing, missing_target)
    splits, train = _divided(named := columns.words[task_column], tasks, split, split_seed)
    order = np.argsort(named.codes, kind="stable")  # the rows of one task next to each other, tasks as they first occur
    columns, filled, fill = fill_gaps(columns, inputs, train, missing)
    (x, encoder), (y, decoder) = (standardised(columns, order, train, *each) for each in ((filled, "feature"), (targets, "target")))
    counts = dict(zip(named.known, np.bincount(named.codes).tolist(), strict=True))
    facts: dict[str, Any] = {"data": Path(path).stem if data is None else data, "files": of_table(expanded(path), len(order), len(counts))}
    facts["prepared"] = prepared(columns, train, (inputs, targets), (encoder, decoder), fill)
    return TableTasks(x, y, splits, counts, encoder, decoder, PointSampling.of(sampling, queries=10), skip_small, used, **facts)


def _read(
    file: CsvFile,
    task_column: str,
    inputs: Sequence[str],
    targets: Sequence[str],
    categorical: Sequence[str],
    decimal: str | None,
    missing: str,
    missing_target: str,
) -> Columns:
    """Return the columns, without the rows that the rules for missing values leave out."""
    words = {task_column: "task"} | dict.fromkeys(categorical, "feature")
    numbers = dict.fromkeys([name for name in inputs if name not in categorical], "feature") | dict.fromkeys(targets, "target")
    may_miss = {*(inputs if missing != "refuse" else ()), *(targets if missing_target == "drop" else ())}
    return without_gaps(read_columns(file, words, numbers, decimal, may_miss), inputs, targets, missing, missing_target)


def _columns(
    file: CsvFile, task_column: str, targets: Sequence[str], features: Sequence[str] | None, categorical: Sequence[str]
) -> list[str]:
    """Return the input columns, having checked that every column named exists."""
    header, known = list(file.header), set(file.header)
    named = {"task_column": [task_column], "target": targets, "features": features or [], "categorical": categorical}
    for key, names in named.items():
        for name in names:
            if name not in known:
                shown = printable(", ".join(header))
                hint = (
                    " The first line must be a header with the names of the columns." if looks_like_data(header) else nearest(name, header)
                )
                raise UserError(f"task.{key}: the table has no column '{printable(name)}'; it has {shown}.{printable(hint)}")
        if twice := [name for name in names if list(names).count(name) > 1]:
            raise UserError(f"task.{key} names '{printable(twice[0])}' more than once; name each column once.")
    columns = [name for name in header if name != task_column and name not in targets] if features is None else list(features)
    taken = [name for name in columns if name in targets or name == task_column]
    if taken:
        raise UserError(f"task.features names '{taken[0]}', which is the task column or a target; leave it out.")
    if not columns:
        raise UserError("the table has no column left for the inputs; it needs one beside the task column and the target.")
    stray = [name for name in categorical if name not in columns]
    if stray:
        raise UserError(f"task.categorical names '{stray[0]}', which is not among the inputs {', '.join(columns)}.")
    return columns


def _divided(
    named: Words, tasks: Mapping[str, Sequence[str]] | None, shares: Sequence[float], seed: int
) -> tuple[dict[str, list[str]], np.ndarray]:
    """Return the tasks of each split, and which rows belong to training tasks, (M,) bool. named: the column of the tasks."""
    splits = _split(sorted(named.known), shares, seed) if tasks is None else _checked(tasks, named.known)
    return splits, np.isin(named.codes, [code for code, name in enumerate(named.known) if name in set(splits["train"])])


def _split(names: Sequence[str], shares: Sequence[float], seed: int) -> dict[str, list[str]]:
    """Deal the tasks, in a seeded order, to train, val and test by their shares; each gets at least one."""
    numbers = [share for share in shares if isinstance(share, int | float)]
    if len(shares) != 3 or len(numbers) != 3 or min(numbers) <= 0 or abs(sum(numbers) - 1) > 1e-6:
        raise UserError(f"task.split={list(shares)} must be three shares above 0 that sum to 1, for example [0.7, 0.15, 0.15].")
    if len(names) < 3:
        raise UserError(f"the table has {len(names)} tasks; a split into train, val and test needs at least 3. Is task.task_column right?")
    order = draws.permutation(draws.key(seed, "split"), len(names)).tolist()
    val, test = (max(1, round(share * len(names))) for share in shares[1:])
    train = max(1, len(names) - val - test)
    edges = (0, train, len(names) - min(test, len(names) - train - 1), len(names))
    return {split: [names[i] for i in order[a:b]] for split, a, b in zip(SPLITS, edges, edges[1:], strict=False)}


def _checked(tasks: Mapping[str, Sequence[str]], known: Collection[str]) -> dict[str, list[str]]:
    """Return the split that the user gives by name; UserError for a name that the table lacks or that occurs twice."""
    if set(tasks) != set(SPLITS):
        raise UserError(f"task.tasks has the splits {', '.join(tasks)}; it needs {', '.join(SPLITS)}.")
    chosen = {split: [str(name) for name in tasks[split]] for split in SPLITS}
    for name, occurrences in Counter(name for names in chosen.values() for name in names).items():
        if name not in known:
            raise UserError(f"task.tasks names '{printable(name)}', but the table has no row of this task; correct the name.")
        if occurrences > 1:
            raise UserError(f"task.tasks names '{printable(name)}' {occurrences} times; a task belongs to one split.")
    empty = [split for split in SPLITS if not chosen[split]]
    if empty:
        raise UserError(f"task.tasks has no task for {empty[0]}; each split needs at least one.")
    return chosen
