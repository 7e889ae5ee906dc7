"""Which users take part in the episodes of a split, and with which of their ratings.

The users whose ratings a training sees decide the mean, the deviation and the item statistics of a model. A checkpoint therefore names the
training users that are left out, so that other limits in an evaluation change the scored users alone.
"""

from __future__ import annotations

import logging
from collections.abc import Collection, Mapping, Sequence
from dataclasses import dataclass
from typing import Literal, NamedTuple

import numpy as np

from metarun.errors import UserError, counted, nearest, printable
from metarun.tasks.pool import SPLITS
from metarun.tasks.rated.data import RatingData
from metarun.tasks.rated.division import Division, Scenario
from metarun.tasks.rated.episodes import REST, Pools, Sizes, pools
from metarun.tasks.rated.synthetic import FEWEST

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

    def of(self, split: str, sizes: Sizes) -> tuple[int, int | None]:
        """Return the least and the largest number of ratings of a user of this split, None for no largest number."""
        return max(self.least or 0, sizes.least), self.most if split != "train" or self.longer == "drop" else None


@dataclass(frozen=True)
class TakingPart:
    """pools: split -> the users of its episodes with their ratings. said: split -> the sentence about a split without a user.
    trains: (R,) bool, the ratings that a training may see. left_out: the names of the training users without such a rating.
    """

    pools: Mapping[str, Pools]
    said: Mapping[str, str]
    trains: np.ndarray
    left_out: Sequence[str] = ()


class _Counts(NamedTuple):
    """The numbers of ratings of each user of a split: all, and those that may be support and query; no `query` where they are the same."""

    all: np.ndarray
    support: np.ndarray
    query: np.ndarray | None

    def within(self, least: int, most: int | None) -> np.ndarray:
        """Return which users have as many ratings as the limits allow."""
        return (self.all >= least) & (self.all <= (np.inf if most is None else most))

    def enough(self, shots: int | str) -> np.ndarray:
        """Return which users have enough ratings for the support and one for the query, where these are apart."""
        if self.query is None:
            return np.ones(len(self.all), dtype=bool)
        return (self.support >= (1 if shots == REST else int(shots))) & (self.query >= 1)


def taking_part(
    data: RatingData,
    division: Division,
    scenario: Scenario,
    limits: Limits,
    sizes: Mapping[str, Sizes],
    used: Collection[str],
    left_out: Sequence[str] | None = None,
) -> TakingPart:
    """Return who takes part.

    used: the splits that must have a user; UserError for one of them without a user. left_out: the names of the training users whose
    ratings no training sees, so that `limits` do not decide it.
    """
    new = division.is_new[data.item]
    seen = (division.part == 0) & ~new
    _check_left_out(left_out or (), division.users["train"])
    found: dict[str, Pools] = {}
    said: dict[str, str] = {}
    for split in SPLITS:
        users, support, query = _of_split(split, data, division, scenario, seen, new)
        counts = _counted(data, users, support, query)
        bounds = limits.of(split, sizes[split])
        within = counts.within(*bounds) & counts.enough(sizes[split].shots)
        if split == "train" and left_out is not None:
            within = ~np.isin(users, _places(data, left_out)) & (counts.all >= sizes[split].least)
        found[split] = pools(users[within], data.user, support, query)
        if not within.any():
            said[split] = _nobody(split, counts, bounds, limits, sizes[split], scenario, made=not data.files)
            if split in used:
                raise UserError(said[split])
        elif not within.all() and (split != "train" or left_out is None):
            log.info("leaving out %d of the %d %s users, with %s", (~within).sum(), len(users), split, _why(counts, *bounds))
    if left_out is None:
        training = {data.users.names[place] for place in found["train"].users.tolist()}
        left_out = [name for name in division.users["train"] if name not in training]
    trained = np.setdiff1d(_places(data, division.users["train"]), _places(data, left_out))
    return TakingPart(found, said, seen & np.isin(data.user, trained), left_out)


