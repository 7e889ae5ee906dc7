"""Views in recorded programs: finding the node behind them, following how they order values, repeating them on another node."""

from __future__ import annotations

from collections.abc import Callable, Sequence
from typing import Any

import torch
from torch import Tensor
from torch.fx import Node

from metarun.compute.kernels.operations import aten

_VIEWS = (aten.view.default, aten._unsafe_view.default, aten.permute.default)
_COPY = aten.clone.default


def plain(node: Node, order: torch.memory_format) -> bool:
    """Say whether a node's value is a float32 tensor on the CPU that lies in this order in memory, as the C kernels need it."""
    value: Tensor = node.meta["val"]
    return value.dtype == torch.float32 and value.device.type == "cpu" and value.is_contiguous(memory_format=order)


def replace(node: Node, operation: Callable[..., Any], arguments: tuple[Any, ...]) -> None:
    """Put a call of another operation in the place of a node."""
    with node.graph.inserting_before(node):
        new = node.graph.call_function(operation, arguments)
    new.meta = dict(node.meta)
    node.replace_all_uses_with(new)
    node.graph.erase_node(node)


def before_views(node: Node, *, alone: bool = True, copies: bool = False) -> tuple[Node, list[Node]]:
    """Return the node that this node is a view of (or the node itself), and the views between the two, the first one first.

    alone: stop at a view that several nodes read, so that no other node reads the result. copies: pass through copies too.
    """
    views: list[Node] = []
    while (node.target in _VIEWS or (copies and node.target is _COPY)) and (len(node.users) == 1 or not alone):
        views.insert(0, node)
        node = node.args[0]  # type: ignore[assignment]
    return node, views


def in_order(node: Node, views: Sequence[Node]) -> bool:
    """Say whether the views of a node keep its shape and the order of its values."""
    shape = node.meta["val"].shape
    viewed = replayed(shape, views)
    return viewed is not None and viewed.shape == shape and viewed.is_contiguous()


def replayed(shape: Sequence[int], views: Sequence[Node]) -> Tensor | None:
    """Return the views of a contiguous tensor of this shape, without data, or None where a view fails for the contiguous order.

    Copies are left out. The strides of the result therefore say where each value comes from.
    """
    viewed = torch.empty(shape, device="meta")
    for view in views:
        operation: Any = view.target
        try:
            viewed = viewed if operation is _COPY else operation(viewed, *view.args[1:])
        except RuntimeError:
            return None
    return viewed


def repeat_views(node: Node, views: Sequence[Node], *, before: Node) -> Node:
    """Insert the same views of another node before a place of the program, and return the last one; they copy where they must."""
    with node.graph.inserting_before(before):
        for view in views:
            if view.target is not _COPY:
                operation: Any = view.target if view.target is aten.permute.default else aten.reshape.default
                value = operation(node.meta["val"], *view.args[1:])
                node = node.graph.call_function(operation, (node, *view.args[1:]))
                node.meta = view.meta | {"val": value}
    return node
