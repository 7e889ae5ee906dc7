"""The C kernels give the numbers of torch in float64, whatever the shape."""

from __future__ import annotations

import pytest
import torch
from torch import Tensor
from torch.nn import functional as F

from metarun import draws
from metarun.compute import kernels
from metarun.compute.kernels import operations

CL = torch.channels_last
NAN, INF = float("nan"), float("inf")
ops = torch.ops.metarun
MISSING = kernels.missing()
needs_kernels = pytest.mark.skipif(MISSING is not None, reason=f"no C kernels here: {MISSING}")

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
    "two pixels that read alike": (2, 2, 32, 48, (3, 3), (3, 3), (2, 2), (1, 1)),
    "eight pixels that read alike": (8, 1, 16, 32, (2, 2), (3, 3), (1, 1), (1, 1)),
    "no images": (0, 2, 16, 16, (4, 4), (3, 3), (2, 2), (1, 1)),
    "tiles": (5, 3, 64, 64, (14, 14), (3, 3), (1, 1), (1, 1)),
    "tiles of one group": (7, 1, 64, 64, (7, 7), (3, 3), (1, 1), (1, 1)),
    "tiles that reach over uneven sides": (2, 2, 48, 80, (9, 12), (3, 3), (1, 1), (0, 2)),
    "tiles far beyond the image": (3, 2, 32, 16, (5, 4), (3, 3), (1, 1), (4, 3)),
    "tiles of images of one row": (16, 2, 16, 48, (1, 9), (3, 3), (1, 1), (2, 0)),
    "more tiles than stay in the cache": (3, 1, 256, 208, (21, 20), (3, 3), (1, 1), (1, 1)),
    "wide tiles": (4, 1, 16, 1024, (4, 4), (3, 3), (1, 1), (1, 1)),
    "too few tiles": (1, 2, 16, 16, (6, 6), (3, 3), (1, 1), (1, 1)),
    "tiles mostly outside": (20, 2, 16, 16, (3, 3), (3, 3), (1, 1), (1, 1)),
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


@pytest.mark.parametrize(
    ("y", "kernel", "stride", "expected"),
    [
        ((5, 64, 14, 14), (3, 3), (1, 1), True),
        ((1, 64, 7, 7), (3, 3), (1, 1), True),
        ((75, 64, 3, 3), (3, 3), (1, 1), False),
        ((1, 64, 6, 6), (3, 3), (1, 1), False),
        ((0, 64, 14, 14), (3, 3), (1, 1), False),
        ((5, 64, 14, 14), (3, 3), (1, 2), False),
        ((5, 64, 14, 14), (5, 5), (1, 1), False),
    ],
    ids=["conv4", "16 tiles", "mostly outside", "9 tiles", "no images", "a stride", "another kernel"],
)
def test_tiles_are_for_kernels_of_3_by_3_without_strides_where_there_are_enough(
    y: tuple[int, ...], kernel: tuple[int, int], stride: tuple[int, int], expected: bool
):
    assert operations.tiled((64, 64, *kernel), y, stride) is expected


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


IMAGES = {
    "even sides": (3, 64, 8, 6),
    "odd sides": (2, 5, 7, 9),
    "one window": (4, 3, 2, 2),
    "more channels than are done at once": (1, 1030, 4, 5),
    "no window": (2, 3, 1, 4),
}


