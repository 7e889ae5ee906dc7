"""Support and query ratings: their numbers, without a rating in both, and in random order."""

from __future__ import annotations

import numpy as np
import torch

from metarun import draws
from metarun.tasks.rated.episodes import Pools, Sizes, choose, pools

TEN = Pools(torch.tensor([0, 1]), torch.tensor([list(range(10)), [20, 21, 22, 23, *6 * [-1]]]))
MANY = torch.arange(300)


def drawn(sizes: Sizes, pools: Pools = TEN, user: int = 0):
    return choose(pools, sizes, sizes.counts(pools), torch.full((300,), user), draws.key(0, MANY))


def test_pools_list_the_ratings_of_each_user_and_pad():
    found = pools(np.array([2, 0]), np.array([0, 2, 2, 1, 0, 2]), np.array([1, 1, 1, 1, 1, 0], dtype=bool), None)
    assert found.support.tolist() == [[1, 2], [0, 4]]
    assert found.query is None


def test_shots_and_queries_are_different_ratings():
    support, query = drawn(Sizes(4, 3))
    assert support.shape == (300, 4)
    assert query.shape == (300, 3)
    assert all(len(set(row)) == 7 for row in torch.cat([support, query], dim=1).tolist())


def test_each_rating_is_drawn_equally_often():
    """300 episodes with 3 of 10 queries: 90 times each, with a standard deviation of 8."""
    counts = torch.bincount(drawn(Sizes(4, 3))[1].flatten(), minlength=10)
    assert counts.min() > 55
    assert counts.max() < 125


def test_the_rest_is_all_that_the_other_part_leaves():
    for sizes, widths in ((Sizes("rest", 3), (7, 3)), (Sizes(4, "rest"), (4, 6))):
        support, query = drawn(sizes)
        assert (support.shape[1], query.shape[1]) == widths
        assert all(sorted(row) == list(range(10)) for row in torch.cat([support, query], dim=1).tolist())


def test_a_shorter_user_is_padded():
    support, query = drawn(Sizes("rest", 3), user=1)
    assert ((support >= 0).sum(dim=1) == 1).all()
    assert (support[:, 1:] == -1).all()
    assert (query >= 20).all()


def test_at_most_so_many_ratings_take_part():
    support, query = drawn(Sizes("rest", 3, most=5))
    assert support.shape[1] == 2
    assert len(query[0]) == 3


def test_the_queries_do_not_depend_on_the_shots():
    assert torch.equal(drawn(Sizes(4, 3))[1], drawn(Sizes("rest", 3))[1])


def test_support_and_query_may_come_from_different_ratings():
    apart = Pools(torch.tensor([0]), torch.tensor([[0, 1, 2, 3]]), torch.tensor([[8, 9, -1]]))
    support, query = drawn(Sizes(3, 10), apart)
    assert support.max() <= 3
    assert [sorted(row) for row in query.tolist()] == 300 * [[8, 9]]


def test_the_least_number_of_ratings_counts_one_for_the_rest():
    assert [Sizes(5, 10).least, Sizes("rest", 10).least, Sizes(5, "rest").least] == [15, 11, 6]
