"""Programs without Python: the same operations, hence the same bits; and Python where torch's interpreter will not do."""

from __future__ import annotations

import logging
import threading
from collections.abc import Callable
from types import SimpleNamespace
from typing import Any

import pytest
import torch
from small import algorithm_of, few_shot
from torch import Tensor
from torch.fx import GraphModule
from torch.fx.experimental.proxy_tensor import make_fx

from metarun import draws, testing
from metarun.compute.programs import interpreter
from metarun.compute.programs.in_place import WORTH, reuse_memory
from metarun.compute.programs.interpreter import executable, without_python
from metarun.compute.programs.recording import Recorded
from metarun.engine.training import TaskGradients


def recorded(function: Callable[..., list[Tensor]], *tensors: Tensor) -> GraphModule:
    return make_fx(function)(*tensors)


def inputs() -> tuple[Tensor, Tensor]:
    return draws.normal(draws.key(0, "x"), 3, 4), draws.normal(draws.key(0, "y"), 5, 2)


PROGRAMS: dict[str, Callable[[Tensor, Tensor], list[Tensor]]] = {
    "several results": lambda x, y: [*x.max(dim=0), *x.sort(dim=1, descending=True)],
    "a list of results": lambda x, y: [left * right for left, right in [x.split(2, dim=1)]],
    "a list of tensors": lambda x, y: [torch.stack([x, x + 1]), torch.cat([x, x], dim=1)],
    "a list with gaps": lambda x, y: [x[:, (y[:, 0] > 0).long()]],
    "numbers for tensors": lambda x, y: [x * 2.0, 1 - x, x / 3, x + 1e-5, torch.where(x > 0, x, 0.5), x.clamp(min=0.1)],
    "an infinite number": lambda x, y: [x.masked_fill(x > 0, float("-inf"))],
    "whole numbers for broken ones": lambda x, y: [torch.nn.functional.threshold(x, 0, 1), x.norm(2)],
    "types": lambda x, y: [x.double().sum(dim=1), (x > 0).long().cumsum(0), x.to(torch.bfloat16).float()],
    "orders in memory": lambda x, y: [x.reshape(1, 3, 2, 2).contiguous(memory_format=torch.channels_last).relu()],
    "new tensors": lambda x, y: [torch.zeros(3, 4) + x, torch.full((2,), 3.0), torch.empty(0), x.new_ones([])],
    "constants": lambda x, y: [x + torch.ones(4)],
    "in place": lambda x, y: [(x * 2).mul_(3).add_(x)],
    "what is given": lambda x, y: [x, y, x],
    "draws": lambda x, y: [draws.uniform((x[:, 0] * 100).long(), 4), draws.normal((x[:, 0] * 100).long(), 4)],
}


@pytest.mark.parametrize("name", PROGRAMS)
def test_a_program_gives_the_same_bits_types_and_orders_as_python(name: str):
    tensors = inputs()
    module = recorded(PROGRAMS[name], *tensors)
    run = without_python(module)
    assert run is not None
    expected, found = module(*tensors), run(*tensors)
    assert len(found) == len(expected)
    for one, other in zip(found, expected, strict=True):
        assert (one.dtype, one.stride()) == (other.dtype, other.stride())
        assert torch.equal(one, other)


def test_a_recorded_function_is_run_without_python(monkeypatch: pytest.MonkeyPatch):
    runs = []

    def spied(module: GraphModule) -> Any:
        run = without_python(module)
        assert run is not None
        return lambda *tensors: runs.append(run(*tensors)) or runs[-1]

    monkeypatch.setattr(interpreter, "without_python", spied)
    x = inputs()[0]
    program = Recorded(torch.exp).program(x)
    found = [program.call(number * x) for number in (1, 2)]
    assert [torch.equal(one, (number * x).exp()) for number, one in enumerate(found, start=1)] == [True, True]
    assert len(runs) == 2


def test_one_program_on_two_threads_gives_each_its_own_results():
    x = draws.normal(draws.key(0, "large"), 200, 200)
    module = recorded(lambda x: [torch.linalg.matrix_norm(x @ x) + x.sum()], x)
    run = without_python(module)
    assert run is not None
    found: list[Tensor] = []

    def several() -> None:
        found.extend(run(x * number)[0] for number in range(1, 30))

    threads = [threading.Thread(target=several) for _ in range(2)]
    for thread in threads:
        thread.start()
    for thread in threads:
        thread.join()
    assert len(found) == 58
    assert sorted(map(float, found)) == sorted(2 * [float(module(x * number)[0]) for number in range(1, 30)])


def test_numbers_alone_are_left_to_python_since_their_type_is_no_tensors():
    module = recorded(lambda x: [x * 2], torch.ones(3))
    product = next(node for node in module.graph.nodes if node.op == "call_function")
    with module.graph.inserting_before(product):
        product.args = (product.args[0], module.graph.call_function(torch.ops.aten.mul.Tensor, (2.0, 3.0)))
    module.recompile()
    assert without_python(module) is None


def test_large_products_with_numbers_are_written_in_place_here_too():
    """A product with a number into a given tensor would be computed in fresh memory, and copied."""
    x = draws.normal(draws.key(0, "large"), WORTH)
    module = reuse_memory(recorded(lambda x: [((x.exp() * 2.0 + 1.0) / 3.0 - 0.5).relu()], x))
    run = without_python(module)
    assert run is not None
    with torch.profiler.profile(profile_memory=True) as profile:
        found = run(x)
    blocks = [event.name for event in profile.events() if event.self_cpu_memory_usage >= x.nbytes]
    assert blocks == ["aten::exp"]
    assert torch.equal(found[0], ((x.exp() * 2.0 + 1.0) / 3.0 - 0.5).relu())


