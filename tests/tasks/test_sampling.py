"""The sampler's facts: what an episode holds, on what it depends, and what it refuses."""

from __future__ import annotations

import dataclasses
import re
from typing import Any

import pytest
import torch

from metarun.errors import UserError
from metarun.tasks import sampling
from metarun.tasks.pool import SPLITS, ClassPool
from metarun.tasks.sampling import FewShot
from metarun.types import Episode, Examples

CLASSES, IMAGES = 12, 20


def a_pool(counts: list[int] | None = None, groups: list[str] | None = None) -> ClassPool:
    """Make a pool whose image k of class c has the two pixels (c, k), so that every image tells where it comes from."""
    counts = counts or [IMAGES] * CLASSES
    pixels = [[c, k] for c, count in enumerate(counts) for k in range(count)]
    return ClassPool(
        torch.tensor(pixels, dtype=torch.uint8).reshape(-1, 1, 1, 2), counts, [f"class {c}" for c in range(len(counts))], groups
    )


def a_source(pool: ClassPool | None = None, **sampling: Any) -> FewShot:
    return FewShot({split: pool or a_pool() for split in SPLITS}, **sampling)


def origins(x: torch.Tensor) -> torch.Tensor:
    """Return (class, image) of each row of x (…, 1, 1, 2)."""
    return (x * 255).round().to(torch.int64).flatten(-3)


def same(first: Episode, second: Episode) -> bool:
    return all(
        (a is None and b is None) or torch.equal(a, b)
        for one, other in zip(first, second, strict=True)
        for a, b in zip(one, other, strict=True)
    )


@pytest.mark.parametrize("ways", [2, 5, 12])
@pytest.mark.parametrize(("shots", "queries"), [(1, 1), (1, 15), (5, 15)])
def test_an_episode_has_exactly_its_ways_shots_and_queries(ways: int, shots: int, queries: int) -> None:
    source = a_source(ways=ways, shots=shots, queries=queries)
    for index in range(20):
        support, query = source.episode("test", index)
        assert support.mask is None
        assert query.mask is None
        for examples, count in ((support, shots), (query, queries)):
            assert examples.x.shape == (ways * count, 1, 1, 2)
            assert examples.y.shape == (ways * count, ways)
            by_way = origins(examples.x)[:, 0].reshape(ways, count)
            assert (by_way == by_way[:, :1]).all()
            assert len(set(by_way[:, 0].tolist())) == ways


def test_support_and_query_share_no_image_and_hold_none_twice() -> None:
    source = a_source(ways=5, shots=5, queries=15)
    for index in range(50):
        support, query = source.episode("train", index)
        rows = [tuple(row) for examples in (support, query) for row in origins(examples.x).tolist()]
        assert len(set(rows)) == 5 * 20


def test_labels_are_one_hot_and_the_same_way_means_the_same_class_in_support_and_query() -> None:
    support, query = a_source(ways=4, shots=2, queries=3).episode("val", 7)
    assert torch.equal(support.y, torch.eye(4).repeat_interleave(2, dim=0))
    assert torch.equal(query.y, torch.eye(4).repeat_interleave(3, dim=0))
    assert torch.equal(origins(support.x)[::2, 0], origins(query.x)[::3, 0])


@pytest.mark.parametrize("varying", [{}, {"min_ways": 2, "min_shots": 1}])
def test_global_labels_number_the_classes_of_the_training_split_and_change_nothing_else(varying: dict[str, int]) -> None:
    counts = [20, 7, 31, 20, 9, 20]
    options = {"ways": 4, "shots": 2, "queries": 3, **varying}
    plain, numbered = (a_source(a_pool(counts), train_labels=labels, **options) for labels in ("episode", "global"))
    for index in range(10):
        before, after = plain.episode("train", index), numbered.episode("train", index)
        for known, now in zip(before, after, strict=True):
            assert torch.equal(known.x, now.x)
            assert (known.mask is None) == (now.mask is None) == (not varying)
            assert torch.equal(now.y, torch.eye(6)[origins(now.x)[:, 0]])
        assert same(plain.episode("val", index), numbered.episode("val", index))
    assert same(
        numbered.episode("train", 3),
        Episode(*(Examples(*(t[0] for t in part if t is not None)) for part in numbered.batch("train", torch.tensor([3])))),
    )


