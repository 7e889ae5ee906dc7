"""Complaints about sizes: which numbers and keys they name, and how several of them make one message."""

from __future__ import annotations

from typing import Any

import pytest

from metarun.tasks.episode_sizes import complaints, listed, shape_of, together

KEYS: dict[str, Any] = {"ways": 5, "shots": 5, "queries": 15, "train_ways": None, "train_shots": 1, "train_queries": None}


def classes(*counts: int) -> list[tuple[str, int]]:
    return [(f"c{number}", count) for number, count in enumerate(counts)]


def test_the_sizes_of_training_are_its_own_where_they_are_given() -> None:
    assert (shape_of(KEYS, "train").shots, shape_of(KEYS, "val").shots) == (1, 5)
    assert shape_of(KEYS, "train").needed == 16
    varying = shape_of({**KEYS, "min_shots": 2, "min_ways": 3}, "val")
    assert varying.varies
    assert varying.needed == 17
    assert not shape_of(KEYS, "val").varies


def test_what_fits_gives_no_complaint() -> None:
    assert complaints(KEYS, "val", classes(*[20] * 5)) == []


def test_all_that_does_not_fit_is_said_with_the_smallest_class_first() -> None:
    ways = {**KEYS, "ways": 6}
    said = complaints(ways, "val", classes(19, 3, 20, 4, 20), skip="task.skip_small=true")
    assert said == [
        "the val split has 5 classes; 6 ways need more. Lower task.ways to 5 or less.",
        (
            "3 val classes have too few images: 'c1' has 3, 'c3' has 4, 'c0' has 19; 5 shots + 15 queries need 20. "
            "Lower task.queries or task.shots, or leave these classes out with task.skip_small=true."
        ),
    ]


def test_leaving_small_classes_out_is_advised_only_where_two_classes_remain() -> None:
    for counts, helps in (((3, 20, 20), True), ((3, 20), False), ((3, 3), False)):
        (said,) = complaints({**KEYS, "ways": 2}, "val", classes(*counts), skip="task.skip_small=true")
        assert ("task.skip_small=true" in said) == helps


def test_a_single_small_class_is_named_with_the_keys_of_its_split() -> None:
    assert complaints(KEYS, "train", classes(15, 16, 16, 16, 16)) == [
        "class 'c0' has 15 images; 1 shot + 15 queries need 16. Lower task.queries or task.train_shots."
    ]


@pytest.mark.parametrize(
    ("held", "remedy"), [(1, "An episode has at least 2 ways, so give this split more classes."), (2, "Lower task.ways to 2.")]
)
def test_a_split_of_one_or_two_classes_gets_a_remedy_that_helps(held: int, remedy: str) -> None:
    assert complaints(KEYS, "test", classes(*[20] * held))[0].endswith(remedy)


def test_several_complaints_are_lines_of_one_message() -> None:
    assert together(["one."]) == "one."
    assert together(["one.", "two."]) == "2 things need a change:\n- one.\n- two."


def test_long_lists_are_cut_and_the_rest_is_counted() -> None:
    assert listed([str(number) for number in range(12)]) == "0, 1, 2, 3, 4, 5, 6, 7, 8, 9 and 2 more"
