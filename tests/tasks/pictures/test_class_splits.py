"""How many classes each split gets, and which ones."""

from __future__ import annotations

from pathlib import Path
from typing import Any

import pytest

from metarun.errors import UserError
from metarun.tasks.pictures.class_splits import SplitKeys, chosen_split
from metarun.tasks.pool import SPLITS


def split_of(count: int, **keys: Any) -> dict[str, list[str]]:
    return chosen_split(SplitKeys(Path("photos"), **keys), [f"c{number:03}" for number in range(count)])


@pytest.mark.parametrize(
    ("count", "expected"),
    [
        (6, [2, 2, 2]),
        (10, [6, 2, 2]),
        (11, [5, 3, 3]),
        (12, [6, 3, 3]),
        (14, [8, 3, 3]),
        (20, [10, 5, 5]),
        (25, [15, 5, 5]),
        (40, [26, 6, 8]),
        (101, [65, 16, 20]),
    ],
)
def test_the_usual_split_leaves_validation_and_test_usable_where_classes_are_few(count: int, expected: list[int]) -> None:
    chosen = split_of(count)
    assert [len(chosen[split]) for split in SPLITS] == expected
    assert len({name for names in chosen.values() for name in names}) == count


def test_fewer_than_six_classes_are_refused_with_the_number() -> None:
    with pytest.raises(UserError, match="at least 6 classes, 2 for each, and there are 5"):
        split_of(5)


@pytest.mark.parametrize(("count", "ways", "expected"), [(14, 5, [4, 5, 5]), (14, 2, [9, 2, 3]), (14, 7, [8, 3, 3])])
def test_ways_that_the_user_gives_make_room_where_that_is_possible(count: int, ways: int, expected: list[int]) -> None:
    chosen = split_of(count, ways=ways)
    assert [len(chosen[split]) for split in SPLITS] == expected


def test_a_missing_test_folder_is_drawn_from_training_and_the_other_folder_stays() -> None:
    names = [f"c{number:03}" for number in range(14)]
    chosen = split_of(14, ready={"train": names[:12], "val": names[12:]})
    assert chosen["val"] == names[12:]
    assert len(chosen["test"]) == 3
    assert sorted(chosen["train"] + chosen["test"]) == names[:12]


def test_too_few_training_classes_for_a_missing_split_are_refused_with_the_numbers() -> None:
    names = [f"c{number:03}" for number in range(5)]
    with pytest.raises(UserError, match="no folder val, and its folder train has 3 classes, of which metarun would take 2; make"):
        split_of(5, ready={"train": names[:3], "test": names[3:]})
