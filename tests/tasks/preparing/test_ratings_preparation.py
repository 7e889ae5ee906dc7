from __future__ import annotations

from dataclasses import replace
from typing import Any

import pytest
import torch
from small_ratings import FILMS

from metarun.errors import UserError
from metarun.tasks.preparing.preparation import preparation_of
from metarun.tasks.preparing.ratings_preparation import plain_title


@pytest.mark.parametrize("name", ["50", "Heat (1995)", "heat (1995)", "Heat", " HEAT ", 50])
def test_an_item_is_found_by_identifier_and_by_title(name: Any):
    assert FILMS.places([name]) == [1]


def test_the_title_with_its_year_tells_two_items_apart():
    assert FILMS.places(["Sabrina (1995)"]) == [3]
    with pytest.raises(UserError, match=r"2 items have the title 'Sabrina'; name one by its identifier: 90 \(Sabrina \(1954\)\), 91"):
        FILMS.places(["Sabrina"])


ARTICLES = replace(FILMS, names=("1", "2", "3", "1984"), titles=("Thing, The (1982)", "Thing, The (2011)", "2 (Two) (1984)", "Apple, An"))


@pytest.mark.parametrize(
    ("name", "place"),
    [("The Thing (1982)", 0), ("the thing (2011)", 1), ("An Apple", 3), ("apple, an", 3), ("2 (two)", 2), ("1984", 3), ("2", 1)],
)
def test_a_title_may_have_its_article_in_front_or_behind(name: str, place: int):
    assert ARTICLES.places([name]) == [place]


def test_in_a_column_of_titles_a_title_comes_before_an_identifier():
    assert ARTICLES.places(["2", "1984", "1"], titles=True) == [2, 3, 0]
    assert replace(ARTICLES, titles=()).places(["2", "1984"], titles=True) == [1, 3]
    with pytest.raises(UserError, match=r"2 items have the title 'the thing'; name one by its identifier: 1 \(Thing, The \(1982\)\), 2"):
        ARTICLES.places(["the thing"], titles=True)


def test_an_unknown_title_with_an_article_is_compared_without_regard_to_its_place():
    films = replace(FILMS, titles=("Matrix, The (1999)", "The Martian (2015)", "The Artist (2011)", "Wait, The"))
    with pytest.raises(UserError, match=r"'The Matrx' \(did you mean 'Matrix, The \(1999\)'"):
        films.places(["The Matrx"])


def test_all_unknown_items_are_named_in_one_sentence_with_the_nearest_titles():
    with pytest.raises(
        UserError, match=r"2 items are not among the 4 items of the model: 'Toy Stroy' \(did you mean 'Toy Story \(1995\)'\?\); 'xyz'\."
    ):
        FILMS.places(["Toy Stroy", "Heat", "xyz", "xyz"])


@pytest.mark.parametrize("items", ["Heat", 3, None])
def test_items_must_be_a_list(items: Any):
    with pytest.raises(UserError, match="give a list of identifiers or titles"):
        FILMS.places(items)


def test_inputs_have_the_columns_of_the_user_and_then_those_of_the_item():
    expected = torch.tensor([[1.0, 0, 1, 2], [1, 1, 0, 0]])
    assert torch.equal(FILMS.inputs({"item": ["Heat", "90"], "gender": "F"}), expected)
    assert torch.equal(FILMS.inputs(["Heat", "90"])[:, 0], torch.zeros(2))


@pytest.mark.parametrize(
    ("x", "sentence"), [({"gender": "F"}, "needs the key 'item'"), ({"item": ["1"], "age": 3}, "nothing about 'age' of a user")]
)
def test_inputs_of_another_form_are_refused(x: Any, sentence: str):
    with pytest.raises(UserError, match=sentence):
        FILMS.inputs(x)


def test_ratings_are_standardised_and_turned_back():
    """(5 - 3.5) / 0.5 = 3."""
    targets = FILMS.targets([5.0, 3.5])
    assert targets[:, 0].tolist() == [3.0, 0.0]
    assert FILMS.in_units(targets)[:, 0].tolist() == [5.0, 3.5]


def test_the_offsets_of_items_are_added_to_residuals():
    assert FILMS.added(["Heat"]) is None
    residual = replace(FILMS, offsets=(0.5, -0.25, 0.0, 0.0))
    added = residual.added({"item": ["Heat", "1"]})
    assert added is not None
    assert added[:, 0].tolist() == [-0.25, 0.5]


def test_a_checkpoint_gives_the_same_preparation():
    for made in (FILMS, replace(FILMS, titles=(), offsets=(0.5, 0.25, 0.0, 0.0))):
        assert preparation_of(made.stored(), [4], 1) == made


@pytest.mark.parametrize(
    "change",
    [
        {"names": ["1", "1", "90", "91"]},
        {"names": []},
        {"titles": ["a"]},
        {"scale": [5.0, 0.5]},
        {"scale": [1, 5]},
        {"scale": [1.0]},
        {"offsets": [0.0]},
        {"offsets": [0.0, 0.0, 0.0, float("inf")]},
        {"mean": None},
        {"deviation": 0.0},
        {"user": None},
        {"item": [{}]},
        {"item": FILMS.stored()["user"]},
        {"user": [], "item": []},
    ],
)
def test_what_is_no_preparation_is_refused(change: dict[str, Any]):
    with pytest.raises(UserError, match="describes its inputs in a way"):
        preparation_of({**FILMS.stored(), **change}, [4], 1)


def test_a_preparation_of_another_shape_is_refused():
    with pytest.raises(UserError, match="describes its inputs in a way"):
        preparation_of(FILMS.stored(), [5], 1)


@pytest.mark.parametrize(
    ("title", "plain"), [("Heat (1995)", "heat"), ("  Three   Words ", "three words"), ("(500) Days", "(500) days"), ("(1995)", "(1995)")]
)
def test_a_plain_title_has_no_year_and_small_letters(title: str, plain: str):
    assert plain_title(title) == plain
