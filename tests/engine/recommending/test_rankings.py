"""Rankings by hand, and against all orders of tied items."""

from __future__ import annotations

import math
from itertools import permutations

import pytest
import torch

from metarun.engine.recommending.rankings import gains, ndcg, retrieval

NAN, INF = math.nan, math.inf


def ndcg_of(scores: list[float], ratings: list[float], real: list[bool] | None = None) -> dict[str, float]:
    mask = torch.tensor([real or [True] * len(scores)])
    found = ndcg(torch.tensor([scores]), gains(torch.tensor([ratings]), (1, 5)), mask)
    return {name: float(value) for name, value in found.items()}


def test_the_gain_is_two_to_the_rating_less_one():
    assert gains(torch.tensor([1.0, 3.0, 4.5]), (0.5, 5)).tolist() == pytest.approx([1, 7, 2**4.5 - 1])


def test_ratings_of_other_scales_are_brought_into_zero_to_five_stars():
    assert gains(torch.tensor([-10.0, 0.0, 10.0]), (-10, 10)).tolist() == pytest.approx([0, 2**2.5 - 1, 31])
    assert gains(torch.tensor([0.0, 100.0]), (0, 100)).tolist() == [0, 31]
    assert gains(torch.tensor([10.0]), (1, 10)).tolist() == [1023]


def test_ndcg_without_ties():
    """The ratings 2, 3, 1 have gains 3, 7, 1. The order of the scores is 3, 7, 1: DCG@1 = 3, DCG@3 = 3 + 7 / log2 3 + 1 / 2."""
    found = ndcg_of([0.9, 0.5, 0.1], [2, 3, 1])
    log3 = math.log2(3)
    assert found["ndcg@1"] == pytest.approx(3 / 7)
    assert found["ndcg@3"] == pytest.approx((3 + 7 / log3 + 0.5) / (7 + 3 / log3 + 0.5))
    assert found["ndcg@5"] == found["ndcg@3"]


def test_ndcg_of_two_tied_items_is_the_mean_over_both_orders():
    """The gains 3 and 7 are tied on the ranks 1 and 2, so both ranks have the gain 5."""
    found = ndcg_of([0.5, 0.5, 0.1], [2, 3, 1])
    log3 = math.log2(3)
    assert found["ndcg@1"] == pytest.approx(5 / 7)
    assert found["ndcg@3"] == pytest.approx((5 + 5 / log3 + 0.5) / (7 + 3 / log3 + 0.5))


def test_ndcg_of_ties_is_the_mean_over_all_orders_of_the_tied_items():
    scores, ratings = [2.0, 1.0, 1.0, 1.0, 0.0], [1.0, 5.0, 3.0, 2.0, 4.0]
    found, each = ndcg_of(scores, ratings), []
    for order in permutations(range(5)):
        each.append(ndcg_of([score - 0.01 * order[place] for place, score in enumerate(scores)], ratings))
    for name, value in found.items():
        assert value == pytest.approx(sum(one[name] for one in each) / len(each)), name


def test_the_best_order_has_one_and_a_list_of_one_item_too():
    assert list(ndcg_of([3.0, 2.0, 1.0], [5, 4, 1]).values()) == pytest.approx([1, 1, 1])
    assert list(ndcg_of([0.0], [2]).values()) == [1, 1, 1]


def test_padding_takes_no_part():
    assert ndcg_of([9.0, 0.9, 0.5, 0.1], [5, 2, 3, 1], [False, True, True, True]) == ndcg_of([0.9, 0.5, 0.1], [2, 3, 1])


def test_a_score_that_is_no_number_ranks_last_and_before_padding():
    assert ndcg_of([NAN, 0.5, 0.1], [5, 2, 1]) == pytest.approx(ndcg_of([0.0, 0.5, 0.1], [5, 2, 1]))
    assert ndcg_of([-INF, 0.5, 9.0], [5, 2, 1], [True, True, False]) == pytest.approx(ndcg_of([0.0, 0.5], [5, 2]))


def test_a_list_without_a_gain_has_no_ndcg():
    found = ndcg(torch.zeros(1, 2), torch.zeros(1, 2), torch.ones(1, 2, dtype=torch.bool))
    assert all(value.isnan().all() for value in found.values())


def retrieved(scores: list[float], items: list[int], relevant: list[bool], allowed: list[bool] | None = None) -> dict[str, float]:
    mask = torch.tensor([allowed or [True] * len(scores)])
    found = retrieval(torch.tensor([scores]), torch.tensor([items]), torch.tensor([relevant]), mask, (1, 2, 3))
    return {name: float(value) for name, value in found.items()}


def test_retrieval_without_ties():
    """The order of the items is 3, 0, 2, 1. The relevant items 0 and 1 have the ranks 2 and 4."""
    found = retrieved([0.8, 0.1, 0.3, 0.9], [0, 1, 2], [True, True, False])
    assert [found[f"recall@{k}"] for k in (1, 2, 3)] == [0, 0.5, 0.5]
    assert [found[f"hit@{k}"] for k in (1, 2, 3)] == [0, 1, 1]
    assert [found[f"mrr@{k}"] for k in (1, 2, 3)] == [0, 0.5, 0.5]


def test_retrieval_in_random_order():
    """One relevant item of four is in the first k with probability k / 4; MRR@2 = 1/4 · 1 + 1/4 · 1/2."""
    found = retrieved([0.0] * 4, [2], [True])
    assert [found[f"{name}@2"] for name in ("recall", "hit", "mrr")] == pytest.approx([0.5, 0.5, 0.375])


def test_retrieval_with_ties_is_the_mean_over_all_orders_of_the_tied_items():
    scores, items, relevant = [2.0, 1.0, 1.0, 1.0, 0.0], [1, 3, 4, 0], [True, True, True, False]
    found, each = retrieved(scores, items, relevant), []
    for order in permutations(range(5)):
        each.append(retrieved([score - 0.01 * order[place] for place, score in enumerate(scores)], items, relevant))
    for name, value in found.items():
        assert value == pytest.approx(sum(one[name] for one in each) / len(each)), name


def test_only_candidates_are_ranked():
    assert retrieved([9.0, 0.5, 0.1, 8.0], [2], [True], [False, True, True, False])["mrr@2"] == 0.5


def test_without_a_relevant_item_there_is_no_score():
    assert all(math.isnan(value) for value in retrieved([0.1, 0.2], [0, -1], [False, True]).values())


def test_an_item_without_a_finite_score_ranks_last():
    assert retrieved([NAN, 0.2, 0.1], [0], [True])["recall@2"] == 0
    assert retrieved([NAN, 0.2, 0.1], [0], [True])["recall@3"] == 1
