"""Which users take part in the episodes of a split, and with which of their ratings."""

from __future__ import annotations

import logging
from collections.abc import Collection, Mapping
from dataclasses import dataclass
from typing import Literal

import numpy as np

from metarun.errors import UserError, counted
from metarun.tasks.pool import SPLITS
from metarun.tasks.rated.data import RatingData
from metarun.tasks.rated.division import Division, Scenario
from metarun.tasks.rated.episodes import REST, Pools, Sizes, pools

log = logging.getLogger(__name__)

Longer = Literal["sample", "drop"]


@dataclass(frozen=True)
class Limits:
    """The numbers of ratings with which a user takes part; None for no limit.

    longer: of a training user with more than `most` ratings. "sample" takes `most` random ones of them in each episode; "drop" leaves the
    user out. Users of val and test with more ratings are left out.
    """

    least: int | None = None
    most: int | None = None
    longer: Longer = "sample"

    def __post_init__(self) -> None:
        if self.least is not None and self.most is not None and self.least > self.most:
            raise UserError(f"task.min_ratings={self.least} is above task.max_ratings={self.most}; lower the first or raise the second.")


@dataclass(frozen=True)
class TakingPart:
    """pools: split -> the users of its episodes with their ratings. said: split -> the sentence about a split without a user.
    trains: (R,) bool, the ratings that a training may see.
    """

    pools: Mapping[str, Pools]
    said: Mapping[str, str]
    trains: np.ndarray


def taking_part(
    data: RatingData, division: Division, scenario: Scenario, limits: Limits, sizes: Mapping[str, Sizes], used: Collection[str]
) -> TakingPart:
    """Return who takes part. used: the splits that must have a user; UserError for one of them without a user."""
    new = division.is_new[data.item]
    seen = division.part == 0 if scenario.items == "any" else (division.part == 0) & ~new
    found: dict[str, Pools] = {}
    said: dict[str, str] = {}
    for split in SPLITS:
        users, support, query = _of_split(split, data, division, scenario, seen, new)
        counts = np.bincount(data.user[support if query is None else support | query], minlength=len(data.users.names))[users]
        least = max(limits.least or 0, sizes[split].least)
        within = counts >= least
        if query is not None:
            within &= _has(data.user[support], users, sizes[split].shots) & _has(data.user[query], users, 1)
        if limits.most is not None and (split != "train" or limits.longer == "drop"):
            within &= counts <= limits.most
        found[split] = pools(users[within], data.user, support, query)
        if not within.any():
            said[split] = _nobody(split, users, counts, least, limits, sizes[split], scenario)
            if split in used:
                raise UserError(said[split])
        elif not within.all():
            facts = (int((~within).sum()), len(users), split, _range(least, limits.most))
            log.info("%d of the %d %s users have not %s ratings that the scenario allows, and take no part", *facts)
    return TakingPart(found, said, seen & np.isin(data.user, found["train"].users.numpy()))


def _of_split(
    split: str, data: RatingData, division: Division, scenario: Scenario, seen: np.ndarray, new: np.ndarray
) -> tuple[np.ndarray, np.ndarray, np.ndarray | None]:
    """Return the users of a split, the ratings that may be support, and those that may be query; None for the same."""
    place = {name: number for number, name in enumerate(data.users.names)}
    group = {"any": np.ones_like(new), "known": ~new, "new": new}[scenario.items]
    if split == "train":
        return _places(place, division.users["train"]), seen, None
    part = SPLITS.index(split)
    if scenario.users == "new":
        return _places(place, division.users[split]), group & (division.part == part), None
    users = _places(place, division.users["train"])
    if scenario.items == "new":  # the training saw none of these ratings: half of the users are val, the others test
        return users[part - 1 :: 2], group, None
    return users, seen, group & (division.part == part)


def _places(place: Mapping[str, int], names: Collection[str]) -> np.ndarray:
    return np.array([place[name] for name in names], dtype=np.int64)


def _has(user: np.ndarray, users: np.ndarray, size: int | str) -> np.ndarray:
    """Return which users have at least this number of ratings, one for "rest"."""
    needed = 1 if size == REST else int(size)
    found: np.ndarray = np.bincount(user, minlength=int(users.max(initial=-1)) + 1)[users] >= needed
    return found


def _range(least: int, most: int | None) -> str:
    return f"{least} or more" if most is None else f"{least} to {most}"


def _nobody(split: str, users: np.ndarray, counts: np.ndarray, least: int, limits: Limits, sizes: Sizes, scenario: Scenario) -> str:
    """Return the sentence about a split without a user."""
    who = f"task.users={scenario.users} task.items={scenario.items}"
    if not counts.any():
        count = counted(len(users), "user")
        return f"the {split} split of {who} has no rating at all ({count}); change the scenario, task.split or task.new_share."
    asked = f"{sizes.shots} shots and {sizes.queries} queries"
    remedy = "lower task.min_ratings, task.shots or task.queries" if counts.max() < least else "raise task.max_ratings"
    return (
        f"none of the {len(users)} {split} users of {who} has {_range(least, limits.most)} ratings, as {asked} need; they have "
        f"{counts.min()} to {counts.max()}. Please {remedy}."
    )
