"""Support and query ratings of users: which ratings an episode may hold, and a random choice of them."""

from __future__ import annotations

from dataclasses import dataclass
from typing import Literal

import numpy as np
import torch
from torch import Tensor

from metarun import draws

Rest = Literal["rest"]
REST: Rest = "rest"
"""All ratings of a user that the other part of the episode does not take."""


@dataclass(frozen=True)
class Pools:
    """The ratings of the users of a split, in rows of one length.

    users: (U,) their places in the data. support: (U, L) places of ratings, -1 beyond a user's last one. query: the same for the query;
    None where support and query come from the same ratings.
    """

    users: Tensor
    support: Tensor
    query: Tensor | None = None


def pools(users: np.ndarray, user: np.ndarray, support: np.ndarray, query: np.ndarray | None) -> Pools:
    """Return the pools of users.

    users: (U,) numbers of users. user: (R,) of each rating. support, query: (R,) bool, the ratings that may be there; None for the same.
    """
    parts = [_padded(users, user, allowed) for allowed in (support, query) if allowed is not None]
    return Pools(torch.from_numpy(users), *parts)


def _padded(users: np.ndarray, user: np.ndarray, allowed: np.ndarray) -> Tensor:
    rows = np.flatnonzero(allowed & np.isin(user, users))
    rows = rows[np.argsort(user[rows], kind="stable")]
    counts = np.bincount(user[rows], minlength=int(users.max(initial=-1)) + 1)[users]
    padded = np.full((len(users), int(counts.max(initial=0))), -1, dtype=np.int64)
    ordered, owners = user[rows], np.argsort(users)
    column = np.arange(len(rows)) - np.searchsorted(ordered, ordered)
    padded[owners[np.searchsorted(users, ordered, sorter=owners)], column] = rows
    return torch.from_numpy(padded)


@dataclass(frozen=True)
class Sizes:
    """The numbers of support and query ratings. A number, or "rest": all ratings that the other part leaves, at most `most`."""

    shots: int | Rest
    queries: int | Rest
    most: int | None = None

    @property
    def least(self) -> int:
        """The fewest ratings of a user that fill an episode, with one rating for each "rest"."""
        return sum(1 if size == REST else int(size) for size in (self.shots, self.queries))

    def counts(self, pools: Pools) -> tuple[Tensor, Tensor]:
        """Return the numbers of support and query ratings of each user, (U,) each."""
        have = (pools.support >= 0).sum(dim=1)
        if pools.query is not None:
            return _of(self.shots, self._cut(have)), _of(self.queries, self._cut((pools.query >= 0).sum(dim=1)))
        have = self._cut(have)
        if self.queries == REST:
            shots = _of(self.shots, have)
            return shots, have - shots
        queries = _of(self.queries, have)
        return _of(self.shots, have - queries), queries

    def _cut(self, have: Tensor) -> Tensor:
        return have if self.most is None else have.clamp(max=self.most)


def _of(size: int | Rest, have: Tensor) -> Tensor:
    return have if size == REST else have.clamp(max=int(size))


def choose(pools: Pools, sizes: Sizes, counts: tuple[Tensor, Tensor], place: Tensor, key: Tensor) -> tuple[Tensor, Tensor]:
    """Return the ratings of T episodes: support (T, K) and query (T, Q) places of ratings, -1 on padding.

    counts: `sizes.counts(pools)`. place: (T,) of the users in `pools`. key: (T,). Each episode has a random order of the user's ratings:
    the query comes first, then the support, so the same key gives the same query whatever the shots, where the queries are a number.
    """
    width, asked = (int(count.max()) for count in counts)
    shots, queries = (count[place] for count in counts)
    if pools.query is not None:
        support = _shuffled(pools.support[place], draws.fold(key, "support"))
        query = _shuffled(pools.query[place], draws.fold(key, "query"))
        return _first(support, shots, width), _first(query, queries, asked)
    mixed = _shuffled(pools.support[place], draws.fold(key, "ratings"))
    if sizes.queries == REST:
        return _first(mixed, shots, width), _first(_from(mixed, shots), queries, asked)
    return _first(_from(mixed, queries), shots, width), _first(mixed, queries, asked)


def _shuffled(rows: Tensor, key: Tensor) -> Tensor:
    """Return the rows (T, L) in a random order, with the padding last."""
    chance = draws.bits(key, rows.shape[1])
    chance = torch.where(rows < 0, torch.iinfo(torch.int64).max, chance)
    return rows.gather(1, chance.argsort(dim=1, stable=True))


def _from(rows: Tensor, start: Tensor) -> Tensor:
    """Return the rows (T, L) from the place `start` (T,) on, padded to L."""
    at = torch.arange(rows.shape[1]) + start[:, None]
    found = rows.gather(1, at.clamp(max=rows.shape[1] - 1))
    return torch.where(at < rows.shape[1], found, -1)


def _first(rows: Tensor, count: Tensor, width: int) -> Tensor:
    """Return the first `count` (T,) of the rows (T, L), padded to `width`."""
    return torch.where(torch.arange(width) < count[:, None], rows[:, :width], -1)
