"""A data set of ratings in memory: who rated what, and what is known of users and items."""

from __future__ import annotations

from collections.abc import Sequence
from dataclasses import dataclass, field
from typing import NamedTuple

import numpy as np

from metarun.tasks.fingerprint import Fingerprint


class Feature(NamedTuple):
    """A feature of each user or item, before it becomes inputs.

    kind: "category", with one word for each owner, "" where unknown; "several", with a tuple of words; "number", with a float, NaN where
    unknown.
    values: one for each owner, in the order of the owners.
    """

    name: str
    kind: str
    values: Sequence[str] | Sequence[tuple[str, ...]] | np.ndarray


class Owners(NamedTuple):
    """The users or the items of a data set. names: the identifiers of the file, as text. titles: for people; () where the file has none."""

    names: tuple[str, ...]
    features: tuple[Feature, ...] = ()
    titles: tuple[str, ...] = ()


@dataclass(frozen=True)
class RatingData:
    """Ratings with their users and items.

    user, item: (R,) int64, places in `users` and `items`. rating: (R,) float64.
    scale: the lowest and the highest possible rating. name: of the data set. files: the fingerprint; {} where there is no file.
    """

    user: np.ndarray
    item: np.ndarray
    rating: np.ndarray
    users: Owners
    items: Owners
    scale: tuple[float, float]
    name: str
    files: Fingerprint = field(default_factory=dict)

    def feature(self, of: str, name: str) -> Feature | None:
        """Return a feature by its name; None where there is none."""
        return next((each for each in getattr(self, f"{of}s").features if each.name == name), None)
