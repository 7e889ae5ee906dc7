from __future__ import annotations

import numpy as np
import pytest
import torch

from metarun.errors import UserError
from metarun.tasks.tables.raw_numbers import numbers_of, rows_of


@pytest.mark.parametrize("values", [[1, 2.5], (1, 2.5), np.array([1, 2.5], np.float16), torch.tensor([1, 2.5])], ids=str)
def test_numbers_of_every_usual_form_become_one_tensor(values: object):
    assert numbers_of(values, "x").tolist() == [1, 2.5]
    assert rows_of(values, 1).shape == (2, 1)


@pytest.mark.parametrize("values", [["a"], [[1], [1, 2]], 3, {"a": 1}, None], ids=str)
def test_other_values_are_one_sentence(values: object):
    with pytest.raises(UserError, match=r"^x (must be numbers|is one number)"):
        numbers_of(values, "x")


def test_a_value_that_is_not_finite_is_named_with_its_example():
    with pytest.raises(UserError, match="no finite number, in example 2"):
        numbers_of([[1, 2], [3, 4], [float("nan"), 5]], "x")


def test_targets_have_the_columns_of_the_model():
    with pytest.raises(UserError, match=r"y has shape \(2, 3\); it must have 2 numbers for each example"):
        rows_of(torch.zeros(2, 3), 2)
