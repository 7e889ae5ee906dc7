"""Views in recorded programs: what is behind them, whether they keep the order, and repeating them."""

from __future__ import annotations

import pytest
import torch
from torch.fx import Graph, GraphModule, Node

from metarun.compute.kernels.views import before_views, in_order, plain, repeat_views, replace, replayed

aten = torch.ops.aten


class Program:
    """A program built node by node; each node carries its value."""

    def __init__(self) -> None:
        self.graph = Graph()

    def input(self, value: torch.Tensor) -> Node:
        node = self.graph.placeholder(f"x{len(self.graph.nodes)}")
        node.meta["val"] = value
        return node

    def call(self, operation, *arguments) -> Node:
        node = self.graph.call_function(operation, arguments)
        node.meta["val"] = operation(*(argument.meta["val"] if isinstance(argument, Node) else argument for argument in arguments))
        return node

    def run(self, output: Node, *values: torch.Tensor) -> torch.Tensor:
        self.graph.output(output)
        return GraphModule(torch.nn.Module(), self.graph)(*values)


def test_the_node_before_views_is_found_and_the_views_come_in_their_order():
    program = Program()
    x = program.input(torch.zeros(2, 6))
    viewed = program.call(aten.view.default, x, [3, 4])
    turned = program.call(aten.permute.default, viewed, [1, 0])
    program.call(aten.relu.default, turned)
    assert before_views(turned) == (x, [viewed, turned])
    assert before_views(x) == (x, [])


def test_a_view_that_others_read_too_ends_the_search_unless_that_is_allowed():
    program = Program()
    x = program.input(torch.zeros(2, 6))
    viewed = program.call(aten.view.default, x, [12])
    for _ in range(2):
        program.call(aten.relu.default, viewed)
    assert before_views(viewed) == (viewed, [])
    assert before_views(viewed, alone=False) == (x, [viewed])


def test_copies_are_passed_only_if_asked_for():
    program = Program()
    x = program.input(torch.zeros(3))
    copy = program.call(aten.clone.default, x)
    program.call(aten.relu.default, copy)
    assert before_views(copy) == (copy, [])
    assert before_views(copy, copies=True) == (x, [copy])


@pytest.mark.parametrize(("back", "kept"), [([1, 0], True), ([0, 1], False)])
def test_an_order_is_kept_if_a_second_turn_undoes_the_first(back: list[int], kept: bool):
    program = Program()
    x = program.input(torch.zeros(2, 2))
    first = program.call(aten.permute.default, x, [1, 0])
    second = program.call(aten.permute.default, first, back)
    assert in_order(x, [first, second]) is kept


def test_views_that_a_contiguous_tensor_does_not_allow_have_no_order():
    program = Program()
    x = program.input(torch.zeros(3, 2).t())
    viewed = program.call(aten.view.default, program.call(aten.permute.default, x, [1, 0]), [6])
    assert replayed((2, 3), [viewed.args[0], viewed]) is None


def test_repeated_views_give_the_same_values_and_copy_if_the_order_in_memory_differs():
    program = Program()
    x, other = program.input(torch.zeros(3, 2).t()), program.input(torch.zeros(2, 3))
    turned = program.call(aten.permute.default, x, [1, 0])
    flat = program.call(aten.view.default, turned, [6])
    end = program.call(aten.relu.default, flat)
    repeated = repeat_views(other, [turned, flat], before=end)
    assert repeated.meta["val"].shape == (6,)
    values = torch.arange(6.0).reshape(2, 3)
    assert torch.equal(program.run(repeated, torch.zeros(3, 2).t(), values), values.t().reshape(6))


def test_a_replaced_node_is_gone_and_its_readers_read_the_new_one():
    program = Program()
    x = program.input(torch.ones(2))
    old = program.call(aten.relu.default, x)
    end = program.call(aten.neg.default, old)
    replace(old, aten.exp.default, (x,))
    assert end.args[0].target is aten.exp.default
    assert old not in program.graph.nodes
    torch.testing.assert_close(program.run(end, torch.ones(2)), -torch.ones(2).exp())


def test_only_float32_on_the_cpu_in_the_right_order_is_plain():
    program = Program()
    image = torch.zeros(1, 2, 3, 3)
    assert plain(program.input(image), torch.contiguous_format)
    assert not plain(program.input(image), torch.channels_last)
    assert plain(program.input(image.contiguous(memory_format=torch.channels_last)), torch.channels_last)
    assert not plain(program.input(image.double()), torch.contiguous_format)
