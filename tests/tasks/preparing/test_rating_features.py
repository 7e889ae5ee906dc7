from __future__ import annotations

from typing import Any

import pytest
import torch

from metarun.errors import UserError
from metarun.tasks.preparing.rating_features import Feature, feature_of, stored_feature

GENRES = Feature("genres", "several", ("Comedy", "Drama", "War"), values=((0, 2), ()))
AGE = Feature("age", "number", mean=30.0, deviation=10.0)
GENDER = Feature("gender", "category", ("F", "M"))


def test_raw_facts_become_the_columns_of_the_training():
    assert GENDER.coded("M") == [2.0]
    assert AGE.coded("45") == [1.5]
    assert GENRES.coded("Drama|War") == GENRES.coded(["War", "Drama"]) == [0.0, 1.0, 1.0]


def test_what_is_not_known_is_unknown_or_the_mean():
    assert (GENDER.coded(None), AGE.coded(None), GENRES.coded(None)) == ([0.0], [0.0], [0.0, 0.0, 0.0])


@pytest.mark.parametrize(
    ("feature", "value", "sentence"),
    [
        (GENDER, "m", r"'gender' of the user is 'm', and the training has F, M\."),
        (GENRES, "Dramma", r"has Comedy, Drama, War\. Did you mean 'Drama'\?"),
        (AGE, "old", "'age' of the user is 'old', which is no number"),
        (AGE, float("nan"), "no number"),
    ],
)
def test_a_fact_that_the_training_does_not_have_is_refused(feature: Feature, value: Any, sentence: str):
    with pytest.raises(UserError, match=sentence):
        feature.coded(value)


@pytest.mark.parametrize(
    ("kind", "words", "matrix"),
    [
        ("several", ("a", "b", "c"), [[1.0, 0, 1], [0, 0, 0]]),
        ("category", ("a", "b"), [[2.0], [0.0]]),
        ("number", (), [[0.25], [-1.5]]),
    ],
)
def test_the_columns_of_items_are_the_same_before_and_after_a_checkpoint(kind: str, words: tuple[str, ...], matrix: list[list[float]]):
    feature = feature_of("f", kind, words, (1.0, 2.0), torch.tensor(matrix))
    again = stored_feature(feature.stored(), 2)
    assert again == feature
    assert torch.equal(feature.matrix(), torch.tensor(matrix))


@pytest.mark.parametrize(
    "change",
    [
        {"kind": "image"},
        {"words": [1, 2, 3]},
        {"words": ["a", "a", "b"]},
        {"mean": 1},
        {"mean": float("nan")},
        {"deviation": 0.0},
        {"values": [[0, 3], []]},
        {"values": [[-1], []]},
        {"values": [[0.0], []]},
        {"values": [[True], []]},
        {"values": [[0]]},
        {"name": None},
        {"extra": 1},
    ],
)
def test_what_is_no_feature_is_not_read_from_a_checkpoint(change: dict[str, Any]):
    assert stored_feature(GENRES.stored(), 2) == GENRES
    assert stored_feature({**GENRES.stored(), **change}, 2) is None


@pytest.mark.parametrize("index", [3, -1, 1.0, True])
def test_an_index_beyond_the_words_is_not_read(index: Any):
    stored = Feature("g", "category", ("F", "M"), values=(2, 0)).stored()
    assert stored_feature(stored, 2) is not None
    assert stored_feature({**stored, "values": [index, 0]}, 2) is None
