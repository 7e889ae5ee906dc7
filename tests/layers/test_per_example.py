"""Group, layer and instance normalisation against torch's, and their second derivatives through a map over tasks."""

from __future__ import annotations

from collections.abc import Callable

import pytest
import torch
from torch import Tensor, nn
from torch.func import functional_call, grad, vmap

from metarun.layers.adopt import KINDS, adopt_layers

LAYERS: dict[str, tuple[Callable[[], nn.Module], tuple[int, ...]]] = {
    "group": (lambda: nn.GroupNorm(2, 6, eps=0.1), (5, 6, 3, 2)),
    "group of vectors": (lambda: nn.GroupNorm(3, 6), (5, 6)),
    "group of volumes": (lambda: nn.GroupNorm(1, 6, affine=False), (2, 6, 2, 2, 3)),
    "layer": (lambda: nn.LayerNorm(4, eps=0.1), (5, 3, 4)),
    "layer over two axes": (lambda: nn.LayerNorm([3, 4], bias=False), (5, 3, 4)),
    "layer alone": (lambda: nn.LayerNorm(4, elementwise_affine=False), (5, 4)),
    "instance of rows": (lambda: nn.InstanceNorm1d(3, affine=True, eps=0.1), (5, 3, 4)),
    "instance of images": (lambda: nn.InstanceNorm2d(3), (5, 3, 4, 2)),
    "instance of one image": (lambda: nn.InstanceNorm2d(3, affine=True), (3, 4, 2)),
    "instance of volumes": (lambda: nn.InstanceNorm3d(3, affine=True), (5, 3, 4, 2, 2)),
}


def layer_of(name: str) -> tuple[nn.Module, Tensor]:
    make, shape = LAYERS[name]
    layer = make().double()
    for value in layer.parameters():
        nn.init.normal_(value)
    return layer, torch.randn(*shape, dtype=torch.float64)


@pytest.mark.parametrize("name", LAYERS)
def test_it_equals_torchs(name: str) -> None:
    layer, x = layer_of(name)
    kind, expected = type(layer), layer(x)
    adopt_layers(layer)
    assert type(layer) is KINDS[kind]
    torch.testing.assert_close(layer(x), expected, rtol=1e-12, atol=1e-12)


@pytest.mark.parametrize("name", LAYERS)
def test_an_outer_gradient_through_a_mapped_inner_one_is_the_sum_over_tasks(name: str) -> None:
    """The engine takes this gradient. torch's own kernels give another one, without an error."""
    layer, x = layer_of(name)
    adopt_layers(layer)
    tasks = torch.stack([x, 2.0 * x.flip(-1) + 0.3 * x.square()])
    scale, params = torch.tensor(0.7, dtype=torch.float64), {name: value.detach() for name, value in layer.named_parameters()}

    def after_a_step(scale: Tensor, x: Tensor) -> Tensor:
        def inner(scale: Tensor) -> Tensor:
            return functional_call(layer, params, ((scale * x).tanh(),)).tanh().pow(3).sum()

        return inner(scale - 0.1 * grad(inner)(scale))

    leaf = scale.requires_grad_()
    (mapped,) = torch.autograd.grad(vmap(after_a_step, (None, 0))(leaf, tasks).sum(), leaf)
    (looped,) = torch.autograd.grad(sum(after_a_step(leaf, task) for task in tasks), leaf)  # type: ignore[arg-type]
    torch.testing.assert_close(mapped, looped, rtol=1e-9, atol=1e-9)


@pytest.mark.parametrize("name", ["group", "layer", "instance of rows"])
def test_it_can_be_mapped_without_a_gradient(name: str) -> None:
    layer, x = layer_of(name)
    adopt_layers(layer)
    tasks = torch.stack([x, x.square()])
    with torch.no_grad():
        torch.testing.assert_close(vmap(layer)(tasks), torch.stack([layer(task) for task in tasks]))


def test_running_statistics_are_left_to_torch() -> None:
    layer = nn.InstanceNorm2d(2, track_running_stats=True)
    adopt_layers(layer)
    layer(torch.randn(3, 2, 4, 4))
    assert not torch.equal(layer.running_mean, torch.zeros(2))
