"""The convolution: exact in its derivatives, and the same for all tasks at once as for each alone."""

from __future__ import annotations

from collections.abc import Callable
from typing import Any

import pytest
import torch
from torch import Tensor, nn
from torch.func import grad, vmap
from torch.nn import functional as F

from metarun.layers.adopt import adopt_layers
from metarun.layers.conv import Conv2d, Geometry, channels_last, conv2d, fold_tasks, repeat_for_tasks

GEOMETRIES = [
    Geometry((1, 1), (1, 1), (1, 1), 1),
    Geometry((2, 2), (1, 1), (1, 1), 1),
    Geometry((2, 1), (0, 2), (1, 2), 1),
    Geometry((1, 1), (1, 1), (1, 1), 2),
]
TASKS = 3


def random(*shape: int, seed: int = 0, tasks: int = 0) -> Tensor:
    generator = torch.Generator().manual_seed(seed + sum(shape))
    return torch.randn(*([tasks] if tasks else []), *shape, generator=generator, dtype=torch.float64)


def tensors(geometry: Geometry, tasks: int = 0) -> tuple[Tensor, Tensor, Tensor]:
    return random(2, 2, 6, 6, tasks=tasks), random(4, 2 // geometry.groups, 3, 3, tasks=tasks), random(4, tasks=tasks)


def plain(x: Tensor, weight: Tensor, bias: Tensor | None, geometry: Geometry) -> Tensor:
    return F.conv2d(x, weight, bias, *geometry)


@pytest.mark.parametrize("axis", [0, 1])
@pytest.mark.parametrize("task_dim", [0, 1, 4])
def test_images_that_are_copied_to_fold_their_tasks_get_their_channels_last(task_dim: int, axis: int):
    x = torch.randn(2, 3, 4, 5, 6)
    folded = fold_tasks(x, task_dim, axis)
    assert torch.equal(folded, x.movedim(task_dim, axis).flatten(axis, axis + 1))
    assert folded.is_contiguous(memory_format=torch.channels_last) or folded.data_ptr() == x.data_ptr()
    assert fold_tasks(x[:, :, :, :, :0], task_dim, axis).numel() == 0
    rows = channels_last(torch.randn(6, 4, 5, 5))
    assert fold_tasks(rows.unflatten(0, (2, 3)), 0, 0).data_ptr() == rows.data_ptr()
    assert fold_tasks(rows.unflatten(1, (2, 2)), 1, 1).data_ptr() == rows.data_ptr()


def test_vectors_are_folded_and_what_is_shared_is_put_beside_itself():
    assert fold_tasks(torch.arange(6.0).view(2, 3), 1, 0).tolist() == [0.0, 3.0, 1.0, 4.0, 2.0, 5.0]
    assert repeat_for_tasks(torch.tensor([1.0, 2.0]), 3).tolist() == [1.0, 2.0, 1.0, 2.0, 1.0, 2.0]


@pytest.mark.parametrize("geometry", GEOMETRIES)
@pytest.mark.parametrize("biased", [True, False])
def test_it_equals_torchs_convolution(geometry: Geometry, biased: bool):
    x, weight, bias = tensors(geometry)
    torch.testing.assert_close(conv2d(x, weight, bias if biased else None, geometry), plain(x, weight, bias if biased else None, geometry))


@pytest.mark.parametrize("geometry", GEOMETRIES)
def test_first_and_second_derivatives_equal_finite_differences(geometry: Geometry):
    inputs = tuple(tensor.requires_grad_() for tensor in tensors(geometry))

    def function(x: Tensor, weight: Tensor, bias: Tensor) -> Tensor:
        return conv2d(x, weight, bias, geometry)

    assert torch.autograd.gradcheck(function, inputs)
    assert torch.autograd.gradgradcheck(function, inputs)


def adapted(convolve: Callable[..., Tensor], geometry: Geometry) -> Callable[..., Tensor]:
    """Return a loss after a step of gradient descent on the weights, which takes all three convolutions and their derivatives."""

    def loss(x: Tensor, weight: Tensor, bias: Tensor) -> Tensor:
        def inner(weight: Tensor) -> Tensor:
            return convolve(x, weight, bias, geometry).tanh().square().sum()

        return convolve(x, weight - 0.1 * grad(inner)(weight), bias, geometry).pow(3).sum()

    return loss


SHARED = [shared for shared in ((x, w, b) for x in (0, None) for w in (0, None) for b in (0, None)) if any(dim == 0 for dim in shared)]


@pytest.mark.parametrize("geometry", GEOMETRIES)
@pytest.mark.parametrize("dims", SHARED)
def test_mapped_over_tasks_it_equals_torchs_own_rule_whatever_the_tasks_share(geometry: Geometry, dims: tuple[Any, ...]):
    batched = tensors(geometry, TASKS)
    given = [tensor if dim == 0 else tensor[0] for tensor, dim in zip(batched, dims, strict=True)]
    torch.testing.assert_close(
        vmap(lambda *parts: conv2d(*parts, geometry), dims)(*given), vmap(lambda *parts: plain(*parts, geometry), dims)(*given)
    )
    found = vmap(grad(adapted(conv2d, geometry), (0, 1, 2)), dims)(*given)
    expected = vmap(grad(adapted(plain, geometry), (0, 1, 2)), dims)(*given)
    for mine, theirs in zip(found, expected, strict=True):
        torch.testing.assert_close(mine, theirs)


def test_the_gradient_of_shared_weights_is_the_sum_over_tasks():
    geometry = GEOMETRIES[1]
    x, weight, bias = random(2, 2, 6, 6, tasks=TASKS), *tensors(geometry)[1:]

    def total(weight: Tensor) -> Tensor:
        return vmap(adapted(conv2d, geometry), (0, None, None))(x, weight, bias).sum()

    expected = sum(grad(adapted(plain, geometry), 1)(x[task], weight, bias) for task in range(TASKS))
    torch.testing.assert_close(grad(total)(weight), expected)


def test_images_stay_channels_last_from_layer_to_layer():
    """Also after a first layer of one channel, where torch alone would choose the slow order."""
    x = random(2, 1, 6, 6)
    first = conv2d(x, random(4, 1, 3, 3), random(4), GEOMETRIES[0])
    second = conv2d(first.relu(), random(4, 4, 3, 3), None, GEOMETRIES[1])
    assert first.is_contiguous(memory_format=torch.channels_last)
    assert not first.is_contiguous()
    assert second.is_contiguous(memory_format=torch.channels_last)


def test_changing_the_layout_changes_no_value_and_copies_nothing_where_there_is_one_channel():
    grey = random(3, 1, 4, 5)
    assert torch.equal(channels_last(grey), grey)
    assert channels_last(grey).data_ptr() == grey.data_ptr()
    assert channels_last(grey).stride() == (20, 1, 5, 1)


def test_one_row_with_any_stride_gives_the_weight_gradient_of_a_plain_row():
    """torch 2.13 reads the stride of an axis of length 1, which may be any number, and computes a wrong gradient in double precision."""
    torch.manual_seed(0)
    image = torch.randn(9, 4, 4, dtype=torch.float64).permute(1, 2, 0).contiguous().permute(2, 0, 1)
    odd = image.as_strided((1, 9, 4, 4), (9, *image.stride()))
    weight = torch.randn(9, 3, 3, 3, dtype=torch.float64, requires_grad=True)
    geometry = Geometry((2, 2), (1, 1), (1, 1), 3)
    found = torch.autograd.grad(conv2d(odd, weight, None, geometry).square().sum(), weight)[0]
    expected = torch.autograd.grad(F.conv2d(odd.contiguous(), weight, None, 2, 1, 1, 3).square().sum(), weight)[0]
    torch.testing.assert_close(found, expected)
    assert channels_last(odd).stride() == (144, 1, 36, 9)


@pytest.mark.parametrize(
    "options",
    [{}, {"padding": "same", "stride": 1}, {"padding": (0, 1)}, {"padding": 2, "padding_mode": "reflect"}, {"groups": 2, "bias": False}],
)
def test_a_plain_layer_computes_the_same_after_its_adoption(options: dict[str, Any]):
    layer = nn.Conv2d(2, 4, 3, **{"stride": 2, **options}).double()
    x = random(2, 2, 6, 6)
    expected, before = layer(x), dict(layer.named_parameters())
    adopt_layers(nn.Sequential(layer))
    assert type(layer) is Conv2d
    assert all(parameter is before[name] for name, parameter in layer.named_parameters())
    torch.testing.assert_close(layer(x), expected)


def test_a_layer_of_the_users_own_class_is_left_alone():
    class Own(nn.Conv2d):
        pass

    layer = Own(1, 1, 3)
    adopt_layers(nn.Sequential(layer))
    assert type(layer) is Own