def test_an_error_of_an_operation_reaches_the_caller():
    run = without_python(recorded(lambda x, y: [x[:, :2] @ y.T], *inputs()))
    assert run is not None
    with pytest.raises(RuntimeError, match=r"^mat1 and mat2 shapes cannot be multiplied \(3x2 and 6x5\)$"):
        run(torch.ones(3, 4), torch.ones(5, 6))


def test_an_error_is_of_the_kind_that_the_operation_raises():
    run = without_python(recorded(lambda x, y: [x[(y[:, 0] * 0).long()]], *inputs()))
    assert run is not None
    with pytest.raises(IndexError, match="out of bounds for dimension with size 0"):
        run(torch.ones(0, 4), torch.ones(5, 2))


@pytest.mark.parametrize("number", [3, 2.5, True])
def test_a_number_that_is_copied_is_a_tensor(number: float):
    """As random draws copy their constants, which the tracer writes down as numbers."""
    module = recorded(lambda x: [x * 2], torch.ones(3))
    product = next(node for node in module.graph.nodes if node.op == "call_function")
    with module.graph.inserting_before(product):
        product.args = (product.args[0], module.graph.call_function(torch.ops.aten._to_copy.default, (number,), {"dtype": torch.float32}))
    module.recompile()
    run = without_python(module)
    assert run is not None
    assert torch.equal(run(torch.ones(3))[0], module(torch.ones(3))[0])


def test_how_others_run_their_torchscript_stays_as_it_was():
    run = without_python(recorded(lambda x, y: [x.exp()], *inputs()))
    assert run is not None
    for chosen in (True, False):
        torch._C._set_graph_executor_optimize(chosen)
        run(*inputs())
        assert torch._C._get_graph_executor_optimize() is chosen
    torch._C._set_graph_executor_optimize(True)


def test_an_operation_that_is_not_torchs_is_left_to_python(caplog: pytest.LogCaptureFixture):
    module = recorded(lambda x, y: [x.exp()], *inputs())
    next(node for node in module.graph.nodes if node.op == "call_function").target = torch.exp
    module.recompile()
    with caplog.at_level(logging.INFO):
        assert without_python(module) is None
    assert "a recorded program is run by Python" in caplog.text
    assert "is no operation of torch" in caplog.text


def test_an_operation_that_torchs_interpreter_would_not_find_is_left_to_python(caplog: pytest.LogCaptureFixture):
    """`atan2` takes no number."""
    module = recorded(lambda x: [x * 2], torch.ones(3))
    next(node for node in module.graph.nodes if node.op == "call_function").target = torch.ops.aten.atan2.default
    module.recompile()
    with caplog.at_level(logging.INFO):
        assert without_python(module) is None
    assert "aten::atan2(Tensor self, Tensor other) -> Tensor is taken for (no schema)" in caplog.text


def test_a_program_that_fails_there_and_not_in_python_is_told(monkeypatch: pytest.MonkeyPatch, caplog: pytest.LogCaptureFixture):
    def failing(*_: Tensor) -> Any:
        raise RuntimeError("no kernel")

    monkeypatch.setattr(torch._C, "_create_function_from_graph", lambda *_: failing)
    x = inputs()[0]
    assert torch.equal(Recorded(torch.exp).program(x).call(x), x.exp())
    assert "torch's interpreter failed on a recorded program, and Python ran the program: no kernel" in caplog.text


def create_nothing(patch: pytest.MonkeyPatch) -> None:
    def absent(*_: Any) -> Any:
        raise AttributeError("no such thing in this version")

    patch.setattr(torch._C, "_create_function_from_graph", absent)


FALL_BACKS: dict[str, tuple[Callable[[pytest.MonkeyPatch], None], str]] = {
    "a member is gone": (
        lambda patch: patch.delattr(torch._C, "_get_graph_executor_optimize"),
        "has no torch._C._get_graph_executor_optimize",
    ),
    "Python 3.14": (lambda patch: patch.setattr(interpreter, "sys", SimpleNamespace(version_info=(3, 14, 0))), "on Python 3.14"),
    "another interface": (create_nothing, "no such thing in this version"),
}


@pytest.mark.parametrize("name", FALL_BACKS)
def test_where_torchs_interpreter_is_missing_python_runs_the_program_with_the_same_bits(
    name: str, monkeypatch: pytest.MonkeyPatch, caplog: pytest.LogCaptureFixture
):
    remove, reason = FALL_BACKS[name]
    remove(monkeypatch)
    x, y = inputs()
    module = recorded(lambda x, y: [(x * 2.0).exp() / 3.0, y.norm()], x, y)
    with caplog.at_level(logging.INFO):
        found = executable(module)(x, y)
    assert "a recorded program is run by Python: " in caplog.text
    assert reason in caplog.text
    for one, other in zip(found, module(x, y), strict=True):
        assert torch.equal(one, other)


@pytest.mark.parametrize("name", ["maml", "protonet"])
def test_a_program_of_training_gives_the_same_bits_in_torchs_interpreter_and_in_python(
    name: str, monkeypatch: pytest.MonkeyPatch, caplog: pytest.LogCaptureFixture
):
    algorithm = algorithm_of(name)
    shared, chunk = (*testing.start(algorithm), torch.tensor(3)), testing.first_episodes(few_shot(), 3)
    with caplog.at_level(logging.INFO):
        interpreted = Recorded(TaskGradients(algorithm)).program(shared, chunk).call(shared, chunk)
        assert "run by Python" not in caplog.text
        monkeypatch.setattr(interpreter, "unsupported", lambda: "not in this test")
        in_python = Recorded(TaskGradients(algorithm)).program(shared, chunk).call(shared, chunk)
        assert "run by Python: not in this test" in caplog.text
    testing.assert_same(interpreted, in_python, "the interpreter", tolerance=0.0)
