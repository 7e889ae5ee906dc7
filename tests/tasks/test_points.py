"""The sizes and seeds that all regression sources share."""

from __future__ import annotations

from typing import Any

import pytest
import torch

from metarun.errors import UserError
from metarun.tasks.points import PointSampling, divide


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
