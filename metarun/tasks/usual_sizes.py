"""Sizes of an episode that the user did not give: the usual ones, or smaller ones for photographs of few classes or few images."""

from __future__ import annotations

from collections.abc import Mapping, Sequence
from typing import Any, TypedDict

from metarun.tasks.episode_sizes import LEAST
from metarun.tasks.pool import SPLITS
from metarun.values import Count

WAYS, QUERIES = 5, 15
FEWEST = 5
"""The fewest queries per class. A class with too few images for them counts as too small; it does not make all episodes smaller."""


class Usual(TypedDict, total=False):
    """The algorithm's own sizes of a training episode."""

    train_ways: Count | None
    train_shots: Count | None
    train_queries: Count | None


def needed(keys: Mapping[str, Any], usual: Mapping[str, Any], split: str) -> int:
    """Return the fewest images with which a class can take part in the episodes of a split, whatever `fitted` chooses."""
    shots, queries = _least(keys, usual, split)
    return shots + queries


def fitted(keys: Mapping[str, Any], usual: Mapping[str, Any], counts: Mapping[str, Sequence[int]]) -> dict[str, int]:
    """Return a number for each size that is None or absent in `keys`, except for a training size that equals the test size.

    keys: the user's; `shots` is given. usual: see `Usual`. counts: for each split, the images of each class.

    The ways are at most `WAYS`, and at most the number of classes of val and of test (of train too, if training has no ways of its own).
    The queries are `QUERIES`, or what the smallest class of val and test has beside its shots, but at least `FEWEST`. Training has the
    algorithm's own numbers, lowered in the same way. If training classes are still too small, the training shots fall to the test shots.
    """
    held = {split: len(counts[split]) for split in SPLITS}
    own = keys.get("train_ways") or usual.get("train_ways")
    limits = [held["val"], held["test"], *([] if own else [held["train"]])]
    ways = keys.get("ways") or max(LEAST["ways"], min(WAYS, *limits))
    train_ways = max(LEAST["ways"], min(own, held["train"])) if own else ways
    queries = _queries(keys, usual, "val", [*counts["val"], *counts["test"]])
    train_shots, train_queries = _training(keys, usual, counts["train"], queries)
    test = {"ways": ways, "shots": keys["shots"], "queries": queries}
    train = {"train_ways": train_ways, "train_shots": train_shots, "train_queries": train_queries}
    own_in_training = {name: number for name, number in train.items() if number != test[name.removeprefix("train_")]}
    return {name: number for name, number in (test | own_in_training).items() if keys.get(name) is None}


def unfitted(keys: Mapping[str, Any], usual: Mapping[str, Any]) -> dict[str, int]:
    """Return the sizes that `fitted` chooses where there are classes and images enough."""
    ways, (shots, queries) = keys.get("ways") or WAYS, _wanted(keys, usual, "train")
    train = {"train_ways": usual.get("train_ways") or ways, "train_shots": shots, "train_queries": queries}
    return {"ways": ways, "queries": keys.get("queries") or QUERIES, **train}


def _wanted(keys: Mapping[str, Any], usual: Mapping[str, Any], split: str) -> tuple[int, int]:
    """Return the shots and queries of a split, were there images enough."""
    shots, queries = keys["shots"], keys.get("queries") or QUERIES
    if split != "train":
        return shots, queries
    return keys.get("train_shots") or usual.get("train_shots") or shots, keys.get("train_queries") or usual.get("train_queries") or queries


def _least(keys: Mapping[str, Any], usual: Mapping[str, Any], split: str) -> tuple[int, int]:
    """Return the fewest shots and queries that `fitted` may choose for a split."""
    shots, queries = _wanted(keys, usual, split)
    train = split == "train"
    if train and keys.get("train_shots") is None:
        shots = min(shots, keys["shots"])
    given = keys.get("train_queries") or (None if usual.get("train_queries") else keys.get("queries")) if train else keys.get("queries")
    return min(keys.get("min_shots") or shots, shots), queries if given else min(FEWEST, queries)


def _queries(keys: Mapping[str, Any], usual: Mapping[str, Any], split: str, counts: Sequence[int]) -> int:
    """Return the queries that fit the smallest class, apart from classes that are too small."""
    shots, queries = _wanted(keys, usual, split)
    _, fewest = _least(keys, usual, split)
    shots = min(keys.get("min_shots") or shots, shots)
    room = min((count for count in counts if count >= shots + fewest), default=shots + fewest)
    return max(fewest, min(queries, room - shots))


def _training(keys: Mapping[str, Any], usual: Mapping[str, Any], counts: Sequence[int], queries: int) -> tuple[int, int]:
    """Return the shots and queries of training. queries: those of val and test."""
    wanted, fewest = _wanted(keys, usual, "train"), _least(keys, usual, "train")
    room = min((count for count in counts if count >= sum(fewest)), default=sum(fewest))
    varying = keys.get("min_shots")
    shots = wanted[0] if varying else max(fewest[0], min(wanted[0], room - fewest[1]))
    most = wanted[1] if keys.get("train_queries") or usual.get("train_queries") else queries
    return shots, max(fewest[1], min(most, room - (min(varying, shots) if varying else shots)))
