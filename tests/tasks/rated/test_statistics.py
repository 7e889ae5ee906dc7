"""The bias of items by hand."""

from __future__ import annotations

import numpy as np
import pytest
import torch

from metarun.tasks.rated.statistics import SHRINKAGE, item_statistics
from metarun.types import RatingList

ITEM = np.array([0, 0, 1, 0])
RATING = np.array([5.0, 4.0, 3.0, 1.0])
TRAINS = np.array([True, True, True, False])


def found():
    training = RatingList(*(torch.from_numpy(values[TRAINS]) for values in (np.arange(4), ITEM, RATING)))
    return item_statistics(training, 3, ITEM, RATING, TRAINS)


def test_the_bias_is_the_shrunken_mean_of_the_deviations():
    """The mean of 5, 4, 3 is 4. Item 0 has deviations 1 + 0, item 1 has -1, and item 2 has no rating."""
    assert found().mean == 4.0
    assert found().bias == pytest.approx([1 / (2 + SHRINKAGE), -1 / (1 + SHRINKAGE), 0])
    assert found().number.tolist() == [2, 1, 0]


def test_a_training_rating_sees_the_bias_without_itself_and_another_rating_sees_all():
    """Rating 0 sees only the deviation 0 of rating 1; rating 1 sees only 1; rating 2 sees none; rating 3 is no training rating."""
    assert found().rating_bias == pytest.approx([0, 1 / (1 + SHRINKAGE), 0, 1 / (2 + SHRINKAGE)])
    assert found().rating_number.tolist() == [1, 1, 0, 2]
