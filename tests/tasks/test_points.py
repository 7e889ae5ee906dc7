"""The sizes and seeds that all regression sources share."""

from __future__ import annotations

from typing import Any

import pytest
import torch
from torch import Tensor

from metarun.errors import UserError
from metarun.tasks.functions import FunctionTasks
from metarun.tasks.points import PointSampling, divide
from metarun.tasks.sinusoid import Sinusoids


def test_the_training_split_may_have_sizes_of_its_own():
    sampling = PointSampling(shots=3, queries=5, train_queries=2)
    assert sampling.sizes("train") == (3, 2)
    assert sampling.sizes("val") == sampling.sizes("test") == (3, 5)


def test_the_seed_decides_training_and_the_eval_seed_the_other_splits():
    indices = torch.arange(4)
    first, second = PointSampling(seed=0, eval_seed=0), PointSampling(seed=1, eval_seed=0)
    assert not torch.equal(first.key("train", indices), second.key("train", indices))
    assert torch.equal(first.key("val", indices), second.key("val", indices))
    assert not torch.equal(first.key("val", indices), first.key("test", indices))
    assert not torch.equal(first.key("val", indices), PointSampling(eval_seed=1).key("val", indices))


def test_a_key_beats_the_default_of_the_task():
    assert PointSampling.of({"shots": 4}, shots=2, queries=7) == PointSampling(shots=4, queries=7)


@pytest.mark.parametrize(
    ("keys", "words"),
    [
        ({"shot": 4}, "task.shot is not a key of this task. Did you mean 'shots'?"),
        ({"shots": 0}, "task.shots=0 must be a whole number of at least 1."),
        ({"queries": 1.5}, "task.queries=1.5 must be a whole number of at least 1."),
        ({"seed": "a"}, "task.seed=a must be a whole number."),
        ({"shots": 3, "min_shots": 4}, "task.min_shots=4 must lie between 1 and task.shots=3."),
        ({"min_shots": 0}, "task.min_shots=0 must be a whole number of at least 1."),
    ],
)
def test_a_senseless_key_is_refused_in_a_sentence(keys: dict[str, Any], words: str):
    with pytest.raises(UserError, match="^" + words.replace("?", r"\?")):
        PointSampling.of(keys)


def test_a_seed_may_be_negative():
    assert PointSampling(seed=-1).seed == -1


def test_an_unknown_split_is_refused():
    with pytest.raises(UserError, match="dev"):
        PointSampling().key("dev", torch.arange(1))


def test_the_first_points_are_the_support_and_the_others_the_query_each_in_its_own_memory():
    x, y = torch.arange(10.0).reshape(1, 5, 2), torch.arange(5.0).reshape(1, 5, 1)
    support, query = divide(x, y, 2)
    assert torch.equal(support.x, x[:, :2])
    assert torch.equal(query.y, y[:, 2:])
    x.zero_()
    assert query.x.sum() == 39  # 4 + 5 + … + 9


def counts(sampling: PointSampling, split: str = "val", tasks: int = 30_000) -> Tensor:
    """Return the number of support points that each task uses (T,); the used points must be the first ones."""
    used = sampling.used(split, sampling.key(split, torch.arange(tasks)))
    assert used is not None
    assert torch.equal(used, used.sort(dim=1, descending=True, stable=True).values)
    return used.sum(dim=1)


def test_each_episode_draws_its_shots_uniformly_between_the_limits():
    """30,000 draws of 2, 3 or 4 shots: 10,000 each, deviation 82."""
    drawn = counts(PointSampling(shots=4, min_shots=2)).bincount(minlength=6)
    assert drawn[[0, 1, 5]].tolist() == [0, 0, 0]
    assert (drawn[2:5] - 10_000).abs().max() < 5 * 82


def test_shots_do_not_vary_where_no_smaller_number_is_set():
    key = PointSampling().key("val", torch.arange(3))
    assert PointSampling(shots=4).used("val", key) is None
    assert PointSampling(shots=4, min_shots=4).used("val", key) is None
    assert PointSampling(shots=4, min_shots=3, train_shots=2).used("train", key) is None, "2 shots are below the least of 3"
    assert counts(PointSampling(shots=4, min_shots=3, train_shots=9), "train").max() == 9


def test_the_unused_points_are_masked_and_nothing_else_changes():
    fixed, varying = (FunctionTasks(Sinusoids(), PointSampling(shots=3, queries=4, **options)) for options in ({}, {"min_shots": 1}))
    indices = torch.arange(50)
    (support, query), (varied, asked) = fixed.batch("train", indices), varying.batch("train", indices)
    assert torch.equal(support.x, varied.x)
    assert torch.equal(support.y, varied.y)
    assert torch.equal(query.y, asked.y)
    assert support.mask is query.mask is asked.mask is None
    assert varied.mask is not None
    assert varied.mask.sum(dim=1).unique().tolist() == [1, 2, 3]
    assert torch.equal(varying.episode("train", 7).support.mask, varied.mask[7])


def test_the_numbers_of_shots_are_pinned():
    assert counts(PointSampling(shots=3, min_shots=1, seed=7), "train", 12).tolist() == [3, 1, 3, 3, 1, 3, 3, 3, 3, 1, 3, 2]
