"""Made users with latent tastes, so that recommendation runs without a file.

    rating = round(3.5 + quality of the item + mood of the user + taste · flavour + noise),    cut to 1 … 5

A user's taste and an item's flavour are vectors of `FACTORS` normal numbers. The strongest factor of an item is its genre, and the sign of
a user's first factor is the group of the user, so features tell a part of the tastes. A user rates popular items more often, and good ones.
"""

from __future__ import annotations

import numpy as np
import torch
from torch import Tensor

from metarun import draws
from metarun.tasks.rated.data import Feature, Owners, RatingData

FACTORS = 4
QUALITY, MOOD, TASTE, NOISE = 0.4, 0.4, 0.9, 0.4
"""Standard deviations of the parts of a rating."""
FEWEST, MOST = 20, 100
"""Ratings of a user."""
SCALE = (1.0, 5.0)


def synthetic(users: int, items: int, seed: int) -> RatingData:
    """Return ratings of made users. A user rates at most half of the items."""
    key = draws.key(seed, "made ratings")
    taste, flavour = (
        draws.normal(draws.fold(key, name), count, FACTORS, dtype=torch.float64) for name, count in (("taste", users), ("flavour", items))
    )
    quality = QUALITY * draws.normal(draws.fold(key, "quality"), items, dtype=torch.float64)
    mood = MOOD * draws.normal(draws.fold(key, "mood"), users, dtype=torch.float64)
    true = 3.5 + quality + mood[:, None] + TASTE * (taste @ flavour.T) / FACTORS**0.5
    user, item = _chosen(draws.fold(key, "choice"), users, quality)
    noise = NOISE * draws.normal(draws.fold(key, "noise"), users, items, dtype=torch.float64)
    rating = (true + noise)[user, item].round().clamp(*SCALE)
    genres, signs = flavour.abs().argmax(dim=1), flavour > 0
    words = [f"{'plus' if signs[row, genre] else 'minus'} {genre + 1}" for row, genre in enumerate(genres.tolist())]
    return RatingData(
        user.numpy(),
        item.numpy(),
        rating.numpy(),
        Owners(
            _names("user", users), (Feature("group", "category", ["left" if first < 0 else "right" for first in taste[:, 0].tolist()]),)
        ),
        Owners(_names("item", items), (Feature("genre", "category", words), Feature("year", "number", _years(key, items)))),
        SCALE,
        "made ratings",
    )


def _chosen(key: Tensor, users: int, quality: Tensor) -> tuple[Tensor, Tensor]:
    """Return the users and the items of all ratings: each user draws items without replacement, good and popular ones more often."""
    items = len(quality)
    most = max(1, min(MOST, items // 2))
    count = min(FEWEST, most) + draws.integers(draws.fold(key, "count"), users, size=most - min(FEWEST, most) + 1)
    popularity = 2.0 * draws.uniform(draws.fold(key, "popularity"), items, dtype=torch.float64)
    chance = draws.uniform(draws.fold(key, "gumbel"), users, items, dtype=torch.float64).clamp(min=1e-12)
    order = (quality + popularity - (-chance.log()).log()).argsort(dim=1, descending=True, stable=True)  # the Gumbel-top-k trick
    taken = torch.arange(items) < count[:, None]
    user = torch.arange(users)[:, None].expand(users, items)
    return user[taken], order[taken]


def _names(kind: str, count: int) -> tuple[str, ...]:
    return tuple(f"{kind} {number + 1}" for number in range(count))


def _years(key: Tensor, items: int) -> np.ndarray:
    years: np.ndarray = 1980 + draws.integers(draws.fold(key, "year"), items, size=40).double().numpy()
    return years
