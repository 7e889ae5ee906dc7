"""Columns as standardised numbers, by hand."""

from __future__ import annotations

import numpy as np
import torch

from metarun.tasks.tables.columns import Columns, Words
from metarun.tasks.tables.standardising import Standard, standardised


def test_training_rows_give_mean_and_deviation_and_words_become_columns() -> None:
    """Training values 1 and 3: mean 2, deviation 1. Word q occurs in no training row, so it has no input."""
    words = Words(np.array([0, 0, 1]), ["p", "q"])
    columns = Columns("t.csv", np.arange(2, 5), {"w": words}, {"x": np.array([1.0, 3.0, 6.0])})
    values, standard = standardised(columns, np.array([2, 0, 1]), np.array([True, True, False]), ["x", "w"], "feature")
    assert values.tolist() == [[4.0, -1.0], [-1.0, 0.0], [1.0, 0.0]]
    assert (standard.mean.tolist(), standard.std.tolist()) == ([2.0, 1.0], [1.0, 1.0])


def test_a_constant_column_has_deviation_1() -> None:
    standard = Standard.of(torch.tensor([[5.0, 1.0], [5.0, 3.0]], dtype=torch.float64))
    assert standard.std.tolist() == [1.0, 1.0]
    assert standard(torch.tensor([[7.0, 4.0]], dtype=torch.float64)).tolist() == [[2.0, 2.0]]
