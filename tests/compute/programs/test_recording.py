"""A recorded function does what the function does, bit for bit."""

from __future__ import annotations

import signal
import subprocess
import sys
from collections.abc import Callable
from typing import Any

import pytest
import torch
from torch import Tensor
from torch.func import grad, vmap
from torch.fx import GraphModule

from metarun.compute.programs import recording
from metarun.compute.programs.recording import Recorded


def inner_and_outer(weight: Tensor, x: Tensor) -> dict[str, Any]:
    """One step of gradient descent per row of x, and the derivative of the loss after it."""

    def loss(weight: Tensor, row: Tensor) -> Tensor:
        return (weight * row).tanh().square().sum()

    def after(weight: Tensor, row: Tensor) -> Tensor:
        return loss(weight - 0.1 * grad(loss)(weight, row), row)

    return {"losses": vmap(after, (None, 0))(weight, x), "gradients": vmap(grad(after), (None, 0))(weight, x), "nothing": None}


def arguments(rows: int = 4) -> tuple[Tensor, Tensor]:
    generator = torch.Generator().manual_seed(rows)
    return torch.randn(3, generator=generator), torch.randn(rows, 3, generator=generator)


def test_a_program_gives_the_same_bits_as_the_function():
    program = Recorded(inner_and_outer).program(*arguments())
    assert program.concurrent
    found, expected = program.call(*arguments()), inner_and_outer(*arguments())
    assert torch.equal(found["losses"], expected["losses"])
    assert torch.equal(found["gradients"], expected["gradients"])
    assert found["nothing"] is None


def test_a_program_computes_with_the_values_that_it_is_given_and_not_with_those_it_was_recorded_with():
    recorded = Recorded(inner_and_outer)
    recorded.program(*arguments())
    weight, x = arguments()
    found = recorded.program(weight + 1, x * 2).call(weight + 1, x * 2)
    assert torch.equal(found["gradients"], inner_and_outer(weight + 1, x * 2)["gradients"])


def test_a_program_does_not_run_the_function_again():
    calls = []

    def counted(x: Tensor) -> Tensor:
        calls.append(1)
        return 2 * x

    recorded = Recorded(counted)
    for value in (1.0, 2.0, 3.0):
        recorded.program(torch.tensor(value)).call(torch.tensor(value))
    assert len(calls) == 1


@pytest.mark.parametrize("other", [(5, torch.float32), (4, torch.float64)])
def test_other_shapes_and_types_get_their_own_program(other: tuple[int, torch.dtype]):
    recorded = Recorded(lambda x: x.sum() / len(x))
    first = torch.ones(4)
    rows, dtype = other
    second = torch.ones(rows, dtype=dtype)
    assert recorded.program(first) is not recorded.program(second)
    assert recorded.program(first) is recorded.program(first.clone())
    assert recorded.program(second).call(second).dtype == dtype
    assert recorded.program(second).call(second) == 1


def test_strides_are_part_of_the_signature():
    """A recorded `view` is right for one layout only."""
    recorded = Recorded(lambda x: x.reshape(-1) * 1.0)
    square = torch.arange(6.0).reshape(2, 3)
    turned = torch.arange(6.0).reshape(3, 2).T
    assert recorded.program(square).call(square).tolist() == [0, 1, 2, 3, 4, 5]
    assert recorded.program(turned).call(turned).tolist() == [0, 2, 4, 1, 3, 5]


def test_a_function_that_branches_on_values_runs_as_it_is_and_says_so(caplog: pytest.LogCaptureFixture):
    def branching(x: Tensor) -> Tensor:
        return x if x.sum() > 0 else -x

    with caplog.at_level("INFO", "metarun.compute.programs.recording"):
        program = Recorded(branching).program(torch.ones(2))
    assert "operation by operation: the function branches on the value of a tensor" in caplog.text
    assert not program.concurrent
    assert program.call(-torch.ones(2)).tolist() == [1, 1]


def test_an_error_of_the_function_comes_out_when_it_is_called():
    def broken(x: Tensor) -> Tensor:
        raise ValueError("seven")

    program = Recorded(broken).program(torch.ones(2))
    with pytest.raises(ValueError, match="seven"):
        program.call(torch.ones(2))


def turned_twice(x: Tensor) -> Tensor:
    return x.t().reshape(-1).cos() + x.t().reshape(-1).sin()


def changed_between(x: Tensor) -> Tensor:
    x = x + 0.0
    before = x.t().reshape(-1).cos()
    x.mul_(2.0)
    return before + x.t().reshape(-1).sin()


