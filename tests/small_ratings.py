"""Users with tastes, small enough to compute with in float64 in a moment: the layout of x and y that task=ratings has."""

from __future__ import annotations

from dataclasses import dataclass
from typing import Any

import torch
from torch import Tensor

from metarun import draws
from metarun.backbones.classifier import Classifier
from metarun.backbones.embeddings import Embeddings
from metarun.network import Network
from metarun.tasks.preparing.rating_features import Feature
from metarun.tasks.preparing.ratings_preparation import RatingsPreparation
from metarun.types import Episode, Examples

COLUMNS = (
    ("gender", "category", 3, "user"),
    ("genres", "several", 4, "item"),
    ("year", "number", 1, "item"),
    ("item", "category", 9, "item"),
)
WIDTH = 7


FILMS = RatingsPreparation(
    names=("1", "50", "90", "91"),
    titles=("Toy Story (1995)", "Heat (1995)", "Sabrina (1954)", "Sabrina (1995)"),
    user=(Feature("gender", "category", ("F", "M")),),
    item=(
        Feature("genres", "several", ("Comedy", "Crime"), values=((0,), (1,), (0,), (0,))),
        Feature("item", "category", ("1", "50"), values=(1, 2, 0, 0)),
    ),
    scale=(0.5, 5.0),
    mean=3.5,
    deviation=0.5,
)
"""Four films, two of which have the same title apart from the year, and two of which the training has not seen."""


def inputs(key: Tensor, rows: int) -> Tensor:
    """Return x (rows, 7) of one user: gender, genres, year and item."""
    gender = draws.integers(draws.fold(key, "gender"), size=3).expand(rows, 1)
    genres = draws.uniform(draws.fold(key, "genres"), rows, 4) < 0.4
    year = draws.normal(draws.fold(key, "year"), rows, 1)
    item = draws.integers(draws.fold(key, "item"), rows, 1, size=9)
    return torch.cat([gender.float(), genres.float(), year, item.float()], dim=1)


@dataclass(frozen=True)
class Tastes:
    """A user likes some genres: y is their sum and an offset. x (B, 7), y (B, 1)."""

    shots: int = 5
    queries: int = 4
    objective: str = "regression"

    def columns(self) -> tuple[tuple[str, str, int, str], ...]:
        return COLUMNS

    def episode(self, split: str, index: int) -> Episode:
        key = draws.key(0, split, index)
        x = inputs(key, self.shots + self.queries)
        y = x[:, 1:5] @ draws.normal(draws.fold(key, "taste"), 4, 1) + draws.normal(draws.fold(key, "offset"), 1)
        return Episode(Examples(x[: self.shots], y[: self.shots]), Examples(x[self.shots :], y[self.shots :]))


def taste_network(*, head: bool = True, **options: Any) -> Network:
    """Return the network of MeLU for `Tastes`, with smooth decision layers, so that second derivatives exist everywhere."""
    with torch.random.fork_rng():
        torch.manual_seed(0)
        body = Embeddings((WIDTH,), COLUMNS, dimension=3, widths=(4, 4), activation="tanh", **options).double()
        return Network(Classifier(body, 1).double() if head else body)
