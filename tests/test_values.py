"""The marks of an annotation: what each range holds, and its words."""

from __future__ import annotations

import math
from typing import Any

import pytest

from metarun.values import Built, Form, Length, Range, plain


@pytest.mark.parametrize(
    ("bounds", "kind", "words", "inside", "outside"),
    [
        ({"above": 0}, float, "a number above 0", [1e-9, 3], [0, -1, math.nan, math.inf]),
        ({"least": 0}, float, "a number of at least 0", [0, 2.5], [-1e-9, math.inf]),
        ({"least": 0, "most": 1}, float, "a number from 0 to 1", [0, 0.5, 1], [1.0001, -0.1]),
        ({"least": 0, "below": 1}, float, "a number of at least 0 and below 1", [0, 0.99], [1, math.nan]),
        ({"above": 0, "most": 1e9}, float, "a number above 0 and at most 1e9", [1e9], [1.1e9, 0]),
        ({"least": 1, "most": 1_000_000}, int, "a whole number from 1 to 1,000,000", [1, 1_000_000], [0, 1_000_001]),
        ({}, float, "a number that is finite", [-1e30, 0.0], [math.nan, math.inf, -math.inf]),
    ],
)
def test_a_range_holds_the_numbers_that_it_describes(
    bounds: dict[str, float], kind: type, words: str, inside: list[float], outside: list[float]
) -> None:
    bounded = Range(**bounds)
    assert bounded.described(kind) == words
    assert [bounded.holds(value) for value in inside] == [True] * len(inside)
    assert [bounded.holds(value) for value in outside] == [False] * len(outside)


def test_a_number_that_single_precision_does_not_hold_is_in_no_range_and_the_words_say_why() -> None:
    """1e-50 becomes 0 in single precision and 1e39 infinity."""
    assert not Range(above=0).holds(1e-50)
    assert not Range(above=0).holds(1e39)
    assert Range(above=0).described(float, 1e-50) == "a number above 0 that single precision holds (1.2e-38 to 3.4e38)"
    assert Range(least=0).holds(0.0), "zero is a number of single precision"


def test_a_length_counts_entries_and_letters() -> None:
    assert [Length(1).holds(value) for value in ([], [0], "", "  ", "a")] == [False, True, False, False, True]
    assert Length(1, 2).holds([1, 2])
    assert not Length(1, 2).holds([1, 2, 3])
    assert Length(1).described(str) == "text that is not empty"
    assert Length(2, 1000).described(list) == "a list of at least 2 entries and at most 1,000"


def test_a_form_is_of_the_whole_text() -> None:
    form = Form(r"a\d", "a and a digit")
    assert [form.holds(text) for text in ("a1", "a1b", "")] == [True, False, False]
    assert form.described(str) == "a and a digit"


@pytest.mark.parametrize("plain", [None, True, 1, 0.5, "abc", [], {}])
def test_plain_data_is_no_object(plain: Any) -> None:
    assert not Built().holds(plain)
    assert Built().holds(object())


@pytest.mark.parametrize(
    ("value", "shown"),
    [
        (11043.2, "11,040"),
        (9.9999e3, "10,000"),
        (0.0173, "0.0173"),
        (-98765.0, "-98,760"),
        (3.0e-7, "3e-07"),
        (0.0, "0"),
        (math.inf, "inf"),
    ],
)
def test_a_number_is_shown_with_four_digits_with_separators_and_without_an_exponent(value: float, shown: str):
    assert plain(value) == shown
