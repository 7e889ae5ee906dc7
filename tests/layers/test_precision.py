"""The types of numbers under autocast."""

from __future__ import annotations

import pytest
import torch

from metarun.layers.precision import as_autocast, at_least_float32, full_precision


@pytest.mark.parametrize("dtype", [torch.float32, torch.bfloat16, torch.float64, torch.int64, torch.bool])
def test_arguments_are_cast_as_torchs_own_products_cast_them(dtype: torch.dtype):
    x = torch.ones(2, 2).to(dtype)
    assert as_autocast(x) is x
    with torch.autocast("cpu", torch.bfloat16):
        found = as_autocast(x).dtype
        if dtype.is_floating_point and dtype is not torch.float64:
            assert found is (x @ x).dtype is torch.bfloat16
        else:
            assert found is dtype


def test_the_gradient_of_a_cast_parameter_is_in_float32():
    w = torch.ones(3, requires_grad=True)
    with torch.autocast("cpu", torch.bfloat16):
        (gradient,) = torch.autograd.grad(as_autocast(w).sum(), w)
    assert gradient.dtype is torch.float32


def test_half_precision_alone_becomes_float32():
    kinds = (torch.bfloat16, torch.float16, torch.float32, torch.float64, torch.int64)
    assert [at_least_float32(torch.ones(1, dtype=kind)).dtype for kind in kinds] == [torch.float32] * 3 + [torch.float64, torch.int64]


def test_products_are_exact_where_full_precision_is_asked_for_and_nowhere_else():
    """1 + 2^-9 is 1 in bfloat16."""
    x = torch.full((1, 1), 1 + 2.0**-9)
    with torch.autocast("cpu", torch.bfloat16):
        assert (x @ torch.ones(1, 1)).item() == 1.0
        with full_precision(x):
            assert (x @ torch.ones(1, 1)).item() == 1 + 2.0**-9
        assert (x @ torch.ones(1, 1)).item() == 1.0


def test_a_device_without_autocast_casts_nothing():
    x = torch.ones(2, device="meta")
    assert as_autocast(x) is x
    with full_precision(x):
        pass
