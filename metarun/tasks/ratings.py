"""Personalised recommendation: a user is a task, ratings are examples, and the target is the rating of an item.

An input x is what is known of the user and of the item (`RatingTasks.columns`). Without a file, the ratings are those of made users
(`metarun.tasks.rated.synthetic`).
"""

from __future__ import annotations

from collections.abc import Mapping, Sequence
from dataclasses import dataclass, field
from functools import cached_property

import numpy as np
import torch
from torch import Tensor

from metarun import draws
from metarun.episodes import first_of
from metarun.errors import UserError
from metarun.tasks.fingerprint import Fingerprint
from metarun.tasks.pool import SPLITS, check_split
from metarun.tasks.preparing.ratings_preparation import RatingsPreparation
from metarun.tasks.rated.data import RatingData
from metarun.tasks.rated.division import Division, Scenario, divide
from metarun.tasks.rated.encoding import Table, encode, identifiers, number_column
from metarun.tasks.rated.episodes import Sizes, choose
from metarun.tasks.rated.files import read_ratings
from metarun.tasks.rated.keys import Ratings, check_division, check_inputs, check_relevant, keys_of
from metarun.tasks.rated.preparing import prepared_ratings
from metarun.tasks.rated.statistics import ItemStatistics, item_statistics
from metarun.tasks.rated.synthetic import synthetic
from metarun.tasks.rated.taking_part import TakingPart, taking_part
from metarun.types import Column, Episode, Examples, Rated, RatingList
from metarun.values import Listed

UNIT = "rating"
"""The name of the target."""
RELEVANT = 0.75
"""The place of the lowest rating of a relevant item in the scale, from 0 to 1."""


