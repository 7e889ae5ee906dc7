"""Simple predictions of ratings, beside which every model stands. They read the training ratings and the user's own support alone.

    global mean        μ, the mean of the training ratings
    support mean       the mean of the user's support ratings
    item bias          μ + b_i,          b_i = Σ_u (r_ui - μ) / (n_i + λ)
    item + user bias   μ + b_i + b_u,    b_u = Σ_support (r_ui - μ - b_i) / (n + λ_u)

In the last one, the b_i minimise Σ (r_ui - μ - b_u - b_i)² + λ_i Σ b_i² + λ_u Σ b_u² over the training ratings, as in Koren 2010,
"Factor in the neighbors" (ACM TKDD 4, https://doi.org/10.1145/1644873.1644874), found by `ROUNDS` rounds of alternating minimisation. The
b_u of the user of a task comes from the support alone. The λ with the least mean absolute error on validation users are taken. Two rankings
predict no rating: the popularity, which is n_i, and the random order.
"""

from __future__ import annotations

import weakref
from collections.abc import Callable, Sequence
from dataclasses import dataclass
from itertools import product
from typing import TypeVar

import torch
from torch import Tensor
from torch.nn.functional import embedding_bag

from metarun.errors import UserError
from metarun.types import Rated, RatingList, WithOrigins, WithRatings

GLOBAL, SUPPORT, ITEM, BIAS, POPULARITY, RANDOM = "global_mean", "support_mean", "item_bias", "item_user_bias", "popularity", "random_order"
SHRINKAGES = (1.0, 2.0, 3.0, 5.0, 10.0, 25.0)
"""The values of λ among which the validation chooses."""
USUAL = 5.0
"""The λ where there is no validation user."""
ROUNDS = 5
Value = TypeVar("Value")
Pair = tuple[float, float]
"""λ_i and λ_u."""
CHOOSING = 1000
"""Most validation episodes that choose."""


@dataclass(frozen=True)
class Biases:
    """Baselines that are fitted. mean: μ. item_alone, item: (I,) the b_i of `ITEM` and of `BIAS`. count: (I,) training ratings.

    shrinkage: the λ by name: "item_alone", "item", "user". chosen: whether validation users chose them.
    """

    mean: float
    item_alone: Tensor
    item: Tensor
    count: Tensor
    shrinkage: dict[str, float]
    chosen: bool

    def predictions(self, rated: Rated) -> dict[str, Tensor]:
        """Return the rating that each baseline predicts for each query, (T, Q) float64, by name; 0 for all in `RANDOM`."""
        items = rated.query.clamp(min=0)
        own = user_bias(rated, self.mean + self.item[rated.support.clamp(min=0)], self.shrinkage["user"])
        flat = torch.zeros_like(rated.query_rating)
        return {
            GLOBAL: flat + self.mean,
            SUPPORT: flat + rated.support_rating.nanmean(dim=1, keepdim=True),
            ITEM: self.mean + self.item_alone[items],
            BIAS: self.mean + self.item[items] + own,
            POPULARITY: self.count[items],
            RANDOM: flat,
        }

    def orders(self) -> dict[str, Tensor]:
        """Return the score of each item, (I,), for a ranking of all candidates, by name. A user bias does not change an order."""
        return {ITEM: self.item_alone, BIAS: self.item, POPULARITY: self.count, RANDOM: torch.zeros_like(self.count)}


PREDICT_RATINGS = (GLOBAL, SUPPORT, ITEM, BIAS)
"""The baselines that predict ratings; the others only rank."""


def user_bias(rated: Rated, expected: Tensor, shrinkage: float) -> Tensor:
    """Return b_u, (T, 1), from the support ratings and what is expected of them without the user, (T, K)."""
    real = rated.support >= 0
    difference = torch.where(real, rated.support_rating.nan_to_num() - expected, 0.0)
    return difference.sum(dim=1, keepdim=True) / (real.sum(dim=1, keepdim=True) + shrinkage)


def item_biases(known: RatingList, items: int, shrinkage: float) -> Tensor:
    """Return the shrunken mean deviation of each item from the mean, (I,)."""
    sums = torch.bincount(known.item, known.rating - known.rating.mean(), minlength=items)
    return sums / (torch.bincount(known.item, minlength=items) + shrinkage)


