"""The preparation of a source of ratings, for its checkpoints."""

from __future__ import annotations

from collections.abc import Sequence

from metarun.tasks.preparing.rating_features import Feature, feature_of
from metarun.tasks.preparing.ratings_preparation import RatingsPreparation
from metarun.tasks.rated.data import Owners
from metarun.tasks.rated.encoding import Table


def prepared_ratings(
    items: Owners,
    tables: tuple[Table, Table],
    scale: tuple[float, float],
    target: tuple[float, float],
    offsets: Sequence[float] = (),
) -> RatingsPreparation:
    """Return the preparation.

    tables: of the users and of the items. target: the mean and the deviation of the targets. offsets: of the items, as
    `RatingsPreparation` has them.
    """
    user, item = (_features(table, values=place == 1) for place, table in enumerate(tables))
    (low, high), (mean, deviation) = map(float, scale), map(float, target)
    return RatingsPreparation(items.names, items.titles, user, item, (low, high), mean, deviation, tuple(map(float, offsets)))


def _features(table: Table, *, values: bool) -> tuple[Feature, ...]:
    """Return the features of a table, with or without the values of its owners."""
    found, start = [], 0
    for each in table.features:
        name, kind, _, _ = each.column
        matrix = table.values[:, start : start + each.column.width] if values else None
        found.append(feature_of(name, kind, each.words, (each.mean, each.deviation), matrix))
        start += each.column.width
    return tuple(found)
