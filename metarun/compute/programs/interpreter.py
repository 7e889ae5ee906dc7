"""Run recorded programs without Python between their operations.

Python takes some microseconds from one operation to the next, more than a small operation takes. It also holds the GIL between operations,
so threads that run programs at once wait for each other. torch has an interpreter of its own, TorchScript's, in C++. It calls the same
operations in the same order, hence the same bits, and holds the GIL only at the beginning and the end of a program, and for operations
that are written in Python, as those of `metarun.compute.kernels` are. metarun switches the interpreter's optimizations off: fusing
operations is the task of `device.compile`.

`executable` is the one function for other modules. The parts of torch that it uses are not public, and torch calls TorchScript deprecated.
Where they are missing, or a program has an operation that is not torch's, Python runs the program, with the same bits.
"""

from __future__ import annotations

import logging
import operator
import sys
from collections.abc import Callable, Sequence
from functools import partial
from typing import Any

import torch
from torch import Tensor
from torch.fx import GraphModule, Node

from metarun.compute.programs.in_place import has_number
from metarun.errors import first_line

log = logging.getLogger(__name__)

_MEMORY_FORMATS = {torch.contiguous_format: 0, torch.preserve_format: 1, torch.channels_last: 2, torch.channels_last_3d: 3}
"""Their numbers in c10/core/MemoryFormat.h."""
_NO_SCHEMA = "(no schema)"
"""torch's answer where no operation takes such arguments."""
_NEEDED = (
    "Graph",
    "TensorType",
    "ListType",
    "OptionalType",
    "FloatType",
    "_create_function_from_graph",
    "_get_graph_executor_optimize",
    "_set_graph_executor_optimize",
)
"""Members of `torch._C` that this module uses."""

Run = Callable[..., Sequence[Tensor]]
"""A function of the tensors that a program takes; it returns the tensors that the program returns."""


def executable(module: GraphModule) -> Run:
    """Return a function that runs a flat program: in torch's interpreter where possible, else in Python. The bits are the same."""
    return without_python(module) or module.forward


def without_python(module: GraphModule) -> Run | None:
    """Return a function that runs a flat program in torch's interpreter, or None, with a log line, where Python has to run the program."""
    try:
        reason = unsupported()
        function = None if reason else torch._C._create_function_from_graph("program", _Translation(module).graph)
    except Exception as error:  # whatever is missing or new in this version of torch
        function, reason = None, first_line(error)
    if function is None:
        log.info("a recorded program is run by Python: %s", reason)
        return None
    return partial(_run, function, module)


def unsupported() -> str | None:
    """Return the reason why torch's interpreter cannot run programs here, or None where it can."""
    if sys.version_info >= (3, 14):
        return "torch does not support its interpreter on Python 3.14"
    missing = [name for name in _NEEDED if not hasattr(torch._C, name)]
    return f"torch {torch.__version__} has no torch._C.{missing[0]}" if missing else None


def _run(function: Run, module: GraphModule, *tensors: Tensor) -> Sequence[Tensor]:
    """Run a program without the interpreter's optimizations, and by Python where the interpreter fails."""
    before = torch._C._get_graph_executor_optimize()  # a setting of this thread alone
    torch._C._set_graph_executor_optimize(False)
    try:
        return function(*tensors)
    except Exception as error:
        # The interpreter raises one kind of error for all. Python raises the operation's own, where the error comes again.
        results: Sequence[Tensor] = module.forward(*tensors)
        log.warning("torch's interpreter failed on a recorded program, and Python ran the program: %s", error)
        return results
    finally:
        torch._C._set_graph_executor_optimize(before)


class _Translation:
    """A program of `torch.fx`, all of whose operations are torch's, as a graph of torch's interpreter."""

    graph: Any

    def __init__(self, module: GraphModule) -> None:
        self.graph = torch._C.Graph()
        self._values: dict[Node, Any] = {}
        for node in module.graph.nodes:
            if node.op == "placeholder":
                self._values[node] = self.graph.addInput()
                self._values[node].setType(torch._C.TensorType.get())
            elif node.op == "get_attr":
                self._values[node] = self.graph.insertConstant(getattr(module, node.target))
            elif node.op == "output":
                self.graph.registerOutput(self._list(node.args[0], torch._C.ListType(torch._C.TensorType.get())))
            elif node.target is operator.getitem:
                self._values[node] = self._values[node.args[0]][node.args[1]]
            else:
                self._values[node] = self._call(node)
        self.graph.lint()

    def _call(self, node: Node) -> Any:
        """Append an operation; return its result, or a list of its results."""
        if not isinstance(node.target, torch._ops.OpOverload):
            raise TypeError(f"{node.target} is no operation of torch.")
        schema = node.target._schema
        call = self._append(schema.name, self._arguments(node, schema), len(schema.returns))
        results = list(call.outputs())
        for result, declared in zip(results, schema.returns, strict=True):
            result.setType(declared.type)
        _check_operation(call, node, schema)
        if len(results) != 1:
            return results
        return self._unpacked(results[0], node) if isinstance(node.meta.get("val"), (list, tuple)) else results[0]

    def _arguments(self, node: Node, schema: Any) -> list[Any]:
        """Return the value of every argument of the schema, defaults filled in."""
        named = dict(zip((argument.name for argument in schema.arguments), node.args, strict=False)) | node.kwargs
        copied = node.target is torch.ops.aten._to_copy.default and named.get("dtype") is not None
        if copied and not isinstance(node.args[0], Node):  # the tracer writes a constant tensor as a number
            named[schema.arguments[0].name] = torch.tensor(node.args[0])
        return [self._value(named.get(each.name, each.default_value), each.type) for each in schema.arguments]

    def _unpacked(self, result: Any, node: Node) -> list[Any]:
        """Return the tensors of a result that is a list of tensors."""
        return list(self._append("prim::ListUnpack", [result], len(node.meta["val"])).outputs())

    def _value(self, value: Any, kind: Any) -> Any:
        """Return an argument of the type that the operation's schema gives it."""
        if isinstance(value, Node):
            return self._values[value]
        if isinstance(value, (list, tuple)):
            return self._list(value, kind.getElementType() if isinstance(kind, torch._C.OptionalType) else kind)
        if isinstance(value, int) and isinstance(kind, torch._C.FloatType):
            value = float(value)
        return self.graph.insertConstant(_MEMORY_FORMATS[value] if isinstance(value, torch.memory_format) else value)

    def _list(self, values: Sequence[Any], kind: Any) -> Any:
        built = self._append("prim::ListConstruct", [self._value(value, kind.getElementType()) for value in values], 1).output()
        built.setType(kind)
        return built

    def _append(self, name: str, inputs: Sequence[Any], outputs: int) -> Any:
        return self.graph.appendNode(self.graph.create(name, inputs, outputs))


def _check_operation(call: Any, node: Node, schema: Any) -> None:
    """Raise TypeError where the interpreter would call another operation than the recorded one.

    The interpreter finds an operation by the types of its arguments. A number in the place of a tensor leads to the variant of the
    operation that takes a number, which gives the same bits.
    """
    same = call.schema() == str(schema)
    takes_number = bool(node.all_input_nodes) and has_number(node) and call.schema() != _NO_SCHEMA
    if not same and not takes_number:
        raise TypeError(f"{schema} is taken for {call.schema()}.")
