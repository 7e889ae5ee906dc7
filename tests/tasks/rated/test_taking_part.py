"""The users of each split and scenario, and their ratings: no rating of a test is one of the training."""

from __future__ import annotations

import logging
import re
from itertools import product

import numpy as np
import pytest

from metarun.errors import UserError
from metarun.tasks.pool import SPLITS
from metarun.tasks.rated.division import Scenario, divide
from metarun.tasks.rated.episodes import Sizes
from metarun.tasks.rated.synthetic import synthetic
from metarun.tasks.rated.taking_part import Limits, taking_part
from metarun.tasks.ratings import ratings

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


@pytest.mark.parametrize(
    ("scenario", "limits", "sizes", "words"),
    [
        (Scenario(), Limits(100), (2, 2), r"has 100 or more ratings, as task.min_ratings=100 asks; .* Please lower task.min_ratings\.$"),
        (Scenario(), Limits(None, 3), (2, 2), "task.max_ratings=3 is below the 4 ratings that 2 shots and 2 queries need; raise it"),
        (Scenario(), NONE, (200, 1), "as 200 shots and 1 query need"),
        (Scenario("known", hold_out=0.001), NONE, (2, 2), "2 shots among the training ratings and at least 1 held-out query; lower"),
    ],
)
def test_the_sentence_about_a_split_without_a_user_names_the_key_that_asks_for_more(scenario, limits, sizes, words):
    with pytest.raises(UserError, match=words):
        parts(scenario, limits, *sizes)


def test_few_synthetic_items_are_named_as_the_cause():
    with pytest.raises(UserError, match=r"each has 4\. Please lower task.shots or task.queries, or raise task.made_items to 30"):
        ratings(made_users=20, made_items=8)
    ratings(made_users=20, made_items=30)


def test_users_that_take_no_part_are_counted_with_their_numbers_of_ratings(caplog: pytest.LogCaptureFixture):
    caplog.set_level(logging.INFO)
    parts(Scenario(), Limits(30, 50))
    assert re.search(r"leaving out \d+ of the \d+ test users, with fewer than 30 or more than 50 ratings", caplog.text)


@pytest.mark.parametrize("limits", [Limits(40), Limits(None, 40, "drop"), NONE])
def test_other_limits_of_an_evaluation_change_the_scored_users_and_not_the_training_ratings(limits: Limits):
    division, trained = parts(Scenario(), Limits(30, 50, "drop"))
    sizes = dict.fromkeys(SPLITS, Sizes(2, 2, limits.most))
    again = taking_part(DATA, division, Scenario(), limits, sizes, SPLITS, trained.left_out)
    assert np.array_equal(again.trains, trained.trains)
    assert again.pools["train"].users.tolist() == trained.pools["train"].users.tolist()
    assert again.pools["test"].users.tolist() != trained.pools["test"].users.tolist()


def test_a_name_that_is_no_training_user_is_refused():
    with pytest.raises(UserError, match=r"task.left_out names 'abc', who is no training user"):
        ratings(made_users=60, made_items=150, left_out=["abc"])


def test_a_split_that_is_not_used_may_lack_users_and_says_so_later():
    _, who = parts(Scenario(), Limits(None, 6), used=("train",))
    assert set(who.said) == {"val", "test"}


def test_limits_that_exclude_each_other_are_refused():
    with pytest.raises(UserError, match=r"task\.min_ratings=20 is above task\.max_ratings=10"):
        Limits(20, 10)