@dataclass(frozen=True)
class RatingTasks:
    """Episodes of users: x (K, C) of the support and (Q, C) of the query, y (K, 1) and (Q, 1) standardised ratings.

    x holds the columns of the user, and then those of the item (`columns`). Users have unequal numbers of ratings, so an episode has a mask
    where its split needs one. In "train", each episode draws a user. In "val" and "test", the episodes take the users in turn, and the
    ratings of an episode are drawn anew in each turn.

    who: the users and ratings of each split. sizes: split -> the numbers of support and query ratings.
    item_bias: whether the columns have the bias and the count of the items. residual: whether y is what the item's bias leaves.
    """

    data: RatingData
    division: Division
    scenario: Scenario
    who: TakingPart
    sizes: Mapping[str, Sizes]
    item_ids: bool = True
    item_bias: bool = False
    residual: bool = False
    relevant: float | None = None
    seed: int = 0
    eval_seed: int = 0
    objective: str = "regression"
    tasks: Mapping[str, Sequence[str]] = field(init=False, repr=False)
    chosen: Mapping[str, object] = field(init=False, repr=False)

    def __post_init__(self) -> None:
        object.__setattr__(self, "tasks", self.division.users)
        fresh = list(self.division.new_items) or None
        object.__setattr__(self, "chosen", {"new_items": fresh, "hold_out": self.scenario.held_out, "left_out": list(self.who.left_out)})

    def episode(self, split: str, index: int) -> Episode:
        """Deal episode `index`."""
        return first_of(self.batch(split, torch.tensor([index])))

    def batch(self, split: str, indices: Tensor) -> Episode:
        """Deal the episodes `indices` (T,) at once, with a leading axis T."""
        place, rows = self._rows(split, indices)
        user = self.who.pools[split].users[place]
        padded = [bool((counts < counts.max()).any()) for counts in self._counts[split]]
        return Episode(*(self._examples(user, part, masked) for part, masked in zip(rows, padded, strict=True)))

    def columns(self) -> tuple[Column, ...]:
        """Return the features of x in order."""
        return tuple(each.column for table in (self.user_table, self.item_table) for each in table.features)

    def units(self) -> dict[str, float]:
        """Return the size of one standardised unit in the unit of the ratings."""
        return {UNIT: self.unit()}

    def unit(self) -> float:
        """Return the standard deviation that standardises the targets."""
        return self._target[1]

    def scale(self) -> tuple[float, float]:
        """Return the lowest and the highest possible rating."""
        return self.data.scale

    def training_ratings(self) -> RatingList:
        """Return the ratings that a training may see."""
        rows = self.who.trains
        return RatingList(*(torch.from_numpy(values[rows]) for values in (self.data.user, self.data.item, self.data.rating)))

    def rated(self, split: str, indices: Tensor) -> Rated:
        """Return the users, items and ratings of the episodes `indices` (T,)."""
        place, (support, query) = self._rows(split, indices)
        items, ratings = torch.from_numpy(self.data.item), torch.from_numpy(self.data.rating)

        def of(values: Tensor, rows: Tensor, padding: float) -> Tensor:
            return torch.where(rows < 0, padding, values[rows.clamp(min=0)])

        offset = torch.from_numpy(self._offsets)[query.clamp(min=0)]
        user = self.who.pools[split].users[place]
        return Rated(
            user, of(items, support, -1), of(items, query, -1), of(ratings, support, torch.nan), of(ratings, query, torch.nan), offset
        )

    def item_offsets(self) -> Tensor:
        """Return the offset of each item, (I,)."""
        bias = self.statistics.bias if self.residual else np.zeros(len(self.data.items.names))
        return torch.from_numpy(self._target[0] + bias)

    def least_relevant(self) -> float:
        """Return the lowest rating of a relevant item."""
        low, high = self.data.scale
        return low + RELEVANT * (high - low) if self.relevant is None else self.relevant

    def user_names(self) -> tuple[str, ...]:
        """Return the names of the users, by their numbers."""
        return self.data.users.names

    def item_inputs(self) -> Tensor:
        """Return the columns of x that describe each item, (I, columns of the item)."""
        return self.item_table.values

    def candidates(self, split: str, indices: Tensor) -> Tensor:
        """Return which items a ranking may hold, (T, I) bool."""
        group = {"any": np.ones_like(self.division.is_new), "known": ~self.division.is_new, "new": self.division.is_new}[
            self.scenario.items
        ]
        rated = self.rated(split, indices)
        users, row = rated.user.unique(return_inverse=True)
        place = np.full(len(self.data.users.names), -1)
        place[users.numpy()] = np.arange(len(users))
        of_user = place[self.data.user]
        allowed = np.tile(group, (len(users), 1))
        allowed[of_user[of_user >= 0], self.data.item[of_user >= 0]] = False
        asked = rated.query >= 0
        found = torch.from_numpy(allowed)[row]
        found[asked.nonzero()[:, 0], rated.query[asked]] = True
        return found

    def origins(self, split: str) -> tuple[str, ...]:
        """Return the names of the users of a split and, where items are divided, of the items that a training sees or a test holds.

        A training without held-out ratings has the names of its users' held-out ratings too, since it sees them.
        """
        names = [f"{self.data.name}/user {self.data.users.names[place]}" for place in self.who.pools[split].users.tolist()]
        if split == "train":
            seen = np.unique(self.data.item[self.who.trains])
            items = [f"{self.data.name}/item {self.data.items.names[place]}" for place in seen.tolist()]
            return (*names, *([] if self.scenario.held_out else [f"{name}, held out" for name in names]), *items)
        if self.scenario.users == "known":
            names = [f"{name}, held out" for name in names] if self.scenario.items != "new" else []
        fresh = self.division.new_items if self.scenario.items == "new" else ()
        return (*names, *(f"{self.data.name}/item {name}" for name in fresh))

    def population(self, split: str) -> int:
        """Return the number of users of a split."""
        return len(self.who.pools[split].users)

    def fingerprint(self) -> Fingerprint:
        """Return the fingerprint of the files."""
        return {**self.data.files, "name": self.data.name} if self.data.files else {}

    def preparation(self) -> RatingsPreparation:
        """Return how items by name, and facts about a user, become inputs."""
        offsets = self.statistics.bias.tolist() if self.residual else ()
        return prepared_ratings(self.data.items, (self.user_table, self.item_table), self.scale(), self._target, offsets)

    @cached_property
    def statistics(self) -> ItemStatistics:
        """The bias and the count of each item in the training ratings."""
        return item_statistics(self.training_ratings(), len(self.data.items.names), self.data.item, self.data.rating, self.who.trains)

    @cached_property
    def user_table(self) -> Table:
        """The columns of x that describe each user."""
        return encode(self.data.users, "user", np.isin(np.arange(len(self.data.users.names)), self.data.user[self.who.trains]))

    @cached_property
    def item_table(self) -> Table:
        """The columns of x that describe each item: its features, its bias and count where asked for, and its index last."""
        trained = self.statistics.number > 0
        extra = [number_column(name, "item", values, trained) for name, (values, _) in self._told.items()]
        extra += [identifiers(self.data.items, "item", trained)] if self.item_ids else []
        return encode(self.data.items, "item", trained, extra)

    @cached_property
    def _told(self) -> dict[str, tuple[np.ndarray, np.ndarray]]:
        """Name -> a number of each item (I,), and of the item of each rating without this rating (R,)."""
        known = self.statistics
        counts = {"item count": (np.log1p(known.number), np.log1p(known.rating_number))}
        return {"item bias": (known.bias, known.rating_bias), **counts} if self.item_bias else {}

    @cached_property
    def _target(self) -> tuple[float, float]:
        """The mean and the deviation of the targets of the training; the mean of residuals is that of the ratings."""
        ratings = self.data.rating[self.who.trains] - (self.statistics.rating_bias[self.who.trains] if self.residual else 0.0)
        deviation = float(ratings.std())
        return self.statistics.mean if self.residual else float(ratings.mean()), deviation if deviation > 0.0 else 1.0

    @cached_property
    def _offsets(self) -> np.ndarray:
        """The rating, for each rating of the data, that the output 0 stands for."""
        bias = self.statistics.rating_bias if self.residual else np.zeros(len(self.data.rating))
        offsets: np.ndarray = self._target[0] + bias
        return offsets

    @cached_property
    def _values(self) -> tuple[Tensor, Tensor]:
        """The columns of the item (R, columns of the item) and the target (R, 1) of each rating."""
        x = self.item_table.values[torch.from_numpy(self.data.item)]
        start = 0
        for each in self.item_table.features:
            if each.column.name in self._told:
                standard = (self._told[each.column.name][1] - each.mean) / each.deviation
                x[:, start] = torch.from_numpy(standard).float()
            start += each.column.width
        return x, torch.from_numpy((self.data.rating - self._offsets) / self.unit()).float()[:, None]

    @cached_property
    def _counts(self) -> dict[str, tuple[Tensor, Tensor]]:
        """Split -> the numbers of support and query ratings of each user."""
        return {split: self.sizes[split].counts(self.who.pools[split]) for split in SPLITS if self.population(split)}

    def _rows(self, split: str, indices: Tensor) -> tuple[Tensor, tuple[Tensor, Tensor]]:
        """Return the places of the users in the pools (T,), and the places of the support and of the query ratings, -1 on padding."""
        check_split(split)
        if split in self.who.said:
            raise UserError(self.who.said[split])
        key = draws.key(self.seed if split == "train" else self.eval_seed, split, indices)
        count = self.population(split)
        place = draws.integers(draws.fold(key, "user"), size=count) if split == "train" else indices % count
        return place, choose(self.who.pools[split], self.sizes[split], self._counts[split], place, key)

    def _examples(self, user: Tensor, rows: Tensor, padded: bool) -> Examples:
        """Return the examples of ratings (T, B) of users (T,)."""
        real = (rows >= 0)[..., None]
        items, y = (values[rows.clamp(min=0)] for values in self._values)
        x = torch.cat([self.user_table.values[user][:, None].expand(-1, rows.shape[1], -1), items], dim=-1)
        return Examples(torch.where(real, x, 0.0), torch.where(real, y, 0.0), real[..., 0] if padded else None)


