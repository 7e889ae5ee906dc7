"""The shapes of a run's examples, from which metarun builds its algorithm again without its data."""

from __future__ import annotations

import math
from collections.abc import Mapping
from dataclasses import dataclass
from typing import Any

import torch
from torch import Tensor

from metarun import draws
from metarun.errors import UserError
from metarun.objectives import CLASSIFICATION, REGRESSION
from metarun.tasks.sampling import LABELS
from metarun.types import Episode, Examples, TaskSource, WithTrainLabels
from metarun.wiring.stored import LARGEST

ROWS = 8
"""Examples in a set that stands for an episode's."""
COLUMNS, UNSEEN = 1_000_000, 10_000
"""The largest number of columns of y, and the largest number that need not be the size of an axis of a tensor of the checkpoint."""


@dataclass(frozen=True)
class Shapes:
    """inputs: of one input. columns: of y, by split. objective: of the tasks. train_labels: see `WithTrainLabels`; None where unknown.

    An object is a task source too: its episodes have these shapes, and stand for those of the data.
    """

    objective: str
    inputs: tuple[int, ...]
    columns: Mapping[str, int]
    train_labels: str | None = None

    @staticmethod
    def of(source: TaskSource) -> Shapes:
        """Return the shapes of the first episodes of a source."""
        shown = {split: source.episode(split, 0).support for split in ("train", "val")}
        labels = source.train_labels if isinstance(source, WithTrainLabels) else None
        columns = {split: each.y.shape[-1] for split, each in shown.items()}
        return Shapes(source.objective, tuple(shown["train"].x.shape[1:]), columns, labels)

    def stored(self) -> dict[str, Any]:
        """Return the plain values for a checkpoint."""
        return {**vars(self), "inputs": list(self.inputs), "columns": dict(self.columns)}

    def episode(self, split: str, index: int) -> Episode:
        """Return an episode of the shapes of "train" or "val": a few examples with values in [0, 1], labels in turn."""
        columns = self.columns[split]
        labels = torch.eye(ROWS, columns) if columns >= ROWS else torch.eye(columns).repeat(-(-ROWS // columns), 1)[:ROWS]

        def examples(name: str) -> Examples:
            key = draws.key(0, "shapes", split, index, name)
            y = labels if self.objective == CLASSIFICATION.kind else draws.normal(draws.fold(key, "y"), ROWS, columns)
            classes: Tensor | None = torch.full((columns,), -1) if self.objective == CLASSIFICATION.kind else None
            return Examples(draws.uniform(draws.fold(key, "x"), ROWS, *self.inputs), y, None, classes)

        return Episode(examples("support"), examples("query"))


def shapes_of(stored: Mapping[str, Any], tensors: Mapping[str, Tensor], input_shape: Any = None) -> Shapes:
    """Return the shapes of a checkpoint, which a stranger may have written. tensors: of the checkpoint.
    input_shape: of its config, which `metarun.wiring.sizes` has checked; None for none.

    Raises UserError for values that are no shapes, and for sizes that would need much memory and that no tensor of the checkpoint has.
    """
    objective, labels = stored.get("objective"), stored.get("train_labels")
    inputs: Any = stored.get("inputs")
    columns: Any = stored.get("columns")
    good = objective in (CLASSIFICATION.kind, REGRESSION.kind) and labels in (None, *LABELS)
    good = good and type(inputs) is list and bool(inputs) and all(type(each) is int and each > 0 for each in inputs)
    good = good and math.prod(inputs) <= LARGEST and type(columns) is dict and set(columns) == {"train", "val"}
    good = good and all(type(each) is int and 1 <= each <= COLUMNS for each in columns.values())
    if good:
        known = {length for value in tensors.values() for length in value.shape}
        good = all(each <= UNSEEN or each in known for each in columns.values()) and input_shape in (None, inputs)
    if not good:
        raise UserError("the checkpoint describes the shapes of its examples in a way that this metarun cannot read; take another one.")
    return Shapes(str(objective), tuple(inputs), dict(columns), labels)
