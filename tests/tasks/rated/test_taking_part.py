"""The users of each split and scenario, and their ratings: no rating of a test is one of the training."""

from __future__ import annotations

from itertools import product

import numpy as np
import pytest

from metarun.errors import UserError
from metarun.tasks.pool import SPLITS
from metarun.tasks.rated.division import Scenario, divide
from metarun.tasks.rated.episodes import Sizes
from metarun.tasks.rated.synthetic import synthetic
from metarun.tasks.rated.taking_part import Limits, taking_part

DATA = synthetic(60, 150, 0)
NONE = Limits()


def parts(scenario: Scenario, limits: Limits = NONE, shots: int | str = 2, queries: int | str = 2, used=SPLITS):
    division = divide(DATA, scenario, (0.6, 0.2, 0.2), None, 0)
    return division, taking_part(DATA, division, scenario, limits, dict.fromkeys(SPLITS, Sizes(shots, queries, limits.most)), used)


def ratings_in(pools, query: bool) -> set[int]:
    rows = pools.query if query and pools.query is not None else pools.support
    return set(rows[rows >= 0].tolist())


@pytest.mark.parametrize(("users", "items"), list(product(("new", "known"), ("any", "known", "new"))))
def test_no_query_of_val_or_test_is_a_training_rating_and_none_is_in_both(users: str, items: str):
    division, who = parts(Scenario(users, items, new_share=0.4))
    train, val, test = (ratings_in(who.pools[split], query=True) for split in SPLITS)
    assert train
    assert val
    assert test
    assert not train & (val | test)
    assert not val & test
    assert set(np.flatnonzero(who.trains)) == train
    known = set(who.pools["train"].users.tolist())
    for split in ("val", "test"):
        of = set(who.pools[split].users.tolist())
        trained = {number for number, name in enumerate(DATA.users.names) if name in set(division.users["train"])}
        assert not of & known if users == "new" else of <= trained
        is_new = {
            bool(division.is_new[DATA.item[row]])
            for row in ratings_in(who.pools[split], query=False) | ratings_in(who.pools[split], query=True)
        }
        assert is_new == {"any": {False}, "known": {False}, "new": {True}}[items]
    if items != "any":
        assert not division.is_new[DATA.item[list(train)]].any()


def test_known_users_are_supported_by_their_training_ratings():
    _, who = parts(Scenario("known"))
    assert ratings_in(who.pools["test"], query=False) <= ratings_in(who.pools["train"], query=False)


def test_users_outside_of_the_limits_take_no_part_and_longer_training_users_may():
    counts = np.bincount(DATA.user)
    for longer, most in (("sample", counts.max()), ("drop", 50)):
        _, who = parts(Scenario(), Limits(30, 50, longer))
        found = {split: counts[who.pools[split].users.numpy()] for split in SPLITS}
        assert all(30 <= found[split].min() <= found[split].max() <= 50 for split in ("val", "test"))
        assert found["train"].min() >= 30
        assert (found["train"].max() > 50) == (most > 50)


def test_a_split_without_a_user_is_one_sentence_with_the_numbers_and_the_remedy():
    with pytest.raises(
        UserError,
        match=r"none of the 36 train users .* has 230 or more ratings, as 200 shots and 30 queries need; they have 2\d to \d+\. Please",
    ):
        parts(Scenario(), shots=200, queries=30)
    with pytest.raises(UserError, match=r"has 4 to 6 ratings.*Please raise task.max_ratings"):
        parts(Scenario(), Limits(None, 6))


def test_a_split_that_is_not_used_may_lack_users_and_says_so_later():
    _, who = parts(Scenario(), Limits(None, 6), used=("train",))
    assert set(who.said) == {"val", "test"}


def test_limits_that_exclude_each_other_are_refused():
    with pytest.raises(UserError, match=r"task\.min_ratings=20 is above task\.max_ratings=10"):
        Limits(20, 10)