def returned_twice(x: Tensor) -> list[Tensor]:
    return [x.t().reshape(-1), x.t().reshape(-1), x.t().reshape(-1).cos()]


def returned_in_part(x: Tensor) -> list[Tensor]:
    return [x.t().reshape(-1)[:4], x.t().reshape(-1)[:4]]


def laid_out_twice(x: Tensor) -> Tensor:
    images = x.reshape(1, 4, 3, 1).expand(1, 4, 3, 2)
    return images.clone(memory_format=torch.contiguous_format).cos() + images.clone(memory_format=torch.channels_last).sin()


@pytest.mark.parametrize(
    ("function", "copies"), [(turned_twice, 1), (changed_between, 2), (returned_twice, 3), (returned_in_part, 2), (laid_out_twice, 2)]
)
def test_what_is_brought_into_one_order_twice_is_copied_once_unless_it_changes_or_is_returned(
    function: Callable[[Tensor], Any], copies: int, monkeypatch: pytest.MonkeyPatch
):
    programs: list[GraphModule] = []
    monkeypatch.setattr(recording, "reuse_memory", lambda module: programs.append(module) or module)
    x = arguments()[1]
    found = Recorded(function).program(x).call(x)
    assert [str(node.target) for node in programs[0].graph.nodes].count("aten.clone.default") == copies
    if isinstance(found, list):
        found[0].zero_()
        assert torch.equal(found[1], function(x)[1])
    else:
        assert torch.equal(found, function(x))


def test_no_gradient_is_recorded_while_a_program_runs():
    weight, x = arguments()
    found = Recorded(inner_and_outer).program(weight.requires_grad_(), x).call(weight, x)
    assert not found["losses"].requires_grad


def test_without_a_compiler_the_run_goes_on_and_says_so(monkeypatch: pytest.MonkeyPatch, caplog: pytest.LogCaptureFixture):
    def no_compiler(*_: Any) -> None:
        raise RuntimeError("no C++ compiler was found")

    monkeypatch.setattr("torch._inductor.compile", no_compiler)
    program = Recorded(inner_and_outer, compile=True).program(*arguments())
    assert "does not work here (no C++ compiler was found); the run goes on without it" in caplog.text
    assert torch.equal(program.call(*arguments())["losses"], inner_and_outer(*arguments())["losses"])


def test_a_compiler_that_ctrl_c_ends_starts_again_without_a_warning(monkeypatch: pytest.MonkeyPatch, caplog: pytest.LogCaptureFixture):
    """The terminal sends Ctrl-C to the C++ compiler too, and metarun finishes its step."""
    tries: list[int] = []

    def compiler(module: GraphModule, tensors: list[Tensor]) -> GraphModule:
        tries.append(len(tries))
        if len(tries) == 1:
            signal.raise_signal(signal.SIGINT)
            raise RuntimeError("the C++ compiler was interrupted")
        return module

    before = signal.signal(signal.SIGINT, lambda *_: None)
    monkeypatch.setattr("torch._inductor.compile", compiler)
    try:
        program = Recorded(inner_and_outer, compile=True).program(*arguments())
    finally:
        signal.signal(signal.SIGINT, before)
    assert tries == [0, 1]
    assert not [record for record in caplog.records if record.levelname == "WARNING"]
    assert torch.equal(program.call(*arguments())["losses"], inner_and_outer(*arguments())["losses"])


@pytest.mark.slow
def test_a_compiled_program_agrees_to_rounding():
    program = Recorded(inner_and_outer, compile=True).program(*arguments())
    torch.testing.assert_close(program.call(*arguments()), inner_and_outer(*arguments()), rtol=1e-5, atol=1e-6)


@pytest.mark.slow
def test_compiled_draws_are_the_same_bits_and_stay_inside_their_memory():
    """In a process of its own, since what wrote over the end of an array would end it."""
    code = (
        "import torch; from metarun import draws; from metarun.compute.programs.recording import Recorded\n"
        "keys = draws.key(0, 'train', torch.arange(25))\n"
        "program = Recorded(lambda keys: draws.bits(draws.fold(keys[:, None], torch.arange(3)), 1001), compile=True).program(keys)\n"
        "expected = draws.bits(draws.fold(keys[:, None], torch.arange(3)), 1001)\n"
        "assert all(torch.equal(program.call(keys), expected) for _ in range(100))\n"
    )
    done = subprocess.run([sys.executable, "-c", code], capture_output=True, text=True, check=False)
    assert done.returncode == 0, done.stderr