@pytest.mark.parametrize("varying", [{}, {"min_ways": 2, "min_shots": 1}])
def test_a_numbered_source_says_which_class_each_column_stands_for_and_changes_nothing_else(varying: dict[str, int]) -> None:
    plain = a_source(ways=4, shots=2, queries=3, **varying)
    numbered = plain.numbered()
    numbers = plain.numbers["test"]
    for split in SPLITS:
        batch = numbered.batch(split, torch.arange(10))
        for index in range(10):
            before, after = plain.episode(split, index), numbered.episode(split, index)
            for known, now, together in zip(before, after, batch, strict=True):
                assert known.classes is None
                assert now.classes is not None
                assert together.classes is not None
                assert torch.equal(now.classes, numbers[origins(now.x)[:, 0].reshape(4, -1)[:, 0]])
                assert torch.equal(together.classes[index], now.classes)
                assert same(Episode(known, known), Episode(*[now._replace(classes=None)] * 2))


def test_a_class_has_its_number_in_every_split_of_its_data_set_and_another_in_another_data_set() -> None:
    first, second = a_source().numbers, a_source(data="other").numbers
    assert torch.equal(first["train"], first["test"])
    assert not set(first["train"].tolist()) & set(second["train"].tolist())


def test_global_labels_are_numbered_in_the_order_of_the_classes() -> None:
    episode = a_source(ways=12, train_labels="global", train_shots=1, queries=3).numbered().episode("train", 0)
    for part in episode:
        assert part.classes is not None
        assert torch.equal(part.classes, a_source().numbers["train"])


def test_the_same_index_is_the_same_episode_whatever_was_dealt_before() -> None:
    source = a_source()
    fresh = a_source().episode("train", 1234)
    for index in (3, 1, 1234, 2):
        source.episode("test", index)
        source.batch("train", torch.tensor([index, 5]))
    assert same(source.episode("train", 1234), fresh)
    assert not same(source.episode("train", 1235), fresh)
    assert not same(source.episode("val", 1234), fresh)


@pytest.mark.parametrize("varying", [{}, {"min_ways": 2, "min_shots": 1, "shots": 5}])
def test_a_batch_equals_its_episodes_one_by_one(varying: dict[str, int]) -> None:
    source = a_source(**varying)
    indices = torch.tensor([9, 0, 9, 100_000_000])
    batch = source.batch("train", indices)
    for place, index in enumerate(indices.tolist()):
        alone = source.episode("train", index)
        for together, one in zip(batch, alone, strict=True):
            assert torch.equal(together.x[place], one.x)
            assert torch.equal(together.y[place], one.y)
            assert (together.mask is None) == (one.mask is None) == (not varying)
            if one.mask is not None:
                assert torch.equal(together.mask[place], one.mask)


def test_what_is_done_to_one_batch_does_not_reach_the_next() -> None:
    source = a_source(min_ways=2)
    for tensor in (tensor for part in source.batch("train", torch.arange(3)) for tensor in part if tensor is not None):
        tensor.zero_()
    assert same(source.episode("train", 1), a_source(min_ways=2).episode("train", 1))


def test_a_pool_may_be_some_rows_of_a_larger_tensor() -> None:
    """The images of the plain pool, turned round and among others."""
    plain = a_pool()
    others = torch.full_like(plain.images, 77)
    rows = torch.arange(2 * len(plain.images)).flip(0)[::2]
    images = torch.stack([others, plain.images.flip(0)], dim=1).flatten(0, 1)
    assert torch.equal(images[rows], plain.images)
    pool = ClassPool(images, plain.counts, plain.names, rows=rows)
    for index in range(5):
        assert same(a_source(pool).episode("val", index), a_source().episode("val", index))


@pytest.mark.parametrize(
    "device", ["cpu", pytest.param("cuda", marks=pytest.mark.skipif(not torch.cuda.is_available(), reason="torch finds no CUDA device"))]
)
def test_a_source_moved_to_a_device_deals_the_same_episodes_there(device: str) -> None:
    plain = a_source(min_ways=2).numbered()
    rows = torch.arange(len(a_pool().images))
    for moved in (plain.to(device), a_source(dataclasses.replace(a_pool(), rows=rows), min_ways=2).numbered().to(device)):
        batch, expected = moved.batch("train", torch.arange(4)), plain.batch("train", torch.arange(4))
        assert {tensor.device.type for part in batch for tensor in part if tensor is not None} == {device}
        assert same(Episode(*(Examples(*(None if tensor is None else tensor.cpu() for tensor in part)) for part in batch)), expected)


