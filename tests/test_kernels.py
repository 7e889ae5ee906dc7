"""Own kernels: the numbers of torch's in float64, whatever the shape; and what of a program they take."""

from __future__ import annotations

import dataclasses
import itertools
import threading
from collections.abc import Callable
from typing import Any

import pytest
import torch
from torch import Tensor
from torch.fx import GraphModule
from torch.fx.experimental.proxy_tensor import make_fx
from torch.nn import functional as F

from metarun import build, c_library, draws, kernels
from metarun.conv import Geometry, conv2d
from metarun.device import Device, Plan
from metarun.errors import UserError
from metarun.native import without_python
from metarun.norm import _statistics
from metarun.recording import Recorded

CL = torch.channels_last
ops = torch.ops.metarun
MISSING = kernels.missing()
needs_kernels = pytest.mark.skipif(MISSING is not None, reason=f"no own kernels here: {MISSING}")

SHAPES = {
    "as conv4 has it": (5, 3, 64, 64, (14, 14), (3, 3), (2, 2), (1, 1)),
    "one group": (7, 1, 64, 64, (7, 7), (3, 3), (2, 2), (1, 1)),
    "images of one pixel": (4, 2, 16, 16, (1, 1), (3, 3), (2, 2), (1, 1)),
    "a kernel of one place": (3, 2, 32, 48, (5, 6), (1, 1), (2, 2), (0, 0)),
    "uneven sides, strides and padding": (2, 2, 48, 80, (9, 4), (2, 5), (3, 1), (0, 3)),
    "strides beyond the kernel": (2, 1, 16, 32, (11, 8), (2, 2), (3, 4), (1, 0)),
    "padding beyond the image": (2, 3, 16, 16, (2, 3), (5, 5), (2, 3), (4, 4)),
    "the largest kernel": (1, 1, 16, 16, (13, 13), (7, 7), (2, 2), (3, 3)),
    "more images than stay in the cache": (50, 1, 16, 16, (40, 40), (3, 3), (2, 2), (1, 1)),
    "an image larger than the cache": (2, 1, 32, 16, (110, 100), (3, 3), (2, 2), (1, 1)),
    "no images": (0, 2, 16, 16, (4, 4), (3, 3), (2, 2), (1, 1)),
    "wide groups": (1, 2, 1024, 16, (3, 3), (2, 2), (2, 2), (0, 0)),
}
"""images, groups, channels into and out of a group, size, kernel, stride, padding."""


def normal(slot: str, *shape: int) -> Tensor:
    return draws.normal(draws.key(0, slot), *shape).contiguous(memory_format=CL)


@needs_kernels
@pytest.mark.parametrize("biased", [False, True])
@pytest.mark.parametrize("name", SHAPES)
def test_a_convolution_and_its_derivatives_are_those_of_torch_in_float64(name: str, biased: bool):
    images, groups, into, out, size, kernel, stride, padding = SHAPES[name]
    x, weight = normal("x", images, groups * into, *size), normal("weight", groups * out, into, *kernel)
    bias = draws.normal(draws.key(0, "bias"), groups * out) if biased else None
    y = ops.conv(x, weight, bias, stride, padding, groups)
    exact = F.conv2d(x.double(), weight.double(), None if bias is None else bias.double(), stride, padding, groups=groups)
    close(y, exact)
    g = normal("g", *exact.shape)
    rest = (stride, padding, (1, 1), False, (0, 0), groups)
    by_x, by_weight, _ = torch.ops.aten.convolution_backward(g.double(), x.double(), weight.double(), None, *rest, (True, True, False))
    close(ops.conv_input(g, weight, x.shape, stride, padding, groups), by_x)
    close(ops.conv_weight(g, x, weight.shape, stride, padding, groups), by_weight)


def close(found: Tensor, exact: Tensor) -> None:
    assert found.shape == exact.shape
    assert found.is_contiguous(memory_format=CL)
    scale = float(exact.abs().max()) if exact.numel() else 1.0
    torch.testing.assert_close(found.double(), exact, rtol=0, atol=2e-6 * scale)


@needs_kernels
@pytest.mark.parametrize(("rows", "columns"), [(1, 1), (2, 1023), (75, 1024), (3, 1025), (40, 5000)])
def test_statistics_of_columns_are_exact_to_rounding_though_far_from_zero(rows: int, columns: int):
    x = draws.normal(draws.key(0, "x"), rows, columns) + 100.0
    mean, variance = ops.column_statistics(x)
    torch.testing.assert_close(mean.double(), x.double().mean(dim=0), rtol=1e-6, atol=0)
    torch.testing.assert_close(variance.double(), x.double().var(dim=0, correction=0), rtol=1e-4, atol=1e-9)


@needs_kernels
def test_other_orders_in_memory_are_brought_into_the_right_one():
    x, weight = normal("x", 2, 32, 6, 6), normal("weight", 32, 16, 3, 3)
    expected = ops.conv(x, weight, None, (2, 2), (1, 1), 2)
    assert torch.equal(ops.conv(x.contiguous(), weight.contiguous(), None, (2, 2), (1, 1), 2), expected)


def targets(module: GraphModule) -> list[str]:
    return [str(node.target) for node in module.graph.nodes if node.op == "call_function"]


def gradients(x: Tensor, weight: Tensor, stride: int = 2, groups: int = 1) -> list[Tensor]:
    geometry = Geometry((stride, stride), (1, 1), (1, 1), groups)
    return list(torch.func.grad(lambda x, weight: conv2d(x, weight, None, geometry).square().sum(), argnums=(0, 1))(x, weight))


