"""Sizes that the user leaves open: the usual ones where the classes suffice, and smaller ones where they do not."""

from __future__ import annotations

from typing import Any

import pytest

from metarun.tasks.usual_sizes import fitted, needed, unfitted

PROTONET = {"train_ways": 20, "train_queries": 5}
REPTILE = {"train_shots": 10, "train_queries": 1}


def held(train: int, val: int, test: int, images: int = 100) -> dict[str, list[int]]:
    return {"train": [images] * train, "val": [images] * val, "test": [images] * test}


@pytest.mark.parametrize(
    ("keys", "usual", "counts", "expected"),
    [
        ({}, {}, held(64, 16, 20), {"ways": 5, "queries": 15}),
        ({}, PROTONET, held(64, 16, 20), {"ways": 5, "queries": 15, "train_ways": 20, "train_queries": 5}),
        ({}, PROTONET, held(8, 3, 4), {"ways": 3, "queries": 15, "train_ways": 8, "train_queries": 5}),
        ({}, PROTONET, held(5, 9, 9), {"ways": 5, "queries": 15, "train_queries": 5}),
        ({}, {}, held(4, 9, 9), {"ways": 4, "queries": 15}),
        ({}, {}, held(1, 1, 1), {"ways": 2, "queries": 15}),
        ({"ways": 9}, {}, held(4, 3, 3), {"queries": 15}),
        ({"train_ways": 9}, {}, held(4, 5, 5), {"ways": 5, "queries": 15}),
        ({"ways": 3, "queries": 4}, PROTONET, held(9, 3, 3), {"train_ways": 9, "train_queries": 5}),
        ({}, {}, held(9, 5, 5, images=12), {"ways": 5, "queries": 11}),
        ({"shots": 5}, {}, held(9, 5, 5, images=12), {"ways": 5, "queries": 7}),
        ({"shots": 5}, {}, held(9, 5, 5, images=9), {"ways": 5, "queries": 5}),
        ({"shots": 5, "min_shots": 1}, {}, held(9, 5, 5, images=9), {"ways": 5, "queries": 8}),
        ({}, REPTILE, held(9, 5, 5, images=8), {"ways": 5, "queries": 7, "train_shots": 7, "train_queries": 1}),
        ({"train_shots": 10}, REPTILE, held(9, 5, 5, images=8), {"ways": 5, "queries": 7, "train_queries": 1}),
        ({"queries": 7}, {}, held(9, 5, 5, images=4), {"ways": 5}),
    ],
)
def test_open_sizes_are_the_usual_ones_or_what_the_classes_hold(
    keys: dict[str, Any], usual: dict[str, int], counts: dict[str, list[int]], expected: dict[str, int]
) -> None:
    assert fitted({"shots": 1, **keys}, usual, counts) == expected


def test_one_small_class_does_not_make_all_episodes_smaller_than_five_queries() -> None:
    counts = {"train": [100] * 9, "val": [100, 4], "test": [100, 9]}
    assert fitted({"shots": 1}, {}, counts)["queries"] == 8
    assert needed({"shots": 1}, {}, "val") == 6


def test_the_fewest_images_of_a_class_follow_what_the_user_gives() -> None:
    assert needed({"shots": 5, "queries": 15}, {}, "test") == needed({"shots": 5, "queries": 15}, {}, "train") == 20
    assert needed({"shots": 5, "queries": 15}, PROTONET, "train") == 10
    assert needed({"shots": 5, "queries": 15, "min_shots": 1}, {}, "test") == 16
    assert needed({"shots": 1}, REPTILE, "train") == 2
    assert needed({"shots": 1, "train_shots": 10}, REPTILE, "train") == 11


def test_the_unfitted_sizes_are_those_of_a_set_that_is_large_enough() -> None:
    for usual in ({}, PROTONET, REPTILE):
        sizes = unfitted({"shots": 1}, usual)
        chosen = fitted({"shots": 1}, usual, held(64, 16, 20))
        assert {name: sizes[name] for name in chosen} == chosen
