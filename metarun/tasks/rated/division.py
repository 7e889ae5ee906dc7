"""The division of ratings: which users train, which items are new, and which ratings of a training user are held out.

Three divisions, each from the names and a seed, so that the other data do not change them:

    users    train, val and test users, by shares or by folds
    items    known and new ones (`items` = known or new); no training sees a rating of a new item
    ratings  of each training user, a share `hold_out` is held out of the training: half of it for val, half for test
"""

from __future__ import annotations

import math
from collections import Counter
from collections.abc import Mapping, Sequence
from dataclasses import dataclass
from typing import Literal

import numpy as np
import torch

from metarun import draws
from metarun.errors import UserError, counted, nearest, printable
from metarun.tasks.pool import SPLITS, numbers_of
from metarun.tasks.rated.data import RatingData

Users = Literal["new", "known"]
Items = Literal["any", "known", "new"]
HELD_OUT = 0.2
"""The share of the ratings of a training user that known users are scored on, unless `hold_out` says otherwise."""
YEAR = "year"
"""The feature of items by which `new_from` divides."""


@dataclass(frozen=True)
class Scenario:
    """Who is scored on what. The keys of `metarun.tasks.ratings.ratings` have the same names and meanings."""

    users: Users = "new"
    items: Items = "any"
    new_share: float = 0.2
    new_from: float | None = None
    hold_out: float | None = None

    def __post_init__(self) -> None:
        if self.users == "known" and self.items != "new" and not self.held_out:
            raise UserError(
                "task.users=known is scored on ratings that were held out of the training, and task.hold_out=0 holds none out; train a new "
                f"run with task.hold_out={HELD_OUT:g}."
            )

    @property
    def held_out(self) -> float:
        """The share of a training user's ratings that is held out."""
        return self.hold_out if self.hold_out is not None else HELD_OUT if self.users == "known" else 0.0


@dataclass(frozen=True)
class Division:
    """users: split -> names. new_items: names, () where no item is new. part: (R,) the split to which each rating belongs, as its place in
    `SPLITS`; the held-out ratings of a training user have 1 or 2. is_new: (I,) bool.
    """

    users: Mapping[str, Sequence[str]]
    new_items: Sequence[str]
    part: np.ndarray
    is_new: np.ndarray


def divide(
    data: RatingData,
    scenario: Scenario,
    shares: Sequence[float],
    folds: tuple[int, int] | None,
    seed: int,
    users: Mapping[str, Sequence[str]] | None = None,
    new_items: Sequence[str] | None = None,
) -> Division:
    """Divide a data set.

    shares: of the users for train, val and test. folds: (fold, number of folds) instead. users, new_items: names that restore a division.
    Raises UserError for shares and folds that are none, for names that the data lack, and for too few users or items.
    """
    names = data.users.names
    splits = (
        _named(users, names) if users is not None else _by_fold(names, folds, seed) if folds is not None else _by_share(names, shares, seed)
    )
    fresh = _new_items(data, scenario, seed, new_items)
    is_new = np.isin(np.array(data.items.names, dtype=object), fresh)
    of_user = np.zeros(len(names), dtype=np.int64)
    place = {name: row for row, name in enumerate(names)}
    for number, split in enumerate(SPLITS):
        of_user[[place[name] for name in splits[split]]] = number
    part = of_user[data.user]
    trained = part == 0
    part[trained] = _held_out(data, trained, scenario.held_out, seed)
    return Division(splits, fresh, part, is_new)


def _by_share(names: Sequence[str], shares: Sequence[float], seed: int) -> dict[str, list[str]]:
    """Deal the users, in a seeded order, to train, val and test by their shares; each split gets at least one."""
    numbers = [share for share in shares if isinstance(share, int | float)]
    if len(shares) != 3 or len(numbers) != 3 or min(numbers) <= 0 or abs(sum(numbers) - 1) > 1e-6:
        raise UserError(f"task.split={list(shares)} must be three shares above 0 that sum to 1, for example [0.8, 0.1, 0.1].")
    _check_users(len(names), 3)
    order = _ordered(names, seed)
    val, test = (max(1, round(share * len(names))) for share in shares[1:])
    test = min(test, len(names) - 2)
    val = min(val, len(names) - 1 - test)
    return {
        "train": order[: len(names) - val - test],
        "val": order[len(names) - val - test : len(names) - test],
        "test": order[len(names) - test :],
    }


