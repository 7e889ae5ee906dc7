from __future__ import annotations

from typing import Any

import numpy as np
import pytest
import torch

from metarun.commands.labels import plain_labels
from metarun.errors import UserError


@pytest.mark.parametrize("y", [["a", 1], np.array(["a", "b"]), torch.tensor([3, 4]), (np.int64(2), torch.tensor(5))])
def test_labels_become_plain_hashable_values(y: Any):
    assert all(type(label) in (str, int) for label in plain_labels(y))


@pytest.mark.parametrize("y", ["ab", {"a": 1}, {1, 2}, 3, [], [float("nan")], [[1]]])
def test_values_that_are_no_labels_are_refused(y: Any):
    with pytest.raises(UserError, match=r"label|give a list"):
        plain_labels(y)
