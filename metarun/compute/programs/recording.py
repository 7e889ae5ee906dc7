"""Recording a pure function of tensors as a flat program of tensor operations, which then runs without the code that wrote it.

An algorithm is written with `torch.func`: gradients inside a map over tasks, inside a gradient. Working that out costs Python more than
small tensors cost the processor, and it is the same work each time, since the functions are pure and shapes decide everything. So the
function runs once under a tracer, and from then on only the operations are called: the same ones in the same order, but for copies that would
be made twice, hence the same bits (but for what `device.compile` and `device.kernels` make of them), two to three times faster where tensors are small. A program holds no module and
no autograd graph, so several threads may run it at once, and torch's compiler can fuse it whole.
"""

from __future__ import annotations

import logging
import os
import time
from collections.abc import Callable, Hashable
from dataclasses import dataclass, field
from typing import Any

import torch
from torch import Tensor
from torch._guards import TracingContext, tracing
from torch._subclasses.fake_tensor import FakeTensorMode
from torch.fx import GraphModule, Node
from torch.fx.experimental.proxy_tensor import make_fx
from torch.utils._pytree import TreeSpec, tree_flatten, tree_unflatten

from metarun.cache import cache_folder
from metarun.compute.programs.in_place import may_alias, reuse_memory
from metarun.compute.programs.interpreter import without_python
from metarun.errors import first_line
from metarun.layers.pool import pool_by_maxima

log = logging.getLogger(__name__)

_SAME = (torch.ops.aten.detach.default, torch.ops.aten.alias.default)
"""Operations that mean nothing where no gradient is recorded."""
_ORDERS = (
    torch.ops.aten.view.default,
    torch.ops.aten._unsafe_view.default,
    torch.ops.aten.permute.default,
    torch.ops.aten.transpose.int,
    torch.ops.aten.t.default,
    torch.ops.aten.unsqueeze.default,
    torch.ops.aten.expand.default,
    torch.ops.aten.clone.default,
)
"""Operations that bring values into another order, or copy them."""


@dataclass(frozen=True)
class Program:
    """A function for arguments of one signature. concurrent: whether several threads may call it at once."""

    call: Callable[..., Any]
    concurrent: bool


@dataclass
class Recorded:
    """A pure function of pytrees of tensors, recorded once for each signature (structure, shapes, strides, types) of its arguments.

    function: must not branch on the values of tensors; one that does runs as it is, operation by operation.
    compile: fuse the program with torch's compiler, where a C++ compiler is found. c_kernels: of `metarun.compute.kernels.rewrite`, which must be there,
    and which that compiler knows nothing of.
    With either the result may differ in the last bits.
    """

    function: Callable[..., Any]
    compile: bool = False
    c_kernels: bool = False
    _programs: dict[Hashable, Program] = field(default_factory=dict)

    def program(self, *args: Any) -> Program:
        """Return the program for such arguments, recording it where it is new. Not for several threads at once."""
        leaves, spec = tree_flatten(args)
        signature = (spec, tuple(_describe(leaf) for leaf in leaves))
        if signature not in self._programs:
            self._programs[signature] = self._record(leaves, spec)
        return self._programs[signature]

    @property
    def whole(self) -> bool:
        """Whether the function has run here, and always as a recorded program."""
        return bool(self._programs) and all(program.concurrent for program in self._programs.values())

    def _record(self, leaves: list[Any], spec: TreeSpec) -> Program:
        shapes: list[TreeSpec] = []

        def flat(*tensors: Tensor) -> list[Any]:
            given = iter(tensors)
            args = tree_unflatten([next(given) if isinstance(leaf, Tensor) else leaf for leaf in leaves], spec)
            out, shape = tree_flatten(self.function(*args))
            shapes.append(shape)
            return out

        tensors = [leaf for leaf in leaves if isinstance(leaf, Tensor)]
        try:
            module = _traced(flat, tensors)
        except Exception as error:  # whatever it is, an error of the function itself comes again when it is called
            reason = first_line(error)
            if "_local_scalar_dense" in reason:
                reason = "what it does depends on the value of a tensor"
            log.info("not recorded, runs operation by operation: %s", reason)
            return Program(self.function, concurrent=False)
        _skip_what_does_nothing(module)
        _order_once(module)
        if self.c_kernels:
            from metarun.compute.kernels import rewrite

            module = rewrite(module)
        module = pool_by_maxima(module)
        run = _compiled(module, tensors) if self.compile else None
        if run is None:
            module = reuse_memory(module)
            run = without_python(module) or module.forward

        def call(*args: Any) -> Any:
            with torch.no_grad():
                out = run(*(leaf for leaf in tree_flatten(args)[0] if isinstance(leaf, Tensor)))
            return tree_unflatten(list(out), shapes[-1])

        return Program(call, concurrent=True)


def _traced(function: Callable[..., list[Any]], tensors: list[Tensor]) -> GraphModule:
    """Return the operations that the function comes to for these tensors.

    The tracer describes each result by a fake tensor. Left to itself it makes a mode for each of them, which over thousands of operations
    takes more time and memory than the tensors themselves; given one, it uses that.
    """
    with tracing(TracingContext(FakeTensorMode(allow_fallback_kernels=True))):
        return make_fx(function)(*tensors)


def _describe(leaf: Any) -> Hashable:
    return (leaf.shape, leaf.stride(), leaf.dtype, leaf.device) if isinstance(leaf, Tensor) else leaf


def _skip_what_does_nothing(module: GraphModule) -> None:
    for node in module.graph.nodes:
        if node.op == "call_function" and node.target in _SAME:
            node.replace_all_uses_with(node.args[0])


def _order_once(module: GraphModule) -> None:
    """Let what is brought into one order several times be brought once: maps over tasks do that for a function and again for its derivative.

    C kernels find the two together only then (`metarun.compute.kernels.rewrite`). What the program returns stays apart, as its caller may change it; a
    program that itself writes over tensors stays as it is.
    """
    nodes = [node for node in module.graph.nodes if node.op == "call_function"]
    if any(isinstance(node.target, torch._ops.OpOverload) and node.target._schema.is_mutable for node in nodes):
        return  # what lies behind a name may change
    returned = set(module.graph.output_node().all_input_nodes)
    for node in reversed(nodes):
        if node in returned and may_alias(node):
            returned.update(node.all_input_nodes)
    known: dict[Hashable, Node] = {}
    for node in nodes:
        if node.target in _ORDERS and node not in returned:
            first = known.setdefault((node.target, repr(node.args), repr(node.kwargs)), node)
            if first is not node:
                node.replace_all_uses_with(first)
                module.graph.erase_node(node)


def _compiled(module: GraphModule, tensors: list[Tensor]) -> Callable[..., Any] | None:
    """Return the program fused by torch's compiler, or None, having said why, where that does not work here."""
    os.environ.setdefault("TORCHINDUCTOR_CACHE_DIR", str(cache_folder() / "compiled"))  # torch's own place is emptied at every boot
    from torch import _inductor as inductor  # takes a second to import

    start = time.perf_counter()
    try:
        with torch.no_grad():
            compiled: Callable[..., Any] = inductor.compile(module, list(tensors))
            compiled(*tensors)  # the C++ compiler runs when the program is first called
    except Exception as error:
        reason = first_line(error)
        log.warning("device.compile: torch's compiler does not work here (%s); the run goes on without it.", reason)
        return None
    log.info("compiled in %.1f s", time.perf_counter() - start)
    return compiled
