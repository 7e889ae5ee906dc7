"""Large operations of a recorded program written into memory that nothing needs any more.

A sum of two images in a fresh block costs several times what it costs in the place of one of them: the block comes from outside the cache.
A program's graph says which tensor is read for the last time, and by what; an operation that reads it place by place may write its result
there. The numbers stay the same to the last bit.
"""

from __future__ import annotations

from collections.abc import Iterator

import torch
from torch import Tensor
from torch.fx import GraphModule, Node

WORTH = 1 << 14
"""Values of a tensor below which the call costs more than its memory."""

aten = torch.ops.aten
_INTO = {
    aten.add.Tensor: (aten.add.out, "out"),
    aten.sub.Tensor: (aten.sub.out, "out"),
    aten.mul.Tensor: (aten.mul.out, "out"),
    aten.div.Tensor: (aten.div.out, "out"),
    aten.addcmul.default: (aten.addcmul.out, "out"),
    aten.neg.default: (aten.neg.out, "out"),
    aten.exp.default: (aten.exp.out, "out"),
    aten.sqrt.default: (aten.sqrt.out, "out"),
    aten.rsqrt.default: (aten.rsqrt.out, "out"),
    aten.pow.Tensor_Scalar: (aten.pow.Tensor_Scalar_out, "out"),
    aten.where.self: (aten.where.self_out, "out"),
    aten.threshold_backward.default: (aten.threshold_backward.grad_input, "grad_input"),
}
"""Operations that work place by place, with their form that writes into a given tensor and the name of that argument."""
_ONTO = {
    aten.relu.default: aten.relu_.default,
    aten.add.Tensor: aten.add_.Tensor,
    aten.sub.Tensor: aten.sub_.Tensor,
    aten.mul.Tensor: aten.mul_.Tensor,
    aten.div.Tensor: aten.div_.Tensor,
}
"""Those with their form that writes into the first argument: for what has no other, and where the second is a number, with which the forms
of `_INTO` compute in fresh memory and copy."""

_VIEWS = (
    aten._unsafe_view.default,
    aten._reshape_alias.default,
    aten.unsafe_split.Tensor,
    aten.unsafe_split_with_sizes.default,
    aten.unsafe_chunk.default,
)
"""Views whose schemas do not say so."""

_FRESH = (aten.native_batch_norm.default,)
"""Operations that torch can also take apart into others, and that make their results anew all the same; else no normalised image would be
rectified in place."""


def reuse_memory(module: GraphModule) -> GraphModule:
    """Let large operations write into their last-read arguments, in place; the tensors given to the program stay as they are."""
    ends = _ends(module)
    makers: dict[Node, frozenset[Node]] = {}
    for place, node in enumerate(module.graph.nodes):
        makers[node] = _makers(node, makers)
        target = next((given for given in _targets(node, makers) if all(ends.get(maker) == place for maker in makers[given])), None)
        if target is None:
            continue
        if node.target not in _INTO or has_number(node):
            node.target = _ONTO[node.target]
        else:
            node.target, name = _INTO[node.target]
            node.kwargs = {**node.kwargs, name: target}
        # The argument's memory is the result's from here on, and is needed as long as that is.
        makers[node] |= makers[target]
        ends |= dict.fromkeys(makers[target], ends[node])
    module.recompile()
    return module


def _ends(module: GraphModule) -> dict[Node, int]:
    """Return, for each operation, the place at which the memory that it makes is read for the last time."""
    makers: dict[Node, frozenset[Node]] = {}
    ends: dict[Node, int] = {}
    for place, node in enumerate(module.graph.nodes):
        makers[node] = _makers(node, makers)
        for each in (node, *node.all_input_nodes):
            ends |= dict.fromkeys(makers[each], place)
    return {maker: place for maker, place in ends.items() if maker.op == "call_function"}


def _makers(node: Node, makers: dict[Node, frozenset[Node]]) -> frozenset[Node]:
    """Return the nodes that made the memory in which a node's result may lie: itself, or for a view what it is a view of."""
    views = node.op == "output" or (node.op == "call_function" and may_alias(node))
    viewed = frozenset[Node]().union(*(makers[given] for given in node.all_input_nodes)) if views else frozenset()
    return viewed or frozenset([node])


def _targets(node: Node, makers: dict[Node, frozenset[Node]]) -> Iterator[Node]:
    """Yield the arguments of a node in whose place its result fits: large, of the same layout, and no other argument in that memory."""
    if node.target not in _INTO and node.target not in _ONTO:
        return
    number = has_number(node)
    if number and node.target not in _ONTO:
        return
    result, arguments = node.meta.get("val"), [value for value in (node.args[:1] if number else node.args) if isinstance(value, Node)]
    for given in arguments:
        value = given.meta.get("val")
        if not isinstance(value, Tensor) or not isinstance(result, Tensor) or value.numel() < WORTH:
            continue
        alone = all(other is given or not makers[other] & makers[given] for other in arguments)
        if alone and (value.shape, value.stride(), value.dtype) == (result.shape, result.stride(), result.dtype):
            yield given


def has_number(node: Node) -> bool:
    """Say whether an operation of torch has a number where its schema has a tensor."""
    if not isinstance(node.target, torch._ops.OpOverload):
        return False
    return any(
        str(given.type) == "Tensor" and not isinstance(value, Node)
        for given, value in zip(node.target._schema.arguments, node.args, strict=False)
    )


def may_alias(node: Node) -> bool:
    """Say whether a node's result may lie in the memory of an argument.

    That is assumed of what is no operation of torch, and of operations made of others, as `contiguous` is, which copy or do not.
    """
    target = node.target
    if target in _FRESH:
        return False
    if not isinstance(target, torch._ops.OpOverload) or target.has_kernel_for_dispatch_key(torch._C.DispatchKey.CompositeImplicitAutograd):
        return True
    return target in _VIEWS or any(value.alias_info is not None for value in target._schema.returns)
