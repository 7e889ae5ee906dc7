"""Recorded programs without Python between their operations.

Python takes some microseconds from one operation to the next, more than a small operation itself takes; and of threads that run programs side
by side only one at a time may do so, for which the others wait. The interpreter that torch has for its own programs (TorchScript's, in C++)
calls the same operations in the same order, hence the same bits, and needs Python only to begin and to end (and for operations that are written
in it, as those of `metarun.compute.kernels.operations`, each of which comes to one long call of C). It is asked to change nothing
on the way: fusing is for `device.compile`. (A product with a number is an operation of its own there, of the same bits.)

What is used of torch here is not public. Where it is missing, or a program has an operation that is not torch's, Python runs the program.
"""

from __future__ import annotations

import logging
import operator
from collections.abc import Callable, Sequence
from typing import Any

import torch
from torch import Tensor
from torch.fx import GraphModule, Node

from metarun.compute.programs.in_place import has_number
from metarun.errors import first_line

log = logging.getLogger(__name__)

_MEMORY_FORMATS = {torch.contiguous_format: 0, torch.preserve_format: 1, torch.channels_last: 2, torch.channels_last_3d: 3}
"""Their numbers in c10/core/MemoryFormat.h."""
_NONE = "(no schema)"
"""How torch says that there is no operation for such arguments."""


def without_python(module: GraphModule) -> Callable[..., Sequence[Tensor]] | None:
    """Return what takes the tensors that a flat program takes and returns those that it returns; None where Python has to run it."""
    try:
        function = torch._C._create_function_from_graph("program", _Translation(module).graph)
        get, change = torch._C._get_graph_executor_optimize, torch._C._set_graph_executor_optimize
    except Exception as error:  # whatever is missing or new in this version of torch
        log.info("a recorded program is run by Python: %s", first_line(error))
        return None

    def run(*tensors: Tensor) -> Sequence[Tensor]:
        before = get()  # of this thread alone
        change(False)
        try:
            found: Sequence[Tensor] = function(*tensors)
        except Exception as error:
            # torch's interpreter makes one kind of error of all. Python's has the kind and the words that the operation gave it.
            found = module.forward(*tensors)
            log.warning("a recorded program failed without Python, and was run by it: %s", error)
        finally:
            change(before)
        return found

    return run


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
        """Append an operation; return its result, or a list of them."""
        if not isinstance(node.target, torch._ops.OpOverload):
            raise TypeError(f"{node.target} is no operation of torch.")
        schema = node.target._schema
        given = dict(zip((argument.name for argument in schema.arguments), node.args, strict=False)) | node.kwargs
        arguments = [(given.get(each.name, each.default_value), each.type) for each in schema.arguments]
        if node.target is torch.ops.aten._to_copy.default and given.get("dtype") is not None and not isinstance(node.args[0], Node):
            arguments[0] = (torch.tensor(node.args[0]), arguments[0][1])
        call = self._append(schema.name, [self._value(value, kind) for value, kind in arguments], len(schema.returns))
        results = list(call.outputs())
        for result, returned in zip(results, schema.returns, strict=True):
            result.setType(returned.type)
        # torch finds the operation by the types of its arguments: a number in the place of a tensor leads to one that takes it as it is.
        number = bool(node.all_input_nodes) and has_number(node)
        if call.schema() != str(schema) and (call.schema() == _NONE or not number):
            raise TypeError(f"{schema} is taken for {call.schema()}.")
        if len(results) != 1:
            return results
        if isinstance(node.meta.get("val"), (list, tuple)):
            return list(self._append("prim::ListUnpack", results, len(node.meta["val"])).outputs())
        return results[0]

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
