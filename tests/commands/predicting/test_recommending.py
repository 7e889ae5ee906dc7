from __future__ import annotations

from typing import Any

import numpy as np
import pytest
from small_ratings import FILMS

from metarun.commands.predicting.recommending import Recommendation, added_to, ranked, recommended
from metarun.errors import UserError


def by_length(x: Any) -> np.ndarray:
    """Predict the length of the identifier, so 1 for "1" and 2 for the others."""
    return np.array([float(len(name)) for name in x["item"]])


def test_the_best_item_that_the_user_has_not_rated_comes_first():
    """Items 90 and 91 have equal predictions, and stay in the order of the catalogue."""
    found = recommended(FILMS, {"item": ["Heat"], "gender": "F"}, by_length, 2)
    assert found == [Recommendation("90", "Sabrina (1954)", 2.0), Recommendation("91", "Sabrina (1995)", 2.0)]
    assert [each.item for each in recommended(FILMS, ["Heat"], by_length, None)] == ["90", "91", "1"]


def test_facts_about_the_user_reach_the_model():
    seen = []
    recommended(FILMS, {"item": ["Heat"], "gender": "F"}, lambda x: seen.append(x) or by_length(x), 1)
    assert seen == [{"gender": "F", "item": ["1", "90", "91"]}]


def test_ratings_are_cut_to_the_scale_and_the_order_is_not():
    found = ranked(FILMS, [0, 1], {}, lambda x: np.array([[7.0], [9.0]]))
    assert [(each.item, each.rating) for each in found] == [("50", 5.0), ("1", 5.0)]


def test_a_user_who_has_rated_everything_is_told_so():
    with pytest.raises(UserError, match="has rated all 4 items"):
        recommended(FILMS, list(FILMS.names), by_length, 10)


@pytest.mark.parametrize("top", [0, -1, 1.5, True, "ten"])
def test_a_top_that_is_no_number_of_items_is_refused(top: Any):
    with pytest.raises(UserError, match="whole number from 1"):
        recommended(FILMS, ["Heat"], by_length, top)


def test_a_model_of_other_inputs_recommends_nothing():
    with pytest.raises(UserError, match="ranks items for a user"):
        recommended(None, [], by_length, 10)
    assert added_to(None, []) is None


def test_predictions_that_are_not_finite_are_refused():
    with pytest.raises(UserError, match="diverged"):
        ranked(FILMS, [0], {}, lambda x: np.array([np.nan]))
