"""Made users: they depend on the seed alone, and their tastes can be learned."""

from __future__ import annotations

import numpy as np

from metarun.tasks.rated.synthetic import FEWEST, MOST, synthetic


def test_equal_seeds_make_equal_ratings_and_other_seeds_make_others():
    first, again, other = synthetic(20, 250, 3), synthetic(20, 250, 3), synthetic(20, 250, 4)
    assert np.array_equal(first.rating, again.rating)
    assert np.array_equal(first.item, again.item)
    assert not np.array_equal(first.item[:50], other.item[:50])


def test_a_user_rates_each_item_once_with_one_to_five_stars():
    data = synthetic(50, 250, 0)
    assert len(set(zip(data.user.tolist(), data.item.tolist(), strict=True))) == len(data.rating)
    assert set(data.rating.tolist()) == {1.0, 2.0, 3.0, 4.0, 5.0}
    counts = np.bincount(data.user)
    assert FEWEST <= counts.min() < counts.max() <= MOST


def test_with_few_items_a_user_rates_at_most_half_of_them():
    assert np.bincount(synthetic(10, 12, 0).user).max() == 6


def test_users_and_items_explain_a_part_of_the_ratings_and_not_all():
    data = synthetic(200, 100, 0)
    total = data.rating.var()
    means = [np.bincount(owner, data.rating) / np.bincount(owner) for owner in (data.user, data.item)]
    for owner, mean in zip((data.user, data.item), means, strict=True):
        assert 0.03 * total < total - (data.rating - mean[owner]).var() < 0.5 * total
