"""Record a pure function of tensors as a flat program of tensor operations, and run the program instead of the function.

An algorithm uses `torch.func`: gradients inside a map over tasks, inside a gradient. Python spends more time on these transformations than
the processor spends on small tensors. Each call does the same operations, since the functions are pure and shapes determine the operations.
So the function runs once under a tracer. After that metarun calls the recorded operations alone. This is two to three times as fast where
tensors are small. The operations and their order are the same, except that a repeated layout change runs once. So the bits are the same.
`device.compile` and `device.kernels` may change the last bits. A program holds no module and no autograd graph. So several threads may run
it at once, and torch's compiler can fuse it as a whole.
"""

from __future__ import annotations

import functools
import logging
import os
import time
from collections.abc import Callable, Hashable, Iterable, Sequence
from dataclasses import dataclass, field
from typing import Any

import torch
from torch import Tensor
from torch._guards import TracingContext, tracing
from torch._subclasses.fake_tensor import FakeTensorMode
from torch.fx import GraphModule, Node
from torch.fx.experimental.proxy_tensor import make_fx
from torch.utils._pytree import TreeSpec, tree_flatten

from metarun.compute.programs.in_place import may_alias, reuse_memory
from metarun.compute.programs.interpreter import executable
from metarun.compute.stops import noting_stops
from metarun.errors import first_line
from metarun.files.cache import private_folder
from metarun.functional import split_tensors
from metarun.records.display import doing

log = logging.getLogger(__name__)

_ALIASES = (torch.ops.aten.detach.default, torch.ops.aten.alias.default)
"""Operations that do nothing where no gradient is recorded."""
_LAYOUT_CHANGES = (
    torch.ops.aten.view.default,
    torch.ops.aten._unsafe_view.default,
    torch.ops.aten.permute.default,
    torch.ops.aten.transpose.int,
    torch.ops.aten.t.default,
    torch.ops.aten.unsqueeze.default,
    torch.ops.aten.expand.default,
    torch.ops.aten.clone.default,
)
"""Operations that change the shape or the order of values, or copy them."""


@dataclass(frozen=True)
class Program:
    """A function for arguments of one signature. concurrent: whether several threads may call it at once."""

    call: Callable[..., Any]
    concurrent: bool


@dataclass
class Recorded:
    """A pure function of pytrees of tensors, recorded once for each signature (structure, shapes, strides, types) of its arguments.

    function: must not branch on the values of tensors. metarun does not record a function that branches, but calls it directly.
    compile: fuse the program with torch's compiler, where a C++ compiler is found. A signal stops the compiler at once if the function has
    a true attribute `breakable`, so that its caller is ready for `CompilingStopped`. The attribute `what` names the function for a person.
    c_kernels: let the C kernels of `metarun.compute.kernels` replace operations. They must be there; torch's compiler does not know them.
    With `compile` or `c_kernels` the results may differ in the last bits.
    """

    function: Callable[..., Any]
    compile: bool = False
    c_kernels: bool = False
    _programs: dict[Hashable, Program] = field(default_factory=dict)

    def program(self, *args: Any) -> Program:
        """Return the program for the signature of these arguments; record it if the signature is new. Not thread-safe."""
        leaves, spec = tree_flatten(args)
        signature = (_structure(spec), tuple(_describe(leaf) for leaf in leaves))
        if signature not in self._programs:
            self._programs[signature] = self._record(args)
        return self._programs[signature]

    @property
    def whole(self) -> bool:
        """Whether the function has programs here, and metarun recorded every one of them."""
        return bool(self._programs) and all(program.concurrent for program in self._programs.values())

    def _record(self, args: tuple[Any, ...]) -> Program:
        tensors, refill = split_tensors(args)
        refills: list[Callable[[Iterable[Tensor]], Any]] = []  # for the result, whose structure is known after the function has run

        def flat(*tensors: Tensor) -> list[Tensor]:
            results, refill_result = split_tensors(self.function(*refill(tensors)))
            refills.append(refill_result)
            return results

        try:
            with doing(f"recording {self._what}"):
                module = _traced(flat, tensors)
        except Exception as error:  # any kind: an error in the function itself appears again when metarun calls the function
            reason = first_line(error)
            if "_local_scalar_dense" in reason:
                reason = "the function branches on the value of a tensor"
            log.info("a function is not recorded and runs operation by operation: %s", reason)
            return Program(self.function, concurrent=False)
        run = self._runnable(module, tensors)

        def call(*args: Any) -> Any:
            with torch.no_grad():
                return refills[-1](run(*split_tensors(args)[0]))

        return Program(call, concurrent=True)

    @property
    def _what(self) -> str:
        return str(getattr(self.function, "what", "a program"))

    def _runnable(self, module: GraphModule, tensors: list[Tensor]) -> Callable[..., Sequence[Tensor]]:
        """Return a fast function of tensors that computes the program."""
        _skip_aliases(module)
        _merge_layout_changes(module)
        module.graph.eliminate_dead_code()
        module.recompile()
        if self.c_kernels:
            from metarun.compute.kernels import rewrite

            module = rewrite(module)
        compiled = None
        if self.compile:
            with doing(f"compiling {self._what}"):
                compiled = _compiled(module, tensors, at_once=getattr(self.function, "breakable", False))
        return executable(reuse_memory(module)) if compiled is None else compiled


