"""The keys of `task=ratings`, with their types and defaults."""

from __future__ import annotations

from dataclasses import dataclass, fields
from typing import Annotated, Any

from metarun.errors import UserError, nearest
from metarun.tasks.rated.data import RatingData
from metarun.tasks.rated.division import Items, Scenario, Users
from metarun.tasks.rated.episodes import REST, Rest, Sizes
from metarun.tasks.rated.files import RatingFiles, changed_keys
from metarun.tasks.rated.taking_part import Limits, Longer
from metarun.values import BelowOne, Count, CountOrZero, Few, Finite, Keys, Range, Seed, Shares

Share = Annotated[float, Range(above=0, below=1)]
Size = Count | Rest


@dataclass(frozen=True)
class RatingKeys(RatingFiles):
    """The keys of a source of ratings; `configs/task/ratings.yaml` explains each."""

    made_users: Few = 400
    made_items: Few = 300
    shots: Size = 5
    queries: Size = 10
    train_shots: Size | None = None
    train_queries: Size | None = None
    min_ratings: Count | None = None
    max_ratings: Count | None = None
    train_longer: Longer = "sample"
    users: Users = "new"
    items: Items = "any"
    new_share: Share = 0.2
    new_from: Finite | None = None
    hold_out: BelowOne | None = None
    split: Shares = (0.8, 0.1, 0.1)
    folds: Count | None = None
    fold: CountOrZero = 0
    split_seed: Seed = 0
    item_ids: bool = True
    item_bias: bool = False
    residual: bool = False
    relevant: Finite | None = None
    seed: Seed = 0
    eval_seed: Seed = 0

    @property
    def scenario(self) -> Scenario:
        """Who is scored on what."""
        return Scenario(self.users, self.items, self.new_share, self.new_from, self.hold_out)

    @property
    def limits(self) -> Limits:
        """The numbers of ratings with which a user takes part."""
        return Limits(self.min_ratings, self.max_ratings, self.train_longer)

    @property
    def sizes(self) -> dict[str, Sizes]:
        """Split -> the numbers of support and query ratings."""
        scored = Sizes(self.shots, self.queries, self.max_ratings)
        return {"train": Sizes(*self._trained, self.max_ratings), "val": scored, "test": scored}

    @property
    def _trained(self) -> tuple[int | Rest, int | Rest]:
        shots = self.shots if self.train_shots is None else self.train_shots
        return shots, self.queries if self.train_queries is None else self.train_queries

    def __post_init__(self) -> None:
        stray = changed_keys(self) if self.path is None else []
        if stray:
            raise UserError(f"task.{stray[0]} needs a file of ratings; give task.path=FILE.")
        for part, sizes in (("", (self.shots, self.queries)), ("train_", self._trained)):
            if sizes == (REST, REST):
                raise UserError(
                    f"task.{part}shots=rest and task.{part}queries=rest do not say how to divide the ratings; make one of them a number."
                )


def check_relevant(relevant: float | None, scale: tuple[float, float]) -> None:
    """Raise UserError where no rating is relevant, or all are."""
    low, high = scale
    if relevant is not None and not low < relevant <= high:
        raise UserError(f"task.relevant={relevant:g} must lie above the lowest rating {low:g}, and not above the highest one {high:g}.")


def check_division(keys: RatingKeys) -> None:
    """Raise UserError for a key that divides the items where the scenario does not divide them."""
    for key, default in (("new_share", Scenario.new_share), ("new_from", None)):
        if keys.items == "any" and (value := getattr(keys, key)) != default:
            raise UserError(
                f"task.{key}={value:g} divides the items into known and new ones, and task.items=any does not; give task.items=known or "
                "task.items=new, or leave the key out."
            )


def check_inputs(keys: RatingKeys, data: RatingData) -> None:
    """Raise UserError where nothing is known of users and items, so that an input has no column."""
    if not (keys.item_ids or keys.item_bias or data.users.features or data.items.features):
        raise UserError(
            "task.item_ids=false leaves no input, since the users and the items have no features; give task.items_path or task.users_path, "
            "or set task.item_ids=true."
        )


Ratings = Annotated[Any, Keys(RatingKeys)]
"""The mark of `**keys` of `metarun.tasks.ratings.ratings`."""


def keys_of(given: dict[str, Any]) -> RatingKeys:
    """Return the keys of a config; UserError for an unknown one."""
    names = [each.name for each in fields(RatingKeys)]
    for name in given:
        if name not in names:
            raise UserError(f"task.{name} is not a key of this task.{nearest(name, names)}")
    return RatingKeys(**given)