def test_moving_a_pool_takes_its_own_images_only() -> None:
    """The meta device stands for another one than the CPU."""
    pool = dataclasses.replace(a_pool([2, 3]), images=torch.zeros(50, 1, 1, 2, dtype=torch.uint8), rows=torch.arange(10, 15))
    moved = pool.to("meta")
    assert moved.images.shape == (5, 1, 1, 2)
    assert moved.images.is_meta
    assert moved.rows is None


def test_a_set_too_large_to_move_stays_where_it_is(monkeypatch: pytest.MonkeyPatch) -> None:
    source = a_source()
    monkeypatch.setattr(sampling, "LARGE", 3 * CLASSES * IMAGES * 2 - 1)
    assert source.to("meta") is source
    monkeypatch.setattr(sampling, "LARGE", 3 * CLASSES * IMAGES * 2)
    assert source.to("meta").pools["train"].images.is_meta


def test_the_seed_moves_training_only_and_eval_seed_the_others() -> None:
    plain, seeded, moved = a_source(), a_source(seed=1), a_source(eval_seed=1)
    assert not same(plain.episode("train", 0), seeded.episode("train", 0))
    assert same(plain.episode("train", 0), moved.episode("train", 0))
    for split in ("val", "test"):
        assert same(plain.episode(split, 0), seeded.episode(split, 0))
        assert not same(plain.episode(split, 0), moved.episode(split, 0))


def test_training_may_have_ways_shots_and_queries_of_its_own() -> None:
    source = a_source(ways=5, shots=1, queries=15, train_ways=10, train_shots=2, train_queries=4)
    assert source.episode("train", 0).support.y.shape == (20, 10)
    assert source.episode("train", 0).query.y.shape == (40, 10)
    assert source.episode("val", 0).support.y.shape == (5, 5)
    assert source.episode("test", 0).query.y.shape == (75, 5)