def _of_split(
    split: str, data: RatingData, division: Division, scenario: Scenario, seen: np.ndarray, new: np.ndarray
) -> tuple[np.ndarray, np.ndarray, np.ndarray | None]:
    """Return the users of a split, the ratings that may be support, and those that may be query; None for the same."""
    group = {"any": np.ones_like(new), "known": ~new, "new": new}[scenario.items]
    if split == "train":
        return _places(data, division.users["train"]), seen, None
    part = SPLITS.index(split)
    if scenario.users == "new":
        return _places(data, division.users[split]), group & (division.part == part), None
    users = _places(data, division.users["train"])
    if scenario.items == "new":  # the training saw none of these ratings: half of the users are val, the others test
        return users[part - 1 :: 2], group, None
    return users, seen, group & (division.part == part)


def _check_left_out(names: Sequence[str], training: Sequence[str]) -> None:
    """Raise UserError for a name that is no training user."""
    known = set(training)
    for name in names:
        if name not in known:
            raise UserError(f"task.left_out names '{printable(str(name))}', who is no training user.{nearest(str(name), training)}")


def _places(data: RatingData, names: Sequence[str]) -> np.ndarray:
    """Return the places of the users of these names; a name without a rating has none."""
    place = {name: number for number, name in enumerate(data.users.names)}
    return np.array([place[name] for name in names if name in place], dtype=np.int64)


def _counted(data: RatingData, users: np.ndarray, support: np.ndarray, query: np.ndarray | None) -> _Counts:
    """Return the numbers of ratings of users. support, query: as `_of_split` has them."""

    def of(rows: np.ndarray) -> np.ndarray:
        return np.bincount(data.user[rows], minlength=len(data.users.names))[users]

    return _Counts(of(support if query is None else support | query), of(support), None if query is None else of(query))


def _range(least: int, most: int | None) -> str:
    return f"{least} or more" if most is None else f"{least} to {most}"


def _why(counts: _Counts, least: int, most: int | None) -> str:
    """Return what the users have that take no part."""
    reasons = [f"fewer than {least:,}"] if (counts.all < least).any() else []
    reasons += [f"more than {most:,}"] if most is not None and (counts.all > most).any() else []
    return f"{' or '.join(reasons) or 'too few known or held-out'} ratings"


def _sized(size: int | str, noun: str) -> str:
    return f"at least 1 {noun}" if size == REST else counted(int(size), noun)


def _nobody(
    split: str, counts: _Counts, bounds: tuple[int, int | None], limits: Limits, sizes: Sizes, scenario: Scenario, *, made: bool
) -> str:
    """Return the sentence about a split without a user. made: whether the users are made ones."""
    who, count = f"task.users={scenario.users} task.items={scenario.items}", counted(len(counts.all), f"{split} user")
    shots, least, most = _sized(sizes.shots, "shot"), *bounds
    need = f"{shots} and {_sized(sizes.queries, 'query')} need"
    if not counts.all.any():
        return f"the {split} split of {who} has no rating at all ({count}); change the scenario, task.split or task.new_share."
    if most is not None and most < least:
        return f"task.max_ratings={most} is below the {least} ratings that {need}; raise it, or lower task.shots or task.queries."
    if counts.within(least, most).any():
        remedy = "lower task.shots, or train a new run with a larger task.hold_out"
        return f"none of the {count} of {who} has {shots} among the training ratings and at least 1 held-out query; {remedy}."
    low, high = int(counts.all.min()), int(counts.all.max())
    reason = f"{need}" if sizes.least >= (limits.least or 0) else f"task.min_ratings={limits.least} asks"
    remedies = ["lower task.min_ratings"] if (limits.least or 0) > high else []
    remedies += ["lower task.shots or task.queries"] if high < sizes.least else []
    remedy = " and ".join(remedies) + (f", or raise task.made_items to {2 * least}" if made and least <= FEWEST else "")
    if high >= least:
        reason, remedy = f"{need} and task.max_ratings={most} allows", "raise task.max_ratings"
    have = f"each has {low}" if low == high else f"they have {low} to {high}"
    return f"none of the {count} of {who} has {_range(least, most)} ratings, as {reason}; {have}. Please {remedy}."