def _by_fold(names: Sequence[str], folds: tuple[int, int], seed: int) -> dict[str, list[str]]:
    """Return fold `fold` of the users as test, the next one as val, and the others as train."""
    fold, count = folds
    if not 0 <= fold < count:
        raise UserError(f"task.fold={fold} must lie between 0 and task.folds - 1 = {count - 1}.")
    if count < 3:
        raise UserError(f"task.folds={count} must be at least 3: one fold for test, one for val, and at least one for train.")
    if 3 <= len(names) < count:
        raise UserError(
            f"task.folds={count} needs at least as many users, and the ratings have {len(names)}; lower task.folds. Is task.user right?"
        )
    _check_users(len(names), 3)
    order = _ordered(names, seed)
    edges = [round(number * len(order) / count) for number in range(count + 1)]
    parts = [order[a:b] for a, b in zip(edges, edges[1:], strict=False)]
    val = (fold + 1) % count
    train = [name for number, part in enumerate(parts) if number not in (fold, val) for name in part]
    return {"train": train, "val": parts[val], "test": parts[fold]}


def _check_users(count: int, needed: int) -> None:
    if count < needed:
        have = counted(count, "user")
        raise UserError(f"the ratings have {have}; a division into train, val and test needs at least {needed}. Is task.user right?")


def _named(users: Mapping[str, Sequence[str]], known: Sequence[str]) -> dict[str, list[str]]:
    """Return the division that the user or a checkpoint gives by name."""
    if set(users) != set(SPLITS):
        raise UserError(f"task.tasks has the splits {', '.join(users)}; it needs {', '.join(SPLITS)}.")
    chosen = {split: [str(name) for name in users[split]] for split in SPLITS}
    present = set(known)
    for name, times in Counter(name for names in chosen.values() for name in names).items():
        if name not in present:
            raise UserError(
                f"task.tasks names the user '{printable(name)}', who has no rating in the data.{printable(nearest(name, known))}"
            )
        if times > 1:
            raise UserError(f"task.tasks names the user '{printable(name)}' {times} times; a user belongs to one split.")
    for split in SPLITS:
        if not chosen[split]:
            raise UserError(f"task.tasks has no user for {split}; each split needs at least one.")
    left = [name for name in known if name not in {name for names in chosen.values() for name in names}]
    if left:
        raise UserError(f"task.tasks leaves out {len(left)} of the {len(known)} users, such as '{printable(left[0])}'; give each a split.")
    return chosen


def _new_items(data: RatingData, scenario: Scenario, seed: int, given: Sequence[str] | None) -> tuple[str, ...]:
    """Return the names of the new items, in the order of the items."""
    names = data.items.names
    if given is not None:  # also with items=any: the training of a checkpoint has not seen these
        unknown = [name for name in given if name not in set(names)]
        if unknown:
            raise UserError(
                f"task.new_items names '{printable(unknown[0])}', which is no item of the data.{printable(nearest(unknown[0], names))}"
            )
        fresh = set(given)
    elif scenario.items == "any":
        return ()
    elif scenario.new_from is not None:
        feature = data.feature("item", YEAR)
        if feature is None:
            raise UserError(
                f"task.new_from={scenario.new_from:g} needs the year of each item, and the items have none; use task.new_share."
            )
        fresh = {name for name, year in zip(names, np.asarray(feature.values, dtype=np.float64), strict=True) if year >= scenario.new_from}
    else:
        fresh = set(_ordered(names, seed)[: round(scenario.new_share * len(names))])
    if not 0 < len(fresh) < len(names):
        which = "new" if not fresh else "known"
        raise UserError(
            f"none of the {len(names)} items is {which}; change task.{'new_share' if scenario.new_from is None else 'new_from'}."
        )
    return tuple(name for name in names if name in fresh)


def _held_out(data: RatingData, trained: np.ndarray, share: float, seed: int) -> np.ndarray:
    """Return for each rating of the training users whether it trains (0) or is held out for val (1) or test (2).

    A hash of the names of user and item gives the order in which the ratings of a user are held out. Their number is `share` of the user's
    ratings, rounded.
    """
    part = np.zeros(int(trained.sum()), dtype=np.int64)
    if share == 0.0:
        return part
    key = draws.key(seed, "held out")
    user, item = data.user[trained], data.item[trained]
    users, items = (numbers_of(owners.names)[torch.from_numpy(rows)] for owners, rows in ((data.users, user), (data.items, item)))
    chance = draws.uniform(draws.fold(draws.fold(key, users), items), dtype=torch.float64).numpy()
    order = np.lexsort((chance, user))
    for rows in np.split(order, np.flatnonzero(np.diff(user[order])) + 1):
        held = round(share * len(rows))
        part[rows[: math.ceil(held / 2)]] = 2
        part[rows[math.ceil(held / 2) : held]] = 1
    return part


def _ordered(names: Sequence[str], seed: int) -> list[str]:
    """Return the names in an order of the seed, which does not depend on the order in which they are given."""
    known = sorted(names)
    return [known[place] for place in draws.permutation(draws.key(seed, "division"), len(known)).tolist()]
