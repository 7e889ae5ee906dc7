"""The self-test of the C kernels finds each kernel that computes something else."""

from __future__ import annotations

import itertools
from collections.abc import Callable
from typing import Any

import pytest
import torch
from torch import Tensor
from torch.nn import functional as F

from metarun.compute.kernels import binding, compiler, operations, selftest


def test_a_kernel_that_computes_something_else_is_found(monkeypatch: pytest.MonkeyPatch):
    """Each kernel in turn is replaced by an operation that is wrong by 0.1 % or gives NaN."""
    exact: dict[str, Callable[..., Any]] = {
        "conv": lambda x, weight, bias, stride, padding, groups: F.conv2d(x, weight, bias, stride, padding, groups=groups),
        "conv_input": lambda g, weight, shape, *rest: backward(0, g, torch.empty(shape), weight, *rest),
        "conv_weight": lambda g, x, shape, *rest: backward(1, g, x, torch.empty(shape), *rest),
        "column_statistics": lambda x: (x.mean(dim=0), x.var(dim=0, correction=0)),
        "norm_relu": lambda x, weight, bias, mean, var, eps: F.batch_norm(x, mean, var, weight, bias, eps=eps).relu(),
        "norm_relu_backward": rectified_backward,
        "norm_pool": pooled,
        "norm_maxima": lambda *args: pooled(*args)[0],
        "norm_pool_backward": pooled_backward,
    }
    for name, function in exact.items():
        monkeypatch.setattr(operations, name, function)
    assert selftest.wrong() is None
    for name, wrong in itertools.product(exact, (1.001, float("nan"))):
        monkeypatch.setattr(operations, name, lambda *args, name=name, wrong=wrong: scaled(exact[name](*args), wrong))
        assert "they are off by" in str(selftest.wrong()), (name, wrong)
        monkeypatch.setattr(operations, name, exact[name])


def backward(which: int, g: Tensor, x: Tensor, weight: Tensor, stride: Any, padding: Any, groups: int) -> Tensor:
    mask = (which == 0, which == 1, False)
    out: Tensor = torch.ops.aten.convolution_backward(g, x, weight, None, stride, padding, (1, 1), False, (0, 0), groups, mask)[which]
    return out


def pooled(x: Tensor, weight: Any, bias: Any, mean: Tensor, var: Tensor, eps: float) -> Any:
    return F.max_pool2d(F.batch_norm(x, mean, var, weight, bias, eps=eps), 2, return_indices=True)


def rectified_backward(g: Tensor, x: Tensor, weight: Any, bias: Any, mean: Tensor, var: Tensor, eps: float) -> Any:
    passed = g * (F.batch_norm(x, mean, var, weight, bias, eps=eps) > 0)
    arguments = (passed, x, weight, None, None, mean, (var + eps).rsqrt(), True, eps, (True, True, True))
    return torch.ops.aten.native_batch_norm_backward(*arguments)


def pooled_backward(g: Tensor, places: Tensor, x: Tensor, weight: Any, mean: Tensor, inverse: Tensor) -> Any:
    spread = torch.zeros_like(x).flatten(2).scatter(2, places.flatten(2), g.flatten(2)).reshape(x.shape)
    return torch.ops.aten.native_batch_norm_backward(spread, x, weight, None, None, mean, inverse, True, 1e-5, (True, True, True))


def scaled(result: Any, factor: float) -> Any:
    return (
        tuple(scaled(each, factor) for each in result)
        if isinstance(result, tuple)
        else result * factor
        if result.is_floating_point()
        else result
    )


def test_a_library_that_cannot_be_made_is_the_reason(monkeypatch: pytest.MonkeyPatch):
    def no_library(_: str) -> None:
        raise compiler.NoLibraryError("there is no C compiler")

    monkeypatch.setattr(binding, "library", no_library)
    assert selftest.missing.__wrapped__() == "there is no C compiler"
