"""Trajectories through the classes of an image source."""

from __future__ import annotations

from dataclasses import replace
from typing import Any

import pytest
import torch

from metarun import testing
from metarun.errors import UserError
from metarun.tasks.pool import ClassPool
from metarun.tasks.preparing.preparation import preparation_by
from metarun.tasks.sampling import FewShot
from metarun.tasks.stream import Streams


def counting(classes: dict[str, int] | None = None, images: int = 8) -> FewShot:
    """Return a source in which every image of all splits has a value of its own: two bytes with its number."""
    pools, first = {}, 0
    for split, count in (classes or {"train": 12, "val": 5, "test": 9}).items():
        numbers = torch.arange(first, first + count * images)
        pixels = torch.stack([numbers // 256, numbers % 256], dim=1).to(torch.uint8)[:, None, None]
        pools[split] = ClassPool(pixels, [images] * count, [f"{split}{n}" for n in range(count)])
        first += count * images
    return FewShot(pools, ways=2, queries=1, data="counted")


def stream(**options: Any) -> Streams:
    keys = {"classes": 6, "per_class": 4, "held_out": 3, "train_classes": 3, "remember": 5}
    return Streams(counting(), **{**keys, **options})


def numbers_of(x: torch.Tensor) -> list[int]:
    return [int(value) for value in ((255 * x).round() @ torch.tensor([256.0, 1.0])).flatten()]


@pytest.mark.parametrize("split", ["val", "test"])
def test_a_trajectory_shows_class_after_class_and_deals_no_example_twice(split: str):
    source = stream()
    support, query = source.episode(split, 3)
    shown, held = numbers_of(support.x), numbers_of(query.x)
    parts = source.trajectory(split).parts
    assert (len(shown), len(held)) == (4 * parts, 3 * parts)
    assert len({*shown, *held}) == len(shown) + len(held)
    classes = [number // 8 for number in shown]
    blocks = [classes[start : start + 4] for start in range(0, len(classes), 4)]
    assert all(len(set(block)) == 1 for block in blocks)
    assert len({block[0] for block in blocks}) == parts
    assert [number // 8 for number in held] == [block[0] for block in blocks for _ in range(3)]


def test_column_j_of_y_belongs_to_the_class_that_comes_j_th():
    support, query = stream().episode("test", 0)
    assert torch.equal(support.y.argmax(dim=1), torch.arange(6).repeat_interleave(4))
    assert torch.equal(query.y, torch.eye(6).repeat_interleave(3, dim=0))


def test_trajectories_are_numbered_and_the_training_seed_leaves_those_of_the_test_as_they_are():
    testing.check_source(stream())
    one, other = stream(seed=1), stream(seed=2)
    assert torch.equal(one.episode("test", 4).support.x, other.episode("test", 4).support.x)
    assert not torch.equal(one.episode("train", 4).support.x, other.episode("train", 4).support.x)
    assert not torch.equal(one.episode("test", 4).support.x, one.episode("test", 5).support.x)
    assert not torch.equal(one.episode("test", 4).support.x, stream(eval_seed=1).episode("test", 4).support.x)


def test_with_global_labels_the_query_repeats_the_trajectory_and_goes_on_with_examples_of_all_training_classes():
    source = stream(train_labels="global", remember=200)
    support, query = source.episode("train", 2)
    assert torch.equal(query.x[: len(support.x)], support.x)
    assert torch.equal(query.y[: len(support.x)], support.y)
    assert support.y.shape == (3 * 4, 12)
    remembered = query.y[len(support.x) :].argmax(dim=1)
    assert len(remembered) == 200
    assert len(remembered.unique()) == 12
    assert numbers_of(query.x) == [
        8 * number + rest % 8 for number, rest in zip(query.y.argmax(1).tolist(), numbers_of(query.x), strict=True)
    ]
    assert stream(train_labels="global", remember=0).episode("train", 2).query.x.shape == support.x.shape


def test_with_episode_labels_a_training_episode_is_a_few_shot_episode_in_the_order_of_the_classes():
    support, query = stream(train_per_class=2).episode("train", 0)
    assert torch.equal(support.y, torch.eye(3).repeat_interleave(2, dim=0))
    assert torch.equal(query.y, torch.eye(3).repeat_interleave(3, dim=0))
    assert not {*numbers_of(support.x)} & {*numbers_of(query.x)}


def test_a_validation_trajectory_has_as_many_classes_as_its_split_allows_and_the_stream_says_how_many():
    assert stream().trajectory("val").parts == 5
    assert stream().chosen == {"val_classes": 5}
    assert stream(classes=3).trajectory("val").parts == 3
    assert stream(val_classes=2).trajectory("val").parts == 2
    assert stream(val_classes=2).chosen == {}


def test_the_facts_about_the_data_are_those_of_the_source():
    source, own = stream(), counting()
    assert source.origins("val") == own.origins("val") == tuple(f"counted/val{n}" for n in range(5))
    assert source.population("test") == 9
    assert source.fingerprint() == own.fingerprint()
    grey = replace(own, pools={split: replace(pool, images=pool.images[..., :1]) for split, pool in own.pools.items()})
    assert preparation_by(Streams(grey, classes=3, per_class=2, train_classes=3)) == preparation_by(grey) is not None


def test_the_numbers_of_the_classes_follow_the_columns():
    source = stream().numbered()
    episode = source.episode("test", 1)
    first = [number // 8 for number in numbers_of(episode.support.x)][::4]
    expected = source.source.numbers["test"][torch.tensor(first) - 17]
    assert torch.equal(episode.support.classes, expected)
    assert torch.equal(stream(train_labels="global").numbered().episode("train", 0).query.classes, source.source.numbers["train"])


@pytest.mark.parametrize(
    ("options", "sentence"),
    [
        ({"classes": 10}, r"^the test split has 9 classes, and a trajectory of 10 needs more; lower task\.classes to 9 or less\.$"),
        ({"val_classes": 6}, r"^the val split has 5 classes, and a trajectory of 6 needs more; lower task\.val_classes to 5 or less\.$"),
        ({"train_classes": 13}, r"the train split has 12 classes, and a trajectory of 13 needs more; lower task\.train_classes to 12"),
        (
            {"per_class": 6, "used": ["test"]},
            r"^9 test classes have .* only 8; 6 in the stream \+ 3 held out need 9\. Lower task\.per_class or",
        ),
        ({"train_per_class": 9, "train_labels": "global"}, r"9 in the stream need 9\. Lower task\.train_per_class\.$"),
        ({"train_labels": "globl"}, r"task\.train_labels=globl is unknown; it must be episode or global\. Did you mean 'global'\?"),
    ],
    ids=lambda value: "" if isinstance(value, str) else "-".join(value),
)
def test_a_stream_that_its_classes_cannot_fill_is_refused_with_numbers_and_a_remedy(options: dict[str, Any], sentence: str):
    with pytest.raises(UserError, match=sentence):
        stream(**options)


def test_all_splits_that_cannot_be_filled_are_named_at_once():
    with pytest.raises(UserError, match=r"^2 things need a change:\n- the val split has 5 classes.*\n- the test split has 9 classes"):
        stream(classes=10, val_classes=6)


def test_one_small_class_is_named_with_its_number_of_images():
    pools = dict(counting().pools)
    pools["test"] = ClassPool(torch.zeros(13, 1, 1, 2, dtype=torch.uint8), [8, 5], ["large", "small"])
    with pytest.raises(UserError, match=r"^class 'small' has 5 images; 4 in the stream \+ 3 held out need 7\."):
        Streams(replace(counting(), pools=pools), classes=2, per_class=4, held_out=3)


def test_a_split_that_no_one_scores_may_be_too_small():
    source = Streams(counting({"train": 2, "val": 5, "test": 9}), classes=6, per_class=4, held_out=3, used=["test"])
    assert len(source.episode("test", 0).support.x) == 24
    with pytest.raises(UserError, match="the train split has 2 classes"):
        source.episode("train", 0)


def test_the_training_split_has_no_trajectories_to_score_and_another_source_no_classes():
    with pytest.raises(UserError, match="score split=val or split=test"):
        stream().trajectory("train")
    with pytest.raises(UserError, match=r"task\.source gives a dict; a stream needs a source of images in classes"):
        Streams({})