@needs_kernels
def test_a_program_takes_its_strided_convolutions_and_runs_without_python():
    x, weight = normal("x", 3, 32, 6, 6), normal("weight", 32, 16, 3, 3)
    module = kernels.use_own_kernels(make_fx(lambda x, weight: gradients(x, weight, groups=2))(x, weight))
    names = targets(module)
    assert {"metarun.conv.default", "metarun.conv_input.default", "metarun.conv_weight.default"} <= set(names)
    assert not any("aten.convolution" in name for name in names)
    run = without_python(module)
    assert run is not None
    for found, exact in zip(run(x, weight), gradients(x.double(), weight.double(), groups=2), strict=True):
        close(found, exact)


@needs_kernels
@pytest.mark.parametrize(
    ("x", "weight", "stride"),
    [
        (normal("x", 3, 16, 6, 6), normal("weight", 16, 16, 3, 3), 1),
        (normal("x", 3, 16, 6, 6).double(), normal("weight", 16, 16, 3, 3).double(), 2),
        (normal("x", 3, 3, 6, 6), normal("weight", 16, 3, 3, 3), 2),
        (normal("x", 3, 16, 6, 6), normal("weight", 24, 16, 3, 3), 2),
        (normal("x", 3, 128, 6, 6), normal("weight", 64, 128, 3, 3), 2),
    ],
    ids=["no stride", "float64", "few channels in", "channels out that fill no vector", "weights beyond the cache"],
)
def test_what_does_not_suit_stays_with_torch(x: Tensor, weight: Tensor, stride: int):
    before = make_fx(lambda x, weight: gradients(x, weight, stride))(x, weight)
    expected = targets(before)
    assert [name for name in targets(kernels.use_own_kernels(before)) if "conv" in name] == [name for name in expected if "conv" in name]


@needs_kernels
def test_a_program_takes_its_statistics_to_the_same_bits():
    x = normal("x", 5, 64, 8, 8)
    module = make_fx(_statistics)(x)
    expected = module(x)
    module = kernels.use_own_kernels(module)
    assert "metarun.column_statistics.default" in targets(module)
    for found, wanted in zip(module(x), expected, strict=True):
        assert torch.equal(found, wanted)


@needs_kernels
def test_threads_that_run_one_program_get_its_bits():
    x, weight = normal("x", 20, 64, 14, 14), normal("weight", 64, 64, 3, 3)
    program = Recorded(gradients, own_kernels=True).program(x, weight)
    expected, found = program.call(x, weight), []
    threads = [threading.Thread(target=lambda: found.append(program.call(x, weight))) for _ in range(4)]
    for thread in threads:
        thread.start()
    for thread in threads:
        thread.join()
    assert len(found) == 4
    assert all(torch.equal(one, other) for results in found for one, other in zip(results, expected, strict=True))


def test_kernels_that_compute_something_else_are_found_out(monkeypatch: pytest.MonkeyPatch):
    """A wrong compiler must not cost a run: the kernels are tried beside torch's before they are used."""
    exact: dict[str, Callable[..., Any]] = {
        "_conv": lambda x, weight, bias, stride, padding, groups: F.conv2d(x, weight, bias, stride, padding, groups=groups),
        "_conv_input": lambda g, weight, shape, *rest: backward(0, g, torch.empty(shape), weight, *rest),
        "_conv_weight": lambda g, x, shape, *rest: backward(1, g, x, torch.empty(shape), *rest),
        "_column_statistics": lambda x: (x.mean(dim=0), x.var(dim=0, correction=0)),
    }
    for name, function in exact.items():
        monkeypatch.setattr(kernels, name, function)
    assert kernels._wrong() is None
    for name, wrong in itertools.product(exact, (1.001, float("nan"))):
        monkeypatch.setattr(kernels, name, lambda *given, name=name, wrong=wrong: scaled(exact[name](*given), wrong))
        assert "they are off by" in str(kernels._wrong()), (name, wrong)
        monkeypatch.setattr(kernels, name, exact[name])


def backward(which: int, g: Tensor, x: Tensor, weight: Tensor, stride: Any, padding: Any, groups: int) -> Tensor:
    mask = (which == 0, which == 1, False)
    out: Tensor = torch.ops.aten.convolution_backward(g, x, weight, None, stride, padding, (1, 1), False, (0, 0), groups, mask)[which]
    return out


def scaled(result: Any, factor: float) -> Any:
    return result * factor if isinstance(result, Tensor) else tuple(each * factor for each in result)


def no_library(*_: Any) -> None:
    raise c_library.NoLibraryError("there is no C compiler")


def test_without_them_a_run_goes_on_with_torchs_and_says_why(monkeypatch: pytest.MonkeyPatch, caplog: pytest.LogCaptureFixture):
    monkeypatch.setattr(kernels, "_library", no_library)
    monkeypatch.setattr(kernels, "missing", kernels.missing.__wrapped__)
    with caplog.at_level("INFO"):
        plan = build._with_kernels(Plan(kernels="own"), Device("cpu", 2))
    assert plan == Plan(kernels="torch")
    assert "not used: there is no C compiler" in caplog.text
    with pytest.raises(
        UserError, match=r"device\.kernels=own, but there are no own kernels here: there is no C compiler; use device.kernels=torch"
    ):
        build._with_kernels(Plan(kernels="own"), dataclasses.replace(Device("cpu", 2), kernels="own"))
