"""The baselines by hand, and the choice of the shrinkage."""

from __future__ import annotations

import gc

import numpy as np
import pytest
import torch

from metarun.engine.recommending import baselines
from metarun.engine.recommending.baselines import biases_of, fit, item_biases, joint_biases, user_bias
from metarun.errors import UserError
from metarun.tasks.ratings import ratings
from metarun.types import Rated, RatingList

KNOWN = RatingList(torch.tensor([0, 0, 1, 1]), torch.tensor([0, 1, 0, 2]), torch.tensor([5.0, 4.0, 4.0, 3.0], dtype=torch.float64))
"""The mean is 4. Item 0 has 5 and 4, item 1 has 4, item 2 has 3, and item 3 has no rating."""


def rated(support: list[list[int]], given: list[list[float]], query: list[list[int]], true: list[list[float]]) -> Rated:
    double = [torch.tensor(values, dtype=torch.float64) for values in (given, true)]
    return Rated(torch.arange(len(query)), torch.tensor(support), torch.tensor(query), *double, torch.zeros(len(query), len(query[0])))


class Source:
    """A source with these validation users, or with none."""

    def __init__(self, val: Rated | None) -> None:
        self.val = val

    def training_ratings(self) -> RatingList:
        return KNOWN

    def item_offsets(self) -> torch.Tensor:
        return torch.zeros(4)

    def scale(self) -> tuple[float, float]:
        return 1.0, 5.0

    def rated(self, split: str, indices: torch.Tensor) -> Rated:
        assert split == "val", "the shrinkage must never be chosen on test users"
        if self.val is None:
            raise UserError("no user")
        return self.val


NEW = rated([[0, 2, -1]], [[5.0, 4.0, torch.nan]], [[1, 3]], [[5.0, 5.0]])


def test_an_item_bias_is_the_sum_of_the_deviations_over_count_and_shrinkage():
    assert item_biases(KNOWN, 4, 1.0).tolist() == pytest.approx([1 / 3, 0, -1 / 2, 0])
    assert item_biases(KNOWN, 4, 0.5).tolist() == pytest.approx([1 / 2.5, 0, -1 / 1.5, 0])


def test_a_user_bias_is_what_the_support_leaves_over_count_and_shrinkage():
    """Expected are 4 and 3, given 5 and 4: the sum of the differences is 2, over 2 ratings and a shrinkage of 3."""
    assert user_bias(NEW, torch.tensor([[4.0, 3.0, 99.0]]), 3.0).tolist() == [pytest.approx([2 / 5])]


def test_the_joint_biases_are_the_minimum_of_the_regularised_squares(monkeypatch: pytest.MonkeyPatch):
    """With many rounds they solve the normal equations of b_u and b_i."""
    matrix, right = np.diag([3.0] * 2 + [2.0] * 4), np.zeros(6)
    for user, item, rating in zip(*(values.tolist() for values in KNOWN), strict=True):
        row = np.zeros(6)
        row[[user, 2 + item]] = 1
        matrix += np.outer(row, row)
        right += row * (rating - 4)
    exact = np.linalg.solve(matrix, right)[2:].tolist()
    assert joint_biases(KNOWN, 4, [(2.0, 3.0)])[0].tolist() == pytest.approx(exact, abs=1e-3)
    monkeypatch.setattr(baselines, "ROUNDS", 60)
    assert joint_biases(KNOWN, 4, [(2.0, 3.0)])[0].tolist() == pytest.approx(exact, abs=1e-9)


def test_each_baseline_predicts_what_it_says():
    predicted = {name: values[0].tolist() for name, values in fit(Source(NEW), [1.0]).predictions(NEW).items()}
    joint = joint_biases(KNOWN, 4, [(7.0, 7.0), (1.0, 1.0)])[1].tolist()
    own = (1 - joint[0] + 0 - joint[2]) / 3
    assert predicted["global_mean"] == [4, 4]
    assert predicted["support_mean"] == [4.5, 4.5]
    assert predicted["item_bias"] == pytest.approx([4, 4])
    assert predicted["item_user_bias"] == pytest.approx([4 + joint[1] + own, 4 + own])
    assert predicted["popularity"] == [1, 0]
    assert len(set(predicted["random_order"])) == 1


def test_a_ranking_of_all_items_is_by_bias_or_by_popularity_or_all_are_tied():
    orders = fit(Source(NEW), [1.0]).orders()
    assert orders["popularity"].tolist() == [2, 1, 1, 0]
    assert orders["item_bias"].tolist() == pytest.approx([1 / 3, 0, -1 / 2, 0])
    assert orders["random_order"].unique().numel() == 1


def test_the_shrinkage_with_the_least_error_on_validation_users_is_chosen():
    """A user who rates all items one star above the mean wants a bias that is hardly shrunken; one at the mean wants none."""
    assert fit(Source(NEW), [0.1, 100.0]).shrinkage["user"] == 0.1
    plain = rated([[0, 2, -1]], [[5.0, 4.0, torch.nan]], [[1, 3]], [[4.0, 4.0]])
    assert fit(Source(plain), [0.1, 100.0]).shrinkage["user"] == 100.0


def test_without_a_validation_user_the_usual_shrinkage_is_taken():
    found = fit(Source(None), [1.0, 5.0])
    assert not found.chosen
    assert set(found.shrinkage.values()) == {5.0}


def test_a_source_is_fitted_once_and_forgotten_with_the_source(monkeypatch: pytest.MonkeyPatch):
    calls = []
    monkeypatch.setattr(baselines, "fit", lambda source: calls.append(source.scale()))
    source = ratings(made_users=30, made_items=60)
    place = id(source)
    assert biases_of(source) is biases_of(source)
    assert len(calls) == 1
    assert place in baselines._FITTED
    del source
    gc.collect()
    assert place not in baselines._FITTED


def test_the_ratings_of_test_users_change_no_bias():
    source = ratings(made_users=60, made_items=100)
    first = fit(source, [2.0])
    source.data.rating[np.isin(source.data.user, source.who.pools["test"].users.numpy())] = 1.0
    again = fit(source, [2.0])
    assert torch.equal(first.item, again.item)
    assert first.mean == again.mean