def test_every_class_and_every_image_comes_up_equally_often() -> None:
    """20,000 draws of 3 of 12 classes: each 5000 times, deviation 61; each image of a class 1 time in 20 per place."""
    rows, _, _ = a_source(ways=3, shots=1, queries=1).draw("train", torch.arange(20_000))
    per_class = torch.bincount((rows[..., 0] // IMAGES).flatten(), minlength=CLASSES)
    assert (per_class - 5000).abs().max() < 5 * 61
    per_image = torch.bincount((rows[..., 1] % IMAGES).flatten(), minlength=IMAGES)
    assert (per_image - 3000).abs().max() < 5 * 54


def test_varying_ways_and_shots_fill_their_ranges_and_mask_what_is_not_used() -> None:
    source = a_source(ways=5, shots=4, queries=3, min_ways=2, min_shots=2)
    support, query = source.batch("val", torch.arange(400))
    assert support.mask is not None
    assert query.mask is not None
    shots, queries = support.mask.reshape(400, 5, 4).sum(-1), query.mask.reshape(400, 5, 3).sum(-1)
    ways = (shots > 0).sum(-1)
    assert set(ways.tolist()) == {2, 3, 4, 5}
    assert set(shots.flatten().tolist()) == {0, 2, 3, 4}
    assert set(queries.flatten().tolist()) == {0, 3}
    assert torch.equal(shots > 0, queries > 0)
    assert torch.equal(shots > 0, torch.arange(5) < ways[:, None])


def test_used_rows_of_a_varying_episode_are_different_images_also_in_small_classes() -> None:
    counts = [4, 5, 6, 7, 20, 4]
    source = a_source(a_pool(counts), ways=4, shots=5, queries=3, min_ways=2, min_shots=1)
    support, query = source.batch("train", torch.arange(500))
    assert support.mask is not None
    assert query.mask is not None
    for place in range(500):
        parts = ((support, support.mask), (query, query.mask))
        rows = [tuple(row) for examples, mask in parts for row in origins(examples.x[place])[mask[place]].tolist()]
        assert len(set(rows)) == len(rows)
        shown = support.mask[place].reshape(4, 5).sum(-1)
        classes = origins(support.x[place])[::5, 0]
        room = torch.tensor([counts[c] - 3 for c in classes.tolist()])
        assert (shown <= room).all()


def test_within_groups_takes_all_classes_of_an_episode_from_one_group_that_is_large_enough() -> None:
    groups = ["small"] * 3 + ["middle"] * 4 + ["large"] * 5
    source = a_source(a_pool(groups=groups), ways=4, within_groups=True)
    seen = set()
    for classes in origins(source.batch("test", torch.arange(200)).query.x)[..., 0].tolist():
        members = {groups[c] for c in classes}
        assert len(members) == 1
        seen |= members
    assert seen == {"middle", "large"}


def test_the_draws_of_the_first_episodes_are_pinned() -> None:
    """Changing these numbers would change the episodes of every published seed."""
    rows, present, shots = a_source(ways=3, shots=1, queries=2).draw("train", torch.arange(2))
    assert rows.tolist() == [[[126, 128, 137], [212, 206, 200], [75, 71, 74]], [[239, 237, 229], [68, 74, 70], [80, 96, 92]]]
    assert present.all()
    assert (shots == 1).all()
    rows, present, shots = a_source(ways=3, shots=3, queries=1, min_ways=2, min_shots=1).draw("test", torch.arange(2))
    assert rows.tolist() == [
        [[120, 122, 126, 136], [74, 73, 70, 68], [220, 223, 234, 231]],
        [[33, 20, 35, 22], [18, 12, 13, 11], [98, 84, 94, 90]],
    ]
    assert present.tolist() == [[True, True, True], [True, True, True]]
    assert shots.tolist() == [[3, 1, 2], [2, 2, 2]]


@pytest.mark.parametrize(
    ("sampling", "message"),
    [
        ({"shots": 6, "train_shots": 1}, "12 val classes have too few images: 'class 0' has 20, 'class 1' has 20, "),
        ({"shots": 6, "train_shots": 1}, " and 2 more; 6 shots + 15 queries need 21. Lower task.queries or task.shots."),
        ({"train_queries": 20}, "1 shot + 20 queries need 21. Lower task.train_queries or task.shots."),
        ({"ways": 13, "train_ways": 5}, "the val split has 12 classes; 13 ways need more. Lower task.ways to 12 or less."),
        ({"train_ways": 60}, "the train split has 12 classes; 60 ways need more. Lower task.train_ways to 12 or less."),
        ({"ways": 1}, "task.ways=1"),
        ({"shots": 0}, "task.shots=0"),
        ({"shots": -1}, "task.shots=-1"),
        ({"queries": 0}, "task.queries=0"),
        ({"min_ways": 6}, "task.min_ways=6 must lie between 1 and task.ways=5."),
        ({"min_shots": 0}, "task.min_shots=0 must be a whole number of at least 1."),
        ({"within_groups": True}, "this data has no groups of classes; set task.within_groups=false."),
        ({"train_labels": "gobal"}, "task.train_labels=gobal is unknown; it must be episode or global. Did you mean 'global'?"),
        ({"seed": "abc"}, "task.seed=abc must be a whole number."),
        ({"eval_seed": 0.5}, "task.eval_seed=0.5 must be a whole number."),
    ],
)
def test_an_impossible_episode_is_refused_with_the_class_and_the_numbers(sampling: dict[str, Any], message: str) -> None:
    with pytest.raises(UserError, match=re.escape(message)):
        a_source(**sampling)


def test_a_class_that_is_too_small_is_named() -> None:
    with pytest.raises(UserError, match="class 'class 2' has 12 images; 5 shots \\+ 15 queries need 20"):
        a_source(a_pool([20, 20, 12, 20, 20]), shots=5)


def test_groups_that_are_all_too_small_are_refused_with_the_largest() -> None:
    with pytest.raises(UserError, match=r"no group of the train split has 5 classes \(the largest has 4\); lower task\.ways to 4"):
        a_source(a_pool(groups=["a"] * 4 + ["b"] * 4 + ["c"] * 4), within_groups=True)
