"""Writing in place: the same bits, nothing overwritten that is still read, and what may not be written over."""

from __future__ import annotations

from collections.abc import Callable

import pytest
import torch
from torch import Tensor
from torch.fx import GraphModule
from torch.fx.experimental.proxy_tensor import make_fx

from metarun import draws
from metarun.compute.programs.in_place import WORTH, reuse_memory

SIZE = WORTH


def program(function: Callable[..., list[Tensor]], *tensors: Tensor) -> GraphModule:
    return reuse_memory(make_fx(function)(*tensors))


def written(module: GraphModule) -> list[str]:
    """Return the operations that write into an argument, in order."""
    calls = [node for node in module.graph.nodes if node.op == "call_function"]
    return [
        str(node.target)
        for node in calls
        if {"out", "grad_input"} & set(node.kwargs) or ".".join(str(node.target).split(".")[:2]).endswith("_")
    ]


def inputs(*shape: int, count: int = 2) -> list[Tensor]:
    return [draws.normal(draws.key(0, "input", number), *shape) for number in range(count)]


def test_a_chain_is_computed_in_the_memory_of_its_first_result() -> None:
    """a * 2 makes a block, since a is the caller's; relu, the sum and the root are written into it."""
    a, b = inputs(SIZE)
    module = program(lambda a, b: [((a * 2.0).relu() + b.exp()).sqrt()], a, b)
    assert written(module) == ["aten.relu_.default", "aten.add.out", "aten.sqrt.out"]


def test_what_is_normalised_is_rectified_in_place() -> None:
    """torch can take its batch normalisation apart into operations, and views among them, but never hands out what it was given."""
    x = draws.normal(draws.key(0, "image"), SIZE // 64, 4, 4, 4)
    ones, zeros = torch.ones(4), torch.zeros(4)
    module = program(lambda x: [torch.native_batch_norm(x, ones, zeros, zeros, ones, False, 0.0, 1e-5)[0].relu()], x)
    assert written(module) == ["aten.relu_.default"]


def test_a_number_is_added_in_place_of_what_it_is_added_to_and_not_through_a_copy() -> None:
    a, b = inputs(SIZE)
    module = program(lambda a, b: [(a.exp() * 2.0 - 1.0) / b], a, b)
    assert written(module) == ["aten.mul_.Tensor", "aten.sub_.Tensor", "aten.div.out"]
    assert torch.equal(module(a, b)[0], (a.exp() * 2.0 - 1.0) / b)


def test_what_the_caller_gave_is_not_written_into() -> None:
    a, b = inputs(SIZE)
    before = a.clone()
    module = program(lambda a, b: [a + b, a.view(-1, 2).relu()], a, b)
    module(a, b)
    assert written(module) == []
    assert torch.equal(a, before)


@pytest.mark.parametrize(
    "function",
    [
        lambda a, b: [(x := a * 2.0) + b, x.exp()],
        lambda a, b: [(x := a * 2.0).relu(), x],
        lambda a, b: [(view := (x := a * 2.0).view(-1, 2)).sum(), x.relu(), view],
        lambda a, b: [(x := (a * 2.0).view(128, -1)).relu() + x.flip(0).exp()],
        lambda a, b: [(x := a * 2.0).view(128, 128) + x.view(128, 128).T],
        lambda a, b: [(y := (x := a * 2.0).relu()) + b, y.exp(), (x * 3.0).sum()],
        lambda a, b: [(x := a * 2.0) * x],
        lambda a, b: [(parts := torch.unsafe_split(x := torch.cat([a, b]) * 2.0, SIZE))[0] + 1.0, x.relu(), parts[1] * 3.0],
        lambda a, b: [((x := a * 2.0).relu().view(-1, 2) * 3.0).view(-1) + x],
    ],
    ids=[
        "read later",
        "returned",
        "a view returned",
        "both orders",
        "its own transpose",
        "a result read twice",
        "square",
        "parts",
        "read after its view",
    ],
)
def test_a_program_gives_the_same_bits_in_place(function: Callable[..., list[Tensor]]) -> None:
    a, b = inputs(SIZE)
    for found, expected in zip(program(function, a, b)(a, b), function(a, b), strict=True):
        assert torch.equal(found, expected)


@pytest.mark.parametrize("function", [lambda a, b: [(b * 2.0) + a], lambda a, b: [(b * 2.0) > a]])
def test_a_result_of_another_shape_or_type_has_memory_of_its_own(function: Callable[..., list[Tensor]]) -> None:
    (a,), (b,) = inputs(4, SIZE, count=1), inputs(SIZE, count=1)
    assert written(program(function, a, b)) == []


def test_small_tensors_are_left_alone() -> None:
    a, b = inputs(SIZE - 1)
    assert written(program(lambda a, b: [(a * 2.0 + b).relu()], a, b)) == []
