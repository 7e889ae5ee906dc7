"""The bias and the number of ratings of each item, from the training ratings: as inputs, or as the offset of the targets.

The bias of item i is the shrunken mean of the deviations from the mean μ of all training ratings:

    b_i = Σ_u (r_ui - μ) / (n_i + SHRINKAGE)

For a training rating, the sum and n_i leave out this rating itself. Otherwise the input of a training query would contain its target.
"""

from __future__ import annotations

from typing import NamedTuple

import numpy as np

from metarun.types import RatingList

SHRINKAGE = 5.0
"""Ratings of a typical item that the shrinkage weighs as much as."""


class ItemStatistics(NamedTuple):
    """The statistics of items.

    mean: of all training ratings. bias, number: (I,) of the items. rating_bias, rating_number: (R,) of the item of each rating, without
    this rating where it trains.
    """

    mean: float
    bias: np.ndarray
    number: np.ndarray
    rating_bias: np.ndarray
    rating_number: np.ndarray


def item_statistics(training: RatingList, items: int, item: np.ndarray, rating: np.ndarray, trains: np.ndarray) -> ItemStatistics:
    """Return the statistics of `items` items.

    training: the ratings that count. item, rating: (R,) all ratings of the data. trains: (R,) bool, those that `training` has.
    """
    mean = float(training.rating.mean())
    places, deviations = training.item.numpy(), training.rating.numpy() - mean
    sums, counts = np.bincount(places, deviations, items), np.bincount(places, minlength=items).astype(np.float64)
    others = sums[item] - np.where(trains, rating - mean, 0.0)
    number = counts[item] - trains
    return ItemStatistics(mean, sums / (counts + SHRINKAGE), counts, others / (number + SHRINKAGE), number)
