"""Max-pooling: exact in its derivatives, and the same for all tasks at once as for each alone."""

from __future__ import annotations

from collections.abc import Callable
from typing import Any

import pytest
import torch
from torch import Tensor, nn
from torch.func import grad, vmap
from torch.nn import functional as F

from metarun.layers.adopt import adopt_layers
from metarun.layers.pool import MaxPool2d, Windows, max_pool2d

WINDOWS = [
    Windows((2, 2), (2, 2), (0, 0), (1, 1), False),
    Windows((3, 3), (2, 2), (1, 1), (1, 1), False),
    Windows((2, 3), (1, 2), (0, 1), (2, 1), False),
    Windows((2, 2), (2, 2), (0, 0), (1, 1), True),
]
"""Halving; overlapping; of unequal sides; reaching over the edge."""
TASKS = 3


def random(*shape: int, seed: int = 0) -> Tensor:
    return torch.randn(*shape, generator=torch.Generator().manual_seed(seed + sum(shape)), dtype=torch.float64)


def plain(x: Tensor, windows: Windows) -> Tensor:
    return F.max_pool2d(x, windows.kernel, windows.stride, windows.padding, windows.dilation, windows.ceil)


@pytest.mark.parametrize("windows", WINDOWS)
def test_it_equals_torchs_pooling_and_leaves_the_channels_last(windows: Windows) -> None:
    x = random(2, 4, 7, 7)
    out = max_pool2d(x, windows)
    assert torch.equal(out, plain(x, windows))
    assert out.is_contiguous(memory_format=torch.channels_last)


@pytest.mark.parametrize("windows", WINDOWS)
def test_first_and_second_derivatives_equal_finite_differences(windows: Windows) -> None:
    def function(x: Tensor) -> Tensor:
        return max_pool2d(x, windows).pow(3)  # pooling alone has no second derivative

    x = random(2, 2, 5, 5).requires_grad_()
    assert torch.autograd.gradcheck(function, x)
    assert torch.autograd.gradgradcheck(function, x)


def test_of_equal_values_the_first_has_the_whole_derivative() -> None:
    found = grad(lambda x: max_pool2d(x, WINDOWS[0]).sum())(torch.zeros(1, 1, 2, 2))
    assert found.flatten().tolist() == [1.0, 0.0, 0.0, 0.0]


def adapted(pool: Callable[..., Tensor], windows: Windows) -> Callable[..., Tensor]:
    """Return a loss after a step of gradient descent on the images and a factor, whose derivative takes all three functions."""

    def loss(x: Tensor, factor: Tensor) -> Tensor:
        def inner(x: Tensor, factor: Tensor) -> Tensor:
            return pool(factor * x, windows).tanh().square().sum()

        by_x, by_factor = grad(inner, (0, 1))(x, factor)
        return pool((x - 0.1 * by_x) * (factor - 0.1 * by_factor), windows).pow(3).sum()

    return loss


@pytest.mark.parametrize("windows", WINDOWS)
@pytest.mark.parametrize("dims", [(0, 0), (2, 0), (0, None), (None, 0), (4, None)])
def test_mapped_over_tasks_it_equals_the_loop_wherever_the_tasks_lie(windows: Windows, dims: tuple[Any, ...]) -> None:
    images, factors = random(TASKS, 2, 2, 5, 5), random(TASKS, seed=1)
    x = images[0] if dims[0] is None else images.movedim(0, dims[0])
    factor = factors[0] if dims[1] is None else factors
    found = vmap(grad(adapted(max_pool2d, windows), (0, 1)), dims)(x, factor)
    for task in range(TASKS):
        one = (images[0 if dims[0] is None else task], factors[0 if dims[1] is None else task])
        for mine, theirs in zip(found, grad(adapted(plain, windows), (0, 1))(*one), strict=True):
            torch.testing.assert_close(mine[task], theirs)


def test_the_gradient_of_an_image_that_all_tasks_share_is_the_sum_over_tasks() -> None:
    x, weights = random(2, 2, 4, 4), random(TASKS, 2, 2, 2, 2)

    def total(pool: Callable[..., Tensor]) -> Tensor:
        return vmap(lambda weight: (weight * pool(x, WINDOWS[0])).sum())(weights).sum()

    def by_x(pool: Callable[..., Tensor]) -> Tensor:
        return grad(lambda image: vmap(lambda weight: (weight * pool(image, WINDOWS[0])).sum())(weights).sum())(x)

    torch.testing.assert_close(total(max_pool2d), total(plain))
    torch.testing.assert_close(by_x(max_pool2d), by_x(plain))


@pytest.mark.parametrize("options", [{}, {"stride": 1, "padding": 1}, {"ceil_mode": True}, {"dilation": 2}])
def test_a_networks_layer_computes_the_same_after_its_adoption(options: dict[str, Any]) -> None:
    layer, x = nn.MaxPool2d(2, **options), random(2, 3, 5, 5)
    whole, one = layer(x), layer(x[0])  # the second without an axis of examples
    adopt_layers(nn.Sequential(layer))
    assert type(layer) is MaxPool2d
    assert torch.equal(layer(x), whole)
    assert torch.equal(layer(x[0]), one)


def test_a_layer_that_returns_indices_and_one_of_the_users_own_class_are_left_to_torch() -> None:
    class Own(nn.MaxPool2d):
        pass

    own, indexed = Own(2), nn.MaxPool2d(2, return_indices=True)
    adopt_layers(nn.Sequential(own, indexed))
    assert type(own) is Own
    out, indices = indexed(random(1, 1, 4, 4))
    assert out.shape == indices.shape == (1, 1, 2, 2)
