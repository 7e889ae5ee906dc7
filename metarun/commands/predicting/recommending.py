"""Recommendation with a model of `task=ratings`: rank the items that a user has not rated."""

from __future__ import annotations

from collections.abc import Callable, Collection, Mapping
from typing import Any, NamedTuple

import numpy as np
from torch import Tensor

from metarun.errors import UserError
from metarun.tasks.preparing.ratings_preparation import ITEM, RatingsPreparation


class Recommendation(NamedTuple):
    """An item for a user. item: its identifier. title: for people. rating: predicted, within the scale of the ratings."""

    item: str
    title: str
    rating: float


def recommended(preparation: object, known: Any, predict: Callable[[Any], Any], top: int | None) -> list[Recommendation]:
    """Return the `top` items with the highest predicted ratings that the user has not rated; None for all of them.

    known: the user's rated items, as `RatingsPreparation.inputs` takes them. predict: gives the ratings of inputs of this form.
    Raises UserError for a model of other inputs, and where no item is left.
    """
    if not isinstance(preparation, RatingsPreparation):
        raise UserError("recommend ranks items for a user, and this model was trained on other inputs; use predict.")
    if top is not None and (isinstance(top, bool) or not isinstance(top, (int, np.integer)) or top < 1):
        raise UserError(f"top={top!r} should be a whole number from 1.")
    facts = dict(known) if isinstance(known, Mapping) else {ITEM: known}
    rated = set(preparation.places(facts.pop(ITEM)))
    return ranked(preparation, [place for place in range(len(preparation.names)) if place not in rated], facts, predict)[:top]


def ranked(
    preparation: RatingsPreparation, places: Collection[int], facts: Mapping[str, Any], predict: Callable[[Any], Any]
) -> list[Recommendation]:
    """Return the items at these places of the catalogue, the highest prediction first; equal ones in the order of the catalogue."""
    if not places:
        raise UserError(f"the user has rated all {len(preparation.names):,} items of the model, so none is left to recommend.")
    order = np.array(list(places))
    values = np.asarray(predict({**facts, ITEM: [preparation.names[place] for place in order.tolist()]})).reshape(len(order))
    if not np.isfinite(values).all():
        raise UserError(
            "the predicted ratings are not finite numbers, so the adaptation to the user's ratings diverged; check these ratings."
        )
    ratings = values.clip(*preparation.scale)
    names, shown = preparation.names, preparation.shown
    rows = np.argsort(-values, kind="stable").tolist()
    return [Recommendation(names[order[row]], shown[order[row]], float(ratings[row])) for row in rows]


def added_to(preparation: object, x: Any) -> Tensor | None:
    """Return what the items of raw inputs add to the predictions, (B, 1) in stars; None where they add nothing."""
    return preparation.added(x) if isinstance(preparation, RatingsPreparation) else None