def ratings(
    *,
    tasks: Mapping[str, Listed] | None = None,
    new_items: Sequence[str] | None = None,
    left_out: Sequence[str] | None = None,
    used: Sequence[str] = SPLITS,
    **keys: Ratings,
) -> RatingTasks:
    """Return the source of users as tasks: of the files that `path` names, or of made users.

    tasks: the names of the users of each split. new_items: the names of the new items. left_out: the names of the training users whose
    ratings no training sees; None for those outside of the limits. used: the splits that must have a user; another split without a user
    raises UserError only when it is dealt. keys: the fields of `metarun.tasks.rated.keys.RatingKeys`.
    Raises UserError, with one sentence, for files that cannot be read, and where a split has no user with enough ratings.
    """
    asked = keys_of(keys)
    if new_items is None:
        check_division(asked)
    data = synthetic(asked.made_users, asked.made_items, asked.split_seed) if asked.path is None else read_ratings(asked)
    folds = None if asked.folds is None else (asked.fold, asked.folds)
    check_relevant(asked.relevant, data.scale)
    check_inputs(asked, data)
    division = divide(data, asked.scenario, asked.split, folds, asked.split_seed, tasks, new_items)
    who = taking_part(data, division, asked.scenario, asked.limits, asked.sizes, used, left_out)
    inputs = (asked.item_ids, asked.item_bias, asked.residual)
    return RatingTasks(data, division, asked.scenario, who, asked.sizes, *inputs, asked.relevant, asked.seed, asked.eval_seed)
