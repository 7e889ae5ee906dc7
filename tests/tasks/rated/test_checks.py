"""Checks of ratings: each problem is one sentence with the numbers and the remedy."""

from __future__ import annotations

import numpy as np
import pytest

from metarun.errors import UserError
from metarun.tasks.rated.checks import Raw, once, within


def raw(*ratings: tuple[int, int, float]) -> Raw:
    """Ratings (user, item, rating) on the lines 2, 3, …"""
    user, item, rating = (np.array(column) for column in zip(*ratings, strict=True))
    names = [[f"{kind}{n}" for n in range(9)] for kind in "ui"]
    return Raw("x.csv", np.arange(2, 2 + len(ratings)), user, item, rating.astype(float), *names)


def test_without_a_scale_the_ratings_give_it():
    assert within(raw((0, 0, 2), (0, 1, 4.5)), None)[1] == (2, 4.5)


def test_a_rating_outside_of_the_scale_is_refused_with_its_line_or_left_out(caplog: pytest.LogCaptureFixture):
    given = raw((0, 0, 2), (0, 1, 4), (1, 1, 7), (1, 2, 0))
    with pytest.raises(UserError, match=r"2 ratings of x.csv outside of 1 to 5, such as 7 on line 4; .* task.scale=.* task.outside=drop"):
        within(given, (1, 5))
    kept, scale = within(given, (1, 5), "drop")
    assert kept.rating.tolist() == [2, 4]
    assert scale == (1, 5)
    assert "2 of the 4 ratings of x.csv lie outside of 1 to 5 and are left out" in caplog.text


@pytest.mark.parametrize(("far", "shown"), [(99, "99"), (-20, "-20")])
def test_a_rating_apart_from_all_others_is_refused_where_no_scale_is_given(far: float, shown: str):
    given = raw((0, 0, 1), (0, 1, 2), (0, 2, 3), (1, 1, far))
    with pytest.raises(UserError, match=rf"line 5 of x.csv has the rating {shown}, while all others lie in \[1, 3\]; correct it, or"):
        within(given, None)
    assert within(given, (-50, 100))[1] == (-50, 100)


def test_ratings_that_are_all_equal_or_none_are_refused():
    with pytest.raises(UserError, match=r"only ratings of 3 in the column 'rating', so there is nothing to learn; is task.rating right"):
        within(raw((0, 0, 3), (0, 1, 3)), None)
    with pytest.raises(UserError, match="has no rating"):
        within(raw((0, 0, 3)), (4, 5), "drop")


TWICE = raw((0, 0, 2), (0, 1, 4), (1, 0, 5), (0, 0, 3), (0, 0, 4))


def test_two_ratings_of_a_pair_are_refused_with_their_lines():
    with pytest.raises(UserError, match=r"1 pair of .* such as user 'u0' and item 'i0' on lines 2 and 5; remove all but one"):
        once(TWICE, "refuse")


@pytest.mark.parametrize(("rule", "rating"), [("first", 2), ("last", 4), ("mean", 3)])
def test_one_rating_of_a_pair_remains(rule, rating: float):
    kept = once(TWICE, rule)
    found = {(user, item): value for user, item, value in zip(kept.user.tolist(), kept.item.tolist(), kept.rating.tolist(), strict=True)}
    assert found == {(0, 0): rating, (0, 1): 4, (1, 0): 5}
    assert TWICE.rating.tolist() == [2, 4, 5, 3, 4]


def test_without_a_pair_that_occurs_twice_nothing_changes():
    given = raw((0, 0, 2), (0, 1, 4))
    assert once(given, "refuse") is given


@pytest.mark.parametrize(
    ("rule", "words"), [("last", "2 of the 4 ratings of x.csv repeat a user and an item and are left out"), ("mean", "3 of the 4 ratings")]
)
def test_repeated_ratings_are_counted(rule, words: str, caplog: pytest.LogCaptureFixture):
    once(raw((0, 0, 2), (0, 0, 4), (0, 0, 5), (1, 2, 1)), rule)
    assert words in caplog.text
