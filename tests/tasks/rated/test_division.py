"""The division of users, items and ratings: disjoint, seeded, and restored from names."""

from __future__ import annotations

import numpy as np
import pytest

from metarun.errors import UserError
from metarun.tasks.rated.data import Feature, Owners, RatingData
from metarun.tasks.rated.division import Scenario, divide

SHARES = (0.8, 0.1, 0.1)


def a_data_set(users: int = 20, items: int = 10) -> RatingData:
    """Each user rates each item; the item n is from the year 1990 + n."""
    user, item = np.repeat(np.arange(users), items), np.tile(np.arange(items), users)
    year = Feature("year", "number", np.arange(items) + 1990.0)
    names = tuple(f"u{n}" for n in range(users)), tuple(f"i{n}" for n in range(items))
    return RatingData(user, item, np.ones(len(user)), Owners(names[0]), Owners(names[1], (year,)), (1.0, 5.0), "made")


def users_of(division):
    return [set(division.users[split]) for split in ("train", "val", "test")]


def test_the_users_of_the_splits_are_disjoint_and_are_all_users():
    parts = users_of(divide(a_data_set(), Scenario(), SHARES, None, 0))
    assert [len(part) for part in parts] == [16, 2, 2]
    assert len(set.union(*parts)) == 20


def test_another_seed_divides_otherwise_and_the_order_of_the_file_does_not_count():
    data = a_data_set()
    first, other = (divide(data, Scenario(), SHARES, None, seed) for seed in (0, 1))
    assert users_of(first) != users_of(other)
    turned = RatingData(data.user, data.item, data.rating, Owners(data.users.names[::-1]), data.items, data.scale, "made")
    assert users_of(divide(turned, Scenario(), SHARES, None, 0)) == users_of(first)


def test_ten_folds_test_each_user_once_and_validate_on_the_next_fold():
    folds = [divide(a_data_set(23), Scenario(), SHARES, (fold, 10), 0) for fold in range(10)]
    tested = [name for division in folds for name in division.users["test"]]
    assert sorted(tested) == sorted(a_data_set(23).users.names)
    for fold, division in enumerate(folds):
        assert list(division.users["val"]) == list(folds[(fold + 1) % 10].users["test"])
        train, val, test = users_of(division)
        assert len(train) + len(val) + len(test) == 23
        assert not train & (val | test)


@pytest.mark.parametrize("items", ["known", "new"])
def test_a_share_of_the_items_is_new_and_known_and_new_scenarios_have_the_same_new_items(items: str):
    division = divide(a_data_set(), Scenario(items=items, new_share=0.3), SHARES, None, 0)
    assert len(division.new_items) == 3
    assert division.is_new.sum() == 3
    assert division.new_items == divide(a_data_set(), Scenario(items="known", new_share=0.3), SHARES, None, 0).new_items


def test_items_from_a_year_on_are_new():
    division = divide(a_data_set(), Scenario(items="new", new_from=1997), SHARES, None, 0)
    assert division.new_items == ("i7", "i8", "i9")
    assert division.is_new.tolist() == 7 * [False] + 3 * [True]


def test_without_a_scenario_of_items_no_item_is_new():
    assert divide(a_data_set(), Scenario(), SHARES, None, 0).new_items == ()


def test_a_fifth_of_the_ratings_of_each_training_user_is_held_out_half_for_val_half_for_test():
    division = divide(a_data_set(), Scenario(users="known"), SHARES, None, 0)
    data = a_data_set()
    for number, name in enumerate(data.users.names):
        counts = np.bincount(division.part[data.user == number], minlength=3).tolist()
        assert counts == {"train": [8, 1, 1], "val": [0, 10, 0], "test": [0, 0, 10]}[where(division, name)]


def where(division, name: str) -> str:
    return next(split for split, names in division.users.items() if name in names)


def test_the_held_out_ratings_of_a_user_do_not_depend_on_the_other_users():
    large, small = a_data_set(20), a_data_set(10)
    users = {"train": [f"u{n}" for n in range(8)], "val": ["u8"], "test": ["u9"]}
    more = {**users, "train": [*users["train"], *(f"u{n}" for n in range(10, 20))]}
    parts = [divide(data, Scenario(hold_out=0.4), SHARES, None, 0, names).part for data, names in ((small, users), (large, more))]
    assert parts[0].tolist() == parts[1][:100].tolist()


def test_names_restore_a_division():
    data = a_data_set()
    first = divide(data, Scenario(items="new"), SHARES, None, 5)
    again = divide(data, Scenario(items="new"), SHARES, None, 0, first.users, first.new_items)
    assert again.users == first.users
    assert again.new_items == first.new_items


ALL = {"train": [f"u{n}" for n in range(2, 20)], "val": ["u0"], "test": ["u1"]}


@pytest.mark.parametrize(
    ("change", "words"),
    [
        ({"users": {**ALL, "val": ["u00"]}}, "names the user 'u00', who has no rating in the data. Did you mean"),
        ({"users": {**ALL, "val": ["u1"]}}, "names the user 'u1' 2 times; a user belongs to one split"),
        ({"users": {**ALL, "val": []}}, "has no user for val"),
        ({"users": {"train": ["u1"]}}, "has the splits train; it needs train, val, test"),
        ({"users": {**ALL, "train": ["u2"]}}, "leaves out 17 of the 20 users, such as 'u3'"),
        ({"shares": (0.5, 0.1, 0.1)}, "must be three shares above 0 that sum to 1"),
        ({"folds": (10, 10)}, "task.fold=10 must lie between 0 and task.folds - 1 = 9"),
        ({"folds": (0, 2)}, "task.folds=2 must be at least 3"),
        ({"folds": (0, 30)}, "task.folds=30 needs at least as many users, and the ratings have 20; lower task.folds"),
        ({"scenario": Scenario(items="new", new_from=2020)}, "none of the 10 items is new; change task.new_from"),
        ({"scenario": Scenario(items="new", new_from=1980)}, "none of the 10 items is known; change task.new_from"),
        ({"scenario": Scenario(items="known", new_share=0.01)}, "none of the 10 items is new; change task.new_share"),
        ({"scenario": Scenario(items="new"), "new_items": ["i77"]}, "names 'i77', which is no item of the data. Did you mean"),
    ],
)
def test_a_division_that_cannot_be_is_one_sentence(change: dict, words: str):
    keys = {"scenario": Scenario(), "shares": SHARES, "folds": None, "users": None, "new_items": None, **change}
    with pytest.raises(UserError) as error:
        divide(a_data_set(), keys["scenario"], keys["shares"], keys["folds"], 0, keys["users"], keys["new_items"])
    assert words in str(error.value)


def test_a_year_is_needed_to_divide_items_by_year():
    data = a_data_set()
    bare = RatingData(data.user, data.item, data.rating, data.users, Owners(data.items.names), data.scale, "made")
    with pytest.raises(UserError, match=r"task\.new_from=1998 needs the year of each item"):
        divide(bare, Scenario(items="new", new_from=1998), SHARES, None, 0)


def test_known_users_need_held_out_ratings():
    with pytest.raises(UserError, match=r"task.hold_out=0 holds none out; train a new run with task.hold_out=0.2"):
        Scenario("known", hold_out=0.0)
    assert Scenario("known", "new", hold_out=0.0).held_out == 0.0  # the training saw no rating of a new item
