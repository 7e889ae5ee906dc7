"""Types of recommendation: the meaning of the columns of x, and a source of ratings in which each task is a user.

Axes: T users of a batch, K support and Q query ratings of a user, I items, C columns of x, R ratings of a list.
"""

from __future__ import annotations

from collections.abc import Sequence
from typing import NamedTuple, Protocol, runtime_checkable

from torch import Tensor

KINDS = ("category", "several", "number")
OWNERS = ("user", "item")


class Column(NamedTuple):
    """One feature of the inputs x.

    kind: "category" is one column of x with an index 0 … size - 1, where 0 is unknown. "several" is `size` columns of 0 and 1. "number" is
    one standardised column, and its size is 1.
    of: the owner, "user" or "item".
    """

    name: str
    kind: str
    size: int
    of: str

    @property
    def width(self) -> int:
        """The number of columns of x."""
        return self.size if self.kind == "several" else 1


@runtime_checkable
class WithColumns(Protocol):
    """A source that says what the columns of its inputs mean, so that a network can embed them."""

    def columns(self) -> Sequence[Column]:
        """Return the features of x in order; their widths sum to the number of columns of x."""


class RatingList(NamedTuple):
    """Ratings as a list. user, item: (R,) int64 numbers. rating: (R,) float64 in the unit of the file."""

    user: Tensor
    item: Tensor
    rating: Tensor


class Rated(NamedTuple):
    """The ratings behind T episodes, in the order of the rows of the episodes. Padding rows have the item -1 and the rating NaN.

    user: (T,) int64. support, query: (T, K), (T, Q) int64 items. support_rating, query_rating: float64 in the unit of the file.
    offset: (T, Q) float64; the rating that an output stands for is offset + unit · output.
    """

    user: Tensor
    support: Tensor
    query: Tensor
    support_rating: Tensor
    query_rating: Tensor
    offset: Tensor


@runtime_checkable
class WithRatings(Protocol):
    """A source of regression whose tasks are users and whose targets are ratings of items.

    A report then compares the model with the usual baselines and scores rankings. Items have the numbers 0 … I - 1, and the last columns
    of x are those of the item.
    """

    def scale(self) -> tuple[float, float]:
        """Return the lowest and the highest possible rating."""

    def training_ratings(self) -> RatingList:
        """Return the ratings that a training may see: those of the training users, without what the scenario holds out."""

    def rated(self, split: str, indices: Tensor) -> Rated:
        """Return the users and the items of the episodes `indices` (T,), in the order of the rows of their episodes."""

    def item_offsets(self) -> Tensor:
        """Return the offset of each item, (I,) float64: an output stands for the rating offset + unit · output."""

    def unit(self) -> float:
        """Return the size of one unit of y in the unit of the ratings."""

    def least_relevant(self) -> float:
        """Return the lowest rating of an item that a ranking should find."""

    def user_names(self) -> Sequence[str]:
        """Return the names of the users, by their numbers."""

    def item_inputs(self) -> Tensor:
        """Return the columns of x that describe each item, (I, columns of the item)."""

    def candidates(self, split: str, indices: Tensor) -> Tensor:
        """Return which items a ranking may hold, (T, I) bool: those of the scenario that the user has not rated, and the query items."""
