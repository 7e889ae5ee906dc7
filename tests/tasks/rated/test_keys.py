"""The keys of ratings."""

from __future__ import annotations

from dataclasses import fields
from pathlib import Path

import pytest
import yaml

from metarun.errors import UserError
from metarun.tasks.rated.keys import RatingKeys, check_division, check_relevant, keys_of

CONFIG = Path(__file__).parents[3] / "configs" / "task" / "ratings.yaml"


def test_the_config_file_has_every_key_with_its_default():
    stated = yaml.safe_load(CONFIG.read_text(encoding="utf-8"))
    given = {
        name: value for name, value in stated.items() if name not in ("_target_", "tasks", "new_items", "left_out", "seed", "train_shots")
    }
    known = {each.name: each.default for each in fields(RatingKeys) if each.name not in ("data", "seed", "train_shots")}
    assert given.keys() == known.keys()
    for name, value in given.items():
        assert value == (list(known[name]) if isinstance(known[name], tuple) else known[name]), name


def test_training_sizes_are_those_of_the_test_unless_they_are_given():
    sizes = RatingKeys(shots=5, queries="rest", train_queries=7, max_ratings=40).sizes
    assert (sizes["train"].shots, sizes["train"].queries, sizes["train"].most) == (5, 7, 40)
    assert (sizes["test"].shots, sizes["test"].queries) == (5, "rest")


def test_rest_and_rest_cannot_be_divided():
    with pytest.raises(UserError, match=r"task.shots=rest and task.queries=rest do not say how to divide the ratings"):
        RatingKeys(shots="rest", queries="rest")
    with pytest.raises(UserError, match=r"task.train_shots=rest and task.train_queries=rest"):
        RatingKeys(queries="rest", train_shots="rest")


def test_an_unknown_key_is_refused_with_the_nearest():
    with pytest.raises(UserError, match=r"task.shot is not a key of this task. Did you mean 'shots'"):
        keys_of({"shot": 3})


def test_keys_of_files_need_a_file():
    with pytest.raises(UserError, match=r"task.item needs a file of ratings; give task.path=FILE"):
        RatingKeys(item="movie")
    assert RatingKeys(item="movie", path="x.csv").item == "movie"
    for key, value in (("scale", [1, 10]), ("outside", "drop"), ("duplicates", "last")):
        with pytest.raises(UserError, match=rf"task.{key} needs a file of ratings"):
            RatingKeys(**{key: value})


@pytest.mark.parametrize("key", [{"new_from": 1990.0}, {"new_share": 0.4}])
def test_a_key_that_divides_the_items_needs_a_scenario_that_divides_them(key: dict[str, float]):
    with pytest.raises(UserError, match=rf"task.{next(iter(key))}=.* divides the items .* and task.items=any does not"):
        check_division(RatingKeys(**key))
    check_division(RatingKeys(items="known", **key))


@pytest.mark.parametrize("value", [9, 1])
def test_a_relevant_rating_lies_inside_of_the_scale(value: float):
    with pytest.raises(UserError, match=rf"task.relevant={value} must lie above the lowest rating 1, and not above the highest one 5"):
        check_relevant(value, (1, 5))
    check_relevant(5, (1, 5))
    check_relevant(None, (1, 5))
