"""Rows of length 1, and a column of ones."""

from __future__ import annotations

import torch

from metarun.algorithms.parts.vectors import unit, with_ones


def test_rows_have_length_one_and_zeros_stay_zeros_with_a_finite_derivative():
    z = torch.tensor([[3.0, 4.0], [0.0, 0.0]], dtype=torch.float64, requires_grad=True)
    rows = unit(z)
    torch.testing.assert_close(rows.detach(), torch.tensor([[0.6, 0.8], [0.0, 0.0]], dtype=torch.float64))
    assert torch.autograd.grad(rows.sum(), z)[0].isfinite().all()


def test_a_column_of_ones_comes_last():
    assert with_ones(torch.tensor([[2.0, 3.0]])).tolist() == [[2.0, 3.0, 1.0]]