@needs_kernels
@pytest.mark.parametrize("affine", [False, True])
@pytest.mark.parametrize("name", IMAGES)
def test_normalisation_with_pooling_and_its_derivatives_are_those_of_torch_in_float64(name: str, affine: bool):
    images, channels, height, width = IMAGES[name]
    x, g = normal("x", *IMAGES[name]), normal("g", images, channels, height // 2, width // 2)
    mean, var = x.mean(dim=(0, 2, 3)), x.var(dim=(0, 2, 3), correction=0)
    weight, bias = (draws.normal(draws.key(0, slot), channels) if affine else None for slot in ("weight", "bias"))
    y, places = ops.norm_pool(x, weight, bias, mean, var, 1e-5)
    found = ops.norm_pool_backward(g, places, x, weight, mean, (var + 1e-5).rsqrt())
    if y.numel() == 0:
        assert y.shape == places.shape == g.shape
        assert found[0].shape == x.shape
        assert not found[0].any()
        return
    leaves = [None if leaf is None else leaf.double().requires_grad_() for leaf in (x, weight, bias)]
    pooled, wanted_places = F.max_pool2d(F.batch_norm(leaves[0], None, None, *leaves[1:], training=True), 2, return_indices=True)  # type: ignore[arg-type]
    close(y, pooled.detach())
    close(ops.norm_maxima(x, weight, bias, mean, var, 1e-5), pooled.detach())
    assert torch.equal(places, wanted_places)
    exact = torch.autograd.grad(pooled, [leaf for leaf in leaves if leaf is not None], g.double())
    for ours, wanted in zip(found, exact, strict=False):
        torch.testing.assert_close(ours.double(), wanted, rtol=0, atol=2e-6 * float(wanted.abs().max()))


@needs_kernels
@pytest.mark.parametrize("affine", [False, True])
@pytest.mark.parametrize("name", IMAGES)
def test_normalisation_with_rectification_and_its_derivatives_are_those_of_torch_in_float64(name: str, affine: bool):
    x, g = normal("x", *IMAGES[name]), normal("g", *IMAGES[name])
    mean, var = x.mean(dim=(0, 2, 3)), x.var(dim=(0, 2, 3), correction=0)
    weight, bias = (draws.normal(draws.key(0, slot), x.shape[1]) if affine else None for slot in ("weight", "bias"))
    y = ops.norm_relu(x, weight, bias, mean, var, 1e-5)
    leaves = [None if leaf is None else leaf.double().requires_grad_() for leaf in (x, weight, bias)]
    rectified = F.batch_norm(leaves[0], None, None, *leaves[1:], training=True).relu()  # type: ignore[arg-type]
    close(y, rectified.detach())
    found = ops.norm_relu_backward(g, x, weight, bias, mean, var, 1e-5)
    exact = torch.autograd.grad(rectified, [leaf for leaf in leaves if leaf is not None], g.double())
    for ours, wanted in zip(found, exact, strict=False):
        torch.testing.assert_close(ours.double(), wanted, rtol=0, atol=2e-6 * float(wanted.abs().max()))


@needs_kernels
def test_what_is_no_number_is_not_rectified():
    x, one = torch.tensor([NAN, -1.0, INF]).reshape(3, 1, 1, 1), torch.ones(1)
    assert ops.norm_relu(x, None, None, 0 * one, one, 0.0).flatten().tolist()[1:] == [0.0, INF]
    assert ops.norm_relu(x, None, None, 0 * one, one, 0.0)[0].isnan().all()


@needs_kernels
def test_nothing_passes_back_where_the_normalised_is_zero_and_everything_where_it_is_no_number():
    x, g, zero = torch.tensor([-1.0, 0.0, 1.0]).reshape(3, 1, 1, 1), torch.ones(3, 1, 1, 1), torch.zeros(1)
    passed = [float(ops.norm_relu_backward(g, x, bias, bias, zero, zero + 1, 0.0)[2]) for bias in (zero, zero + NAN)]
    assert passed == [0.0, 3.0]  # the derivative by the bias is the sum of what passes
    y = [ops.norm_relu(x, bias, bias, zero, zero + 1, 0.0) for bias in (zero, zero + NAN)]
    assert [float(torch.ops.aten.threshold_backward(g, each, 0).sum()) for each in y] == passed


@needs_kernels
@pytest.mark.parametrize(
    "values",
    [
        [3.0, 3.0, 1.0, 3.0],
        [1.0, 2.0, 2.0, 0.0],
        [0.0, NAN, 5.0, 1.0],
        [NAN, 1.0, 2.0, NAN],
        [-INF, -INF, -INF, -INF],
        [0.0, -0.0, 0.0, -0.0],
    ],
)
def test_of_equal_maxima_the_first_is_taken_and_what_is_no_number_before_any_other(values: list[float]):
    x, one = torch.tensor(values).reshape(1, 1, 2, 2), torch.ones(1)
    y, places = ops.norm_pool(x, None, None, 0 * one, one, 0.0)
    wanted, wanted_places = F.max_pool2d(x, 2, return_indices=True)
    assert torch.equal(places, wanted_places)
    for maxima in (y, ops.norm_maxima(x, None, None, 0 * one, one, 0.0), ops.scaled_maxima(x, one, 0 * one)):
        torch.testing.assert_close(maxima, wanted, equal_nan=True)


@pytest.mark.parametrize(("channels", "kernel"), [(8, 3), (1040, 1), (16, 8)])
def test_a_convolution_that_they_are_not_made_for_is_refused(channels: int, kernel: int):
    with pytest.raises(ValueError, match="the C kernels have no convolution for weights"):
        ops.conv(normal("x", 1, channels, 8, 8), normal("weight", 16, channels, kernel, kernel), None, (2, 2), (0, 0), 1)