def joint_biases(known: RatingList, items: int, shrinkages: Sequence[Pair]) -> Tensor:
    """Return the b_i, (P, I), that fit the training ratings together with biases of the training users, for P pairs (λ_i, λ_u)."""
    deviation = known.rating - known.rating.mean()
    users = int(known.user.max()) + 1
    of_items = _shrunken(known.item, known.user, deviation, items)
    of_users = _shrunken(known.user, known.item, deviation, users)
    first, second = torch.tensor(shrinkages, dtype=torch.float64).T
    user = torch.zeros(users, len(shrinkages), dtype=torch.float64)
    for _ in range(ROUNDS):
        user = of_users(of_items(user, first), second)
    return of_items(user, first).T.contiguous()


def _shrunken(owner: Tensor, other: Tensor, deviation: Tensor, count: int) -> Callable[[Tensor, Tensor], Tensor]:
    """Return the function that gives the biases of `count` owners, (O, P), from the biases of the others (N, P) and the λ (P,).

    owner, other: (R,) the item and the user of each rating, or the user and the item. deviation: (R,) from the mean.
    """
    number = torch.bincount(owner, minlength=count)
    sums, starts = torch.bincount(owner, deviation, minlength=count), number.cumsum(0) - number
    others = other[owner.argsort(stable=True)]  # those of the first owner, then those of the second, …

    def biases(of_others: Tensor, shrinkage: Tensor) -> Tensor:
        explained = embedding_bag(others, of_others, starts, mode="sum")
        return (sums[:, None] - explained) / (number[:, None] + shrinkage)

    return biases


_FITTED: dict[int, tuple[weakref.ref[WithRatings], Biases]] = {}
"""The baselines of the sources that live, by the identity of the source: every validation of a run has the same ones."""


def biases_of(source: WithRatings) -> Biases:
    """Return the baselines of a source; the first call fits them."""
    known = _FITTED.get(id(source))
    if known is None or known[0]() is not source:
        place = id(source)
        known = _FITTED[place] = (weakref.ref(source, lambda _: _FITTED.pop(place, None)), fit(source))
    return known[1]


def fit(source: WithRatings, shrinkages: Sequence[float] = SHRINKAGES) -> Biases:
    """Fit the baselines on the training ratings, and choose the λ on validation users."""
    known, items = source.training_ratings(), len(source.item_offsets())
    mean = float(known.rating.mean())
    alone = {value: item_biases(known, items, value) for value in shrinkages}
    pairs = list(product(shrinkages, shrinkages))
    joint = dict(zip(pairs, joint_biases(known, items, pairs), strict=True))
    rated = _validation(source)
    first, pair = USUAL, (USUAL, USUAL)
    if rated is not None:
        queries = rated.query.clamp(min=0)

        def both(pair: Pair) -> Tensor:
            return mean + joint[pair][queries] + user_bias(rated, mean + joint[pair][rated.support.clamp(min=0)], pair[1])

        first = _least(alone, lambda value: _error(rated, mean + alone[value][queries], source.scale()))
        pair = _least(joint, lambda value: _error(rated, both(value), source.scale()))
    chosen = {"item_alone": first, "item": pair[0], "user": pair[1]}
    count = torch.bincount(known.item, minlength=items).double()
    return Biases(mean, alone[first], joint[pair], count, chosen, rated is not None)


def _validation(source: WithRatings) -> Rated | None:
    """Return an episode of each validation user; None where the validation split has no user."""
    count = (source.population("val") if isinstance(source, WithOrigins) else None) or CHOOSING
    try:
        return source.rated("val", torch.arange(min(count, CHOOSING)))
    except UserError:
        return None


def _least(values: dict[Value, Tensor], error: Callable[[Value], float]) -> Value:
    return min(values, key=error)


def _error(rated: Rated, predicted: Tensor, scale: tuple[float, float]) -> float:
    """Return the mean over the users of the mean absolute error."""
    return float((predicted.clamp(*scale) - rated.query_rating).abs().nanmean(dim=1).mean())
