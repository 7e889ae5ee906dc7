"""Tests the compiled C kernels against torch in float64 before a run uses them: a faulty compiler must not cost a run."""

from __future__ import annotations

import functools

import torch
from torch import Tensor
from torch.nn import functional as F

from metarun import draws
from metarun.compute.kernels import binding, operations
from metarun.compute.kernels.compiler import NoLibraryError
from metarun.compute.kernels.operations import CL, aten

TOLERANCE = 1e-5
"""Largest allowed error of a kernel, as a share of the largest value of torch's result in float64."""

CONVOLUTIONS = (
    (7, 2, 16, 48, (6, 5), (3, 3), (2, 2), (1, 1)),
    (2, 1, 80, 16, (4, 7), (1, 2), (2, 2), (0, 1)),
    (3, 2, 16, 80, (6, 7), (3, 3), (1, 1), (1, 1)),  # by tiles
)
"""images, groups, input and output channels of a group, size, kernel, stride, padding."""

Pair = tuple[Tensor, Tensor]
"""A kernel's result, and torch's in float64."""


@functools.cache
def missing() -> str | None:
    """Return why the C kernels cannot be used here, or None where they can. The first call compiles and tests them."""
    try:
        for source in binding.SOURCES:
            binding.library(source)
    except NoLibraryError as reason:
        return str(reason)
    return wrong()


def wrong() -> str | None:
    """Compare each kernel with torch on small images; return a sentence about the largest error, or None where all are right."""
    pairs = [*_convolutions(), *_column_statistics(), *_normalisations()]
    errors = [(result.double() - exact).abs().max() / exact.abs().max() for result, exact in pairs]
    largest = torch.stack(errors).max()  # NaN where one error is NaN
    return None if largest < TOLERANCE else f"compiled here, they are off by {largest:.1g}"


def _normal(slot: str, *shape: int) -> Tensor:
    return draws.normal(draws.key(0, slot), *shape).contiguous(memory_format=CL)


def _convolutions() -> list[Pair]:
    pairs = []
    for images, groups, inputs, outputs, size, kernel, stride, padding in CONVOLUTIONS:
        x, weight = _normal("x", images, groups * inputs, *size), _normal("weight", groups * outputs, inputs, *kernel)
        bias = draws.normal(draws.key(0, "bias"), groups * outputs)
        y = operations.conv(x, weight, bias, stride, padding, groups)
        g = _normal("g", *y.shape)
        rest = (stride, padding, (1, 1), False, (0, 0), groups)
        by_x, by_weight, _ = aten.convolution_backward(g.double(), x.double(), weight.double(), None, *rest, (True, True, False))
        pairs += [
            (y, aten.convolution(x.double(), weight.double(), bias.double(), *rest)),
            (operations.conv_input(g, weight, x.shape, stride, padding, groups), by_x),
            (operations.conv_weight(g, x, weight.shape, stride, padding, groups), by_weight),
        ]
    return pairs


def _column_statistics() -> list[Pair]:
    values = draws.normal(draws.key(0, "values"), 5, 1100)
    mean, variance = operations.column_statistics(values)
    return [(mean, values.double().mean(dim=0)), (variance, values.double().var(dim=0, correction=0))]


def _normalisations() -> list[Pair]:
    """Return the results for images normalised and then pooled or rectified, and the gradients of both."""
    x, g_pooled, g_rectified = _normal("x", 3, 20, 5, 4), _normal("g", 3, 20, 2, 2), _normal("relu", 3, 20, 5, 4)
    mean, var = x.mean(dim=(0, 2, 3)), x.var(dim=(0, 2, 3), correction=0)
    weight, bias, inverse = -mean - 0.5, mean + 0.1, (var + 1e-5).rsqrt()
    leaves = [leaf.double().requires_grad_() for leaf in (x, weight, bias)]
    with torch.enable_grad():
        normalised = F.batch_norm(leaves[0], None, None, leaves[1], leaves[2], training=True)
        pooled, rectified = F.max_pool2d(normalised, 2), F.relu(normalised)
        through_pooling = torch.autograd.grad(pooled, leaves, g_pooled.double(), retain_graph=True)
        through_relu = torch.autograd.grad(rectified, leaves, g_rectified.double())
    maxima, places = operations.norm_pool(x, weight, bias, mean, var, 1e-5)
    return [
        (maxima, pooled.detach()),
        (operations.norm_maxima(x, weight, bias, mean, var, 1e-5), pooled.detach()),
        (operations.norm_relu(x, weight, bias, mean, var, 1e-5), rectified.detach()),
        *zip(operations.norm_pool_backward(g_pooled, places, x, weight, mean, inverse), through_pooling, strict=True),
        *zip(operations.norm_relu_backward(g_rectified, x, weight, bias, mean, var, 1e-5), through_relu, strict=True),
    ]
