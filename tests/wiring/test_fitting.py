"""Values from a config against annotations: what is converted, and the sentence for a value that does not fit."""

from __future__ import annotations

import math
from pathlib import Path
from typing import Any, Literal

import pytest

from metarun.errors import UserError
from metarun.values import Count, Positive, Sizes
from metarun.wiring.fitting import annotations_of, fit

Mean = Literal["mean", "sum_over_shot"]


@pytest.mark.parametrize(
    ("value", "hint", "fitted"),
    [
        (1, float, 1.0),
        (1e4, int, 10000),
        ([1, 2], tuple[int, ...], (1, 2)),
        ([1, 2], tuple[float, int], (1.0, 2)),
        ((1, 2), list[float], [1.0, 2.0]),
        (None, int | None, None),
        (3, int | None, 3),
        ("x", Path | str | None, "x"),
        ("x", Path, Path("x")),
        ("sum_over_shot", Mean, "sum_over_shot"),
        ({"a": 1}, dict[str, float], {"a": 1.0}),
    ],
)
def test_a_value_is_converted_if_nothing_is_lost(value: Any, hint: Any, fitted: Any) -> None:
    result = fit(value, hint, "algo.key")
    assert result == fitted
    assert type(result) is type(fitted)


@pytest.mark.parametrize(
    ("value", "hint", "words"),
    [
        ("abc", float, "algo.key='abc' should be a number."),
        (None, float, "algo.key=null should be a number."),
        (True, float, "algo.key=true should be a number."),
        (True, int, "algo.key=true should be a whole number."),
        (1.5, int, "algo.key=1.5 should be a whole number."),
        (1, bool, "algo.key=1 should be true or false."),
        ("summ", Mean, "algo.key='summ' should be one of mean, sum_over_shot."),
        ("meen", Mean, "Did you mean 'mean'?"),
        (40, tuple[int, ...], "algo.key=40 should be a list."),
        ([40], tuple[int, int], "algo.key=[40] should be a list of 2."),
        ([40, "x"], tuple[int, ...], "algo.key=[40, 'x'] should be a list, each entry a whole number."),
        ("many", int | None, "algo.key='many' should be a whole number or null."),
        (3, dict[str, Any] | None, "algo.key=3 should be a mapping"),
        (3, Path | str | None, "algo.key=3 should be a path or text (put it in quotes) or null."),
    ],
)
def test_a_value_that_does_not_fit_is_one_sentence(value: Any, hint: Any, words: str) -> None:
    with pytest.raises(UserError) as caught:
        fit(value, hint, "algo.key")
    assert words in str(caught.value)
    assert "\n" not in str(caught.value)


@pytest.mark.parametrize("digits", [400, 5000])
@pytest.mark.parametrize(("hint", "words"), [(Count, "a whole number from 1"), (Positive, "a number above 0"), (Sizes, "a list")])
def test_an_integer_that_no_float_holds_is_one_sentence(digits: int, hint: Any, words: str) -> None:
    value = [10**digits] if hint is Sizes else 10**digits
    with pytest.raises(UserError, match=rf"^steps=.{{1,60}} should be {words}"):
        fit(value, hint, "steps")
    assert fit(10**digits, float, "steps") == math.inf


def test_an_unknown_annotation_lets_every_value_pass() -> None:
    marker = object()
    assert fit(marker, pytest.MonkeyPatch, "x") is marker


def test_annotations_are_those_of_the_constructor_or_none_if_a_name_is_unknown() -> None:
    class Layer:
        def __init__(self, width: int) -> None: ...

    def odd(size: NotImportedAtRunTime) -> None: ...  # type: ignore[name-defined]  # noqa: F821

    assert annotations_of(Layer)["width"] is int
    assert annotations_of(odd) == {}
