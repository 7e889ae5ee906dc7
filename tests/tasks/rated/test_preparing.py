from __future__ import annotations

import torch

from metarun.tasks.preparing.preparation import preparation_by, preparation_of
from metarun.tasks.preparing.ratings_preparation import RatingsPreparation
from metarun.tasks.ratings import RatingTasks, ratings


def source(**options: object) -> RatingTasks:
    return ratings(made_users=30, made_items=25, shots=3, queries=2, **options)  # type: ignore[arg-type]


def test_a_checkpoint_makes_the_inputs_and_targets_of_the_source():
    """Of the test episode 0: the items by name, and the group of the user, give x; and the predictions y give the ratings."""
    for options in ({}, {"item_bias": True}, {"item_bias": True, "residual": True}, {"item_ids": False}):
        made = source(**options)
        prepared = preparation_by(made)
        assert isinstance(prepared, RatingsPreparation)
        prepared = preparation_of(prepared.stored(), prepared.shape, 1)
        assert isinstance(prepared, RatingsPreparation)
        index = torch.tensor([0])
        rated, query = made.rated("test", index), made.episode("test", 0).query
        group = str(made.data.users.features[0].values[int(rated.user[0])])
        names = [made.data.items.names[place] for place in rated.query[0].tolist()]
        torch.testing.assert_close(prepared.inputs({"item": names, "group": group}), query.x)
        added = prepared.added(names)
        found = prepared.in_units(query.y) + (0.0 if added is None else added)
        ratings_of_user = {
            int(item): float(rating)
            for user, item, rating in zip(made.data.user, made.data.item, made.data.rating, strict=True)
            if user == int(rated.user[0])
        }
        expected = torch.tensor([ratings_of_user[place] for place in rated.query[0].tolist()], dtype=torch.float64)
        torch.testing.assert_close(found[:, 0], expected, rtol=0, atol=1e-6)


def test_the_catalogue_has_every_item_once():
    prepared = source().preparation()
    assert prepared.names == tuple(f"item {number}" for number in range(1, 26))
    assert prepared.scale == (1.0, 5.0)
