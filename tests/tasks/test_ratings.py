"""The source of users as tasks: episodes, columns, targets, and what a report asks of it."""

from __future__ import annotations

import functools
from pathlib import Path
from typing import Any

import pytest
import torch

from metarun import testing
from metarun.errors import UserError
from metarun.tasks.ratings import RatingTasks, ratings

FIRST = torch.arange(6)


@functools.cache
def source(**keys: Any) -> RatingTasks:
    return ratings(**{"made_users": 60, "made_items": 150, **keys})


@pytest.mark.parametrize("keys", [{}, {"shots": "rest", "max_ratings": 60}, {"queries": "rest"}, {"users": "known"}, {"item_bias": True}])
def test_episodes_are_numbered_and_deal_alike_alone_and_in_batches(keys: dict[str, Any]):
    testing.check_source(source(**keys))


def test_an_episode_has_the_features_of_the_user_and_of_the_items_and_the_index_last():
    found = source()
    rated, episode = found.rated("test", FIRST), found.batch("test", FIRST)
    assert [column.name for column in found.columns()] == ["group", "genre", "year", "item"]
    assert episode.query.x.shape == (6, 10, 4)
    words = found.item_table.features[-1].words
    for items, x in ((rated.support, episode.support.x), (rated.query, episode.query.x)):
        for item, row in zip(items.flatten().tolist(), x.flatten(0, 1), strict=True):
            name = found.data.items.names[item]
            assert row[3] == (words.index(name) + 1 if name in words else 0)
            torch.testing.assert_close(row[1:], found.item_inputs()[item])
    assert (episode.query.x[:, :, 0] == episode.query.x[:, :1, 0]).all()


def test_the_unit_and_the_offset_turn_targets_into_ratings():
    for keys in ({}, {"residual": True}):
        found = source(**keys)
        for split in ("train", "test"):
            rated, episode = found.rated(split, FIRST), found.batch(split, FIRST)
            torch.testing.assert_close(
                rated.offset + found.unit() * episode.query.y[..., 0].double(), rated.query_rating, atol=1e-5, rtol=0
            )
    assert found.units() == {"rating": found.unit()}


def test_targets_are_standardised_by_the_training_ratings():
    found = source()
    known = found.training_ratings()
    assert known.rating.mean() == pytest.approx(float(found.item_offsets()[0]))
    assert known.rating.std(correction=0) == pytest.approx(found.unit())
    users = {found.data.users.names[number] for number in known.user.tolist()}
    assert users == set(found.tasks["train"])


def test_the_bias_of_an_item_in_a_training_episode_leaves_the_rating_itself_out():
    """The input is the shrunken mean of the deviations of the other users' ratings of the item, standardised as the column is."""
    found = source(item_bias=True)
    rated, episode = found.rated("train", FIRST), found.batch("train", FIRST)
    known = found.training_ratings()
    item, user = int(rated.query[0, 0]), int(rated.user[0])
    others = known.rating[(known.item == item) & (known.user != user)] - known.rating.mean()
    bias = float(others.sum() / (len(others) + 5))
    coded = next(each for each in found.item_table.features if each.column.name == "item bias")
    place = [column.name for column in found.columns()].index("item bias")
    assert episode.query.x[0, 0, place] == pytest.approx((bias - coded.mean) / coded.deviation, abs=1e-5)


def test_padding_is_zero_and_masked():
    found = source(shots="rest", max_ratings=60)
    support, rated = found.batch("test", FIRST).support, found.rated("test", FIRST)
    assert support.mask is not None
    assert torch.equal(support.mask, rated.support >= 0)
    assert support.x[~support.mask].abs().sum() == 0
    assert support.y[~support.mask].abs().sum() == 0


def test_validation_and_test_take_the_users_in_turn():
    found = source()
    count = found.population("test")
    users = found.rated("test", torch.arange(2 * count)).user
    assert len(set(users[:count].tolist())) == count
    assert torch.equal(users[:count], users[count:])
    assert not torch.equal(found.rated("test", torch.tensor([0])).query, found.rated("test", torch.tensor([count])).query)


def test_candidates_are_the_query_and_all_items_that_the_user_has_not_rated():
    found = source(shots=5, queries=5)
    rated, allowed = found.rated("test", FIRST), found.candidates("test", FIRST)
    for row, user in enumerate(rated.user.tolist()):
        own = set(found.data.item[found.data.user == user].tolist())
        assert set(allowed[row].nonzero()[:, 0].tolist()) == (set(range(150)) - own) | set(rated.query[row].tolist())


def test_candidates_of_a_scenario_of_new_items_are_new():
    found = source(items="new", new_share=0.4, queries=2, shots=2)
    allowed = found.candidates("test", FIRST)
    assert not allowed[:, ~torch.from_numpy(found.division.is_new)].any()


def test_the_names_of_a_checkpoint_restore_the_same_episodes():
    found = source(items="new", new_share=0.4, queries=2, shots=2)
    again = ratings(
        made_users=60,
        made_items=150,
        items="new",
        new_share=0.2,
        queries=2,
        shots=2,
        tasks=found.tasks,
        new_items=found.chosen["new_items"],
    )
    assert torch.equal(again.batch("test", FIRST).query.x, found.batch("test", FIRST).query.x)


def test_a_training_on_known_items_is_scored_on_any_items_with_its_own_training_ratings():
    trained = source(items="known", new_share=0.4)
    scored = ratings(made_users=60, made_items=150, items="any", tasks=trained.tasks, **trained.chosen)
    assert torch.equal(scored.training_ratings().item, trained.training_ratings().item)
    assert scored.columns() == trained.columns()
    assert scored.candidates("test", FIRST).sum() > trained.candidates("test", FIRST).sum()


def test_an_input_needs_a_feature_or_the_index_of_the_item(tmp_path: Path):
    file = tmp_path / "plain.csv"
    file.write_text("user,item,rating\n" + "".join(f"u{user},i{item},{(user * item) % 5}\n" for user in range(9) for item in range(4)))
    keys = {"path": str(file), "shots": 1, "queries": 1}
    with pytest.raises(
        UserError, match=r"task.item_ids=false leaves no input.*task.items_path or task.users_path, or set task.item_ids=true"
    ):
        ratings(**keys, item_ids=False)
    assert ratings(**keys).columns()


def shared(trained: RatingTasks, tested: RatingTasks) -> int:
    return len(set(trained.origins("train")) & set(tested.origins("test")))


def test_a_test_on_what_the_training_saw_shares_origins_with_it_and_an_honest_one_does_not():
    honest = source(hold_out=0.3, items="known", new_share=0.4, shots=2, queries=2)
    for users in ("new", "known"):
        for items in ("known", "new"):
            tested = source(users=users, items=items, hold_out=0.3, new_share=0.4, shots=2, queries=2)
            assert shared(honest, tested) == 0
            assert tested.origins("test")
    naive = source(shots=2, queries=2)
    assert shared(naive, source(shots=2, queries=2)) == 0
    assert shared(naive, source(users="known", shots=2, queries=2)) > 0
    assert shared(naive, source(items="new", new_share=0.4, shots=2, queries=2)) > 0


def test_a_split_without_a_user_says_so_when_it_is_dealt():
    found = source(max_ratings=6, shots=2, queries=2, used=("train",))
    with pytest.raises(UserError, match="none of the 6 test users"):
        found.episode("test", 0)
