"""Columns of a table as standardised numbers: by the mean and the deviation of the training rows, words as 0/1 inputs."""

from __future__ import annotations

from collections.abc import Sequence
from dataclasses import dataclass

import numpy as np
import torch
from torch import Tensor

from metarun.errors import UserError, printable
from metarun.tasks.tables.columns import Columns, Words, check_range

_MOST_BYTES = 8 << 30
"""The most that the inputs of a table may need in RAM where words make some of them."""


@dataclass(frozen=True)
class Standard:
    """Standardises columns: (raw - mean) / std; constant columns have std 1."""

    mean: Tensor
    std: Tensor

    @staticmethod
    def of(rows: Tensor) -> Standard:
        """Return the mean and standard deviation of each column of `rows` (M, D)."""
        std, mean = torch.std_mean(rows, dim=0, correction=0)
        constant = rows.amin(dim=0) == rows.amax(dim=0)  # a deviation of 0 alone may come from differences whose squares are 0
        return Standard(mean, torch.where(constant, 1.0, std))

    def __call__(self, raw: Tensor) -> Tensor:
        """Return the standardised values in single precision."""
        return ((raw - self.mean) / self.std).to(torch.float32)


def standardised(columns: Columns, order: np.ndarray, train: np.ndarray, names: Sequence[str], role: str) -> tuple[Tensor, Standard]:
    """Return the columns in this order of rows, (M, D) float32, and their standardisation by the training rows."""
    for name in [name for name in names if name in columns.numbers]:
        check_range(columns.numbers[name], columns.lines, name, role, columns.path)
    _check_size(columns, train, names)
    in_train, parts = torch.from_numpy(train[order]), list[tuple[str, Tensor]]()
    for name in names:
        if name in columns.words:
            parts += [(name, column) for column in _one_hot(columns.words[name], order, train)]
        else:
            parts.append((name, torch.from_numpy(columns.numbers[name][order])))
    raw = torch.stack([column for _, column in parts], dim=1)
    standard = Standard.of(raw[in_train])
    values = standard(raw)
    good = torch.isfinite(standard.std) & (standard.std > 0)
    for place in torch.nonzero(~(good & torch.isfinite(values).all(dim=0))).flatten().tolist():
        row = int(torch.nonzero(~torch.isfinite(values[:, place])).flatten()[0]) if good[place] else int(raw[:, place].abs().argmax())
        raise UserError(
            f"the {role} column '{printable(parts[place][0])}' of {columns.path} cannot be standardised by its training rows: its value "
            f"{raw[row, place].item():.6g} in line {columns.lines[order[row]]} is too large or too small; scale the column or correct it."
        )
    return values, standard


def _check_size(columns: Columns, train: np.ndarray, names: Sequence[str]) -> None:
    """Raise UserError where the inputs of words would need more than `_MOST_BYTES`."""
    sizes = {name: len(np.unique(columns.words[name].codes[train])) for name in names if name in columns.words}
    needed = 8 * len(train) * (len(names) - len(sizes) + sum(sizes.values()))
    if sizes and needed > _MOST_BYTES:
        name = max(sizes, key=lambda each: sizes[each])
        raise UserError(
            f"task.categorical names '{printable(name)}', which has {sizes[name]:,} words in the training tasks; one input for each word "
            f"needs {needed / 1e9:,.1f} GB for {len(train):,} rows. Leave the column out of task.features."
        )


def _one_hot(words: Words, order: np.ndarray, train: np.ndarray) -> list[Tensor]:
    """Return one 0/1 column (M,) per word of the training rows, in the order of the words."""
    codes, in_train = torch.from_numpy(words.codes[order]), set(np.unique(words.codes[train]).tolist())
    return [(codes == code).to(torch.float64) for code in sorted(in_train, key=lambda code: words.known[code])]
