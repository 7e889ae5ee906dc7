"""Networks that a checkpoint's config describes, before they get any memory."""

from __future__ import annotations

from typing import Any

import pytest
import torch
from small import composed

from metarun.errors import UserError
from metarun.wiring.instantiate import instantiate
from metarun.wiring.sizes import SMALL, bound, check_network


def described(*words: str, shape: list[int]) -> dict[str, Any]:
    return {**composed(*words), "input_shape": shape}


@pytest.mark.parametrize(
    ("words", "shape"),
    [
        (("backbone=mlp", "task=sinusoid", "backbone.widths=[100000,100000]"), [1]),
        (("backbone=mlp", "task=sinusoid", "backbone.widths=[1000000]"), [1000]),
        (("backbone.filters=30000",), [1, 28, 28]),
        (("backbone.filters=3e4",), [1, 28, 28]),
        (("backbone=mlp", "task=sinusoid", "backbone.widths=[1e5,1e5]"), [1]),
        (("backbone=mlp", "task=sinusoid", "backbone.widths=[900]"), [3, 500, 500]),
        (("backbone=embeddings", "backbone.columns=[[item,category,1000000,item]]", "backbone.dimension=100"), [1]),
        (("backbone=embeddings", "backbone.columns=[[words,several,1e6,item]]", "backbone.dimension=100"), [1_000_000]),
    ],
)
def test_a_network_beyond_its_checkpoint_is_refused_before_it_gets_memory(words: tuple[str, ...], shape: list[int]) -> None:
    with pytest.raises(UserError, match=r"describes a network of [\d,]+ parameters, and the checkpoint holds 3"):
        check_network(described(*words, shape=shape), {"w": torch.zeros(3)})


def test_a_network_whose_parameters_the_checkpoint_holds_may_be_large() -> None:
    config = described("backbone=mlp", "task=sinusoid", "backbone.widths=[20000,20000]", shape=[1])
    with pytest.raises(UserError):
        check_network(config, {})
    check_network(config, {"w": torch.empty(20_000 * 20_003, device="meta")})


def test_a_network_whose_sizes_overflow_is_a_sentence() -> None:
    with pytest.raises(UserError, match="describes a network that nobody can make"):
        check_network(described("backbone=mlp", "task=sinusoid", "backbone.widths=[1000000]", shape=[10**6] * 3), {})


@pytest.mark.parametrize(
    ("columns", "sentence"),
    [
        (None, r"^backbone\.columns=null should be a list"),
        ([["item", "category", 10**12, "item"]], "should be a list"),
        ([["item", "image", 3, "item"]], "should be a list"),
        ([["item", "several", 10**6, "item"]] * 3, "nobody can make .*describes inputs of 3,000,000 numbers, and the task has 1"),
    ],
)
def test_columns_that_are_none_are_a_sentence(columns: Any, sentence: str) -> None:
    config = described("backbone=embeddings", shape=[1])
    with pytest.raises(UserError, match=sentence):
        check_network({**config, "backbone": {**config["backbone"], "columns": columns}}, {})


@pytest.mark.parametrize("shape", ["abc", {"a": 1}, [[3]], [1.5], [-5]])
def test_an_input_shape_that_is_none_is_a_sentence(shape: Any) -> None:
    config = described("backbone=mlp", "task=sinusoid", shape=[1])
    with pytest.raises(UserError, match=r"^backbone\.input_shape=.* should be a list"):
        check_network({**config, "backbone": {**config["backbone"], "input_shape": shape}}, {})


def test_small_networks_and_those_of_a_user_are_left_alone() -> None:
    check_network(described(shape=[1, 28, 28]), {})
    check_network({**described(shape=[1]), "backbone": {"_target_": "mine.Net", "widths": [10**9]}}, {})


@pytest.mark.parametrize(
    ("words", "shape"), [(("backbone=mlp", "task=sinusoid"), [3]), ((), [3, 28, 28]), (("backbone=resnet12",), [3, 84, 84])]
)
def test_the_quick_bound_lies_above_the_size_of_every_backbone(words: tuple[str, ...], shape: list[int]) -> None:
    node = {key: value for key, value in composed(*words)["backbone"].items() if key not in ("norm", "head_init")}
    network = instantiate({**node, "input_shape": shape}, name="backbone")
    assert sum(value.numel() for value in network.parameters()) <= bound(node, shape) <= SMALL
