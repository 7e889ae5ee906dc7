from __future__ import annotations

import pytest
import torch
from small import Lines, composed, few_shot
from small_runs import CONV

from metarun.errors import UserError
from metarun.wiring.build import build_without_data
from metarun.wiring.episode_checks import check_episodes
from metarun.wiring.shapes import Shapes, shapes_of


@pytest.mark.parametrize("source", [few_shot(), few_shot(train_labels="global"), Lines()], ids=["episode", "global", "regression"])
def test_the_shapes_of_a_source_come_back_and_deal_episodes_of_these_shapes(source):
    shapes = Shapes.of(source)
    assert shapes_of(shapes.stored(), {}) == shapes
    for split in ("train", "val"):
        real, made = source.episode(split, 0).support, shapes.episode(split, 0).support
        assert real.x.shape[1:] == made.x.shape[1:]
        assert real.y.shape[1:] == made.y.shape[1:]
    check_episodes({split: shapes.episode(split, 0) for split in ("train", "val")}, "shapes")


@pytest.mark.parametrize("ways", [1, 3, 8, 9, 50])
def test_labels_of_a_made_episode_are_one_hot_for_any_number_of_ways(ways: int):
    y = Shapes("classification", (2,), {"train": ways, "val": ways}).episode("val", 0).support.y
    assert y.shape[1] == ways
    assert torch.equal(y.sum(dim=1), torch.ones(len(y)))


def test_an_algorithm_is_built_with_the_sizes_of_its_training_and_without_the_data():
    shapes = Shapes("classification", (1, 8, 8), {"train": 40, "val": 3}, "global")
    config = {**composed("algo=finetune", "device=cpu"), "backbone": dict(CONV), "task": {"_target_": "nowhere.at_all"}}
    parts = build_without_data(config, shapes)
    assert parts.algorithm.train_classes == 40  # type: ignore[attr-defined]
    assert parts.config["input_shape"] == [1, 8, 8]


GOOD = Shapes("classification", (1, 8, 8), {"train": 3, "val": 3}, "episode").stored()


@pytest.mark.parametrize(
    "change",
    [
        {"objective": "ranking"},
        {"objective": None},
        {"inputs": []},
        {"inputs": [1, -8]},
        {"inputs": [1, 8.0]},
        {"inputs": [10**5, 10**5]},
        {"inputs": (1, 8, 8)},
        {"columns": {"train": 3}},
        {"columns": [3, 3]},
        {"columns": {"train": 3, "val": True}},
        {"columns": {"train": 3, "val": 10**7}},
        {"columns": {"train": 3, "val": 50_000}},
        {"train_labels": "both"},
    ],
    ids=str,
)
def test_shapes_of_a_stranger_are_checked(change: dict[str, object]):
    with pytest.raises(UserError, match="in a way that this metarun cannot read"):
        shapes_of({**GOOD, **change}, {"w": torch.zeros(2, 3)})


def test_the_inputs_are_those_of_the_config_whose_network_has_been_measured():
    assert shapes_of(GOOD, {}, [1, 8, 8]).inputs == (1, 8, 8)
    with pytest.raises(UserError, match="in a way that this metarun cannot read"):
        shapes_of(GOOD, {}, [1, 9, 9])


def test_many_classes_are_accepted_where_the_checkpoint_has_a_tensor_for_them():
    stored = {**GOOD, "columns": {"train": 50_000, "val": 3}}
    assert shapes_of(stored, {"head.weight": torch.zeros(50_000, 2)}).columns["train"] == 50_000