def _traced(function: Callable[..., list[Tensor]], tensors: list[Tensor]) -> GraphModule:
    """Return the operations that the function calls for these tensors.

    The tracer describes each result by a fake tensor. By default the tracer makes one mode for each result. For thousands of
    operations these modes take more time and memory than the tensors. So metarun gives the tracer one mode for all results.
    """
    with tracing(TracingContext(FakeTensorMode(allow_fallback_kernels=True))):
        return make_fx(function)(*tensors)


def _structure(spec: TreeSpec) -> Hashable:
    """Return the structure of a pytree as a dictionary key: the spec, or its text where torch cannot hash a spec (torch 2.6)."""
    return spec if _specs_have_hashes() else repr(spec)


@functools.cache
def _specs_have_hashes() -> bool:
    try:
        hash(tree_flatten({"name": 0})[1])
    except TypeError:
        return False
    return True


def _describe(leaf: Any) -> Hashable:
    return (leaf.shape, leaf.stride(), leaf.dtype, leaf.device) if isinstance(leaf, Tensor) else leaf


def _skip_aliases(module: GraphModule) -> None:
    for node in module.graph.nodes:
        if node.op == "call_function" and node.target in _ALIASES:
            node.replace_all_uses_with(node.args[0])


def _merge_layout_changes(module: GraphModule) -> None:
    """Eliminate common subexpressions among layout changes. A map over tasks repeats them for a function and for its derivative.

    The C kernels need this step to recognise both results as one tensor. Results that the program returns stay separate, as the caller may
    change them. A program with in-place operations stays unchanged.
    """
    nodes = [node for node in module.graph.nodes if node.op == "call_function"]
    if any(isinstance(node.target, torch._ops.OpOverload) and node.target._schema.is_mutable for node in nodes):
        return  # the same expression may have two values
    returned = set(module.graph.output_node().all_input_nodes)
    for node in reversed(nodes):
        if node in returned and may_alias(node):
            returned.update(node.all_input_nodes)
    known: dict[Hashable, Node] = {}
    for node in nodes:
        if node.target in _LAYOUT_CHANGES and node not in returned:
            first = known.setdefault((node.target, repr(node.args), repr(node.kwargs)), node)
            if first is not node:
                node.replace_all_uses_with(first)
                module.graph.erase_node(node)


def _compiled(module: GraphModule, tensors: list[Tensor], *, at_once: bool = False) -> Callable[..., Any] | None:
    """Return the program fused by torch's compiler, or None, with a warning, where the compiler does not work here.

    at_once: raise CompilingStopped at a signal. Otherwise metarun compiles again if a signal has ended the compiler.
    """
    if (kept := private_folder("compiled")) is not None:  # torch's default folder is emptied at every boot
        os.environ.setdefault("TORCHINDUCTOR_CACHE_DIR", str(kept))
    from torch import _inductor as inductor  # takes a second to import

    start = time.perf_counter()
    with noting_stops(at_once=at_once) as stopped:
        try:
            compiled = _compile(inductor, module, tensors)
        except Exception as error:
            if stopped():
                return _compiled(module, tensors)
            log.warning("device.compile: torch's compiler does not work here (%s); the run goes on without it.", first_line(error))
            return None
    log.info("compiled in %.1f s", time.perf_counter() - start)
    return compiled


def _compile(inductor: Any, module: GraphModule, tensors: list[Tensor]) -> Callable[..., Any]:
    with torch.no_grad():
        compiled: Callable[..., Any] = inductor.compile(module, list(tensors))
        compiled(*tensors)  # the C++ compiler runs when the program is first called
    return compiled
