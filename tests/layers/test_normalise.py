"""The fused kernel against the formula: value, first and second derivatives, alone and mapped over tasks."""

from __future__ import annotations

from typing import Any

import pytest
import torch
from norms import SHAPES, all_rows, images, norm_layer, plain_norm
from torch import Tensor
from torch.func import functional_call, grad, vmap

from metarun.layers.norm import Norm, NormPass
from metarun.layers.normalise import Normalise


def test_value_mean_and_inverse_deviation_are_those_of_the_columns():
    """1, 3 and 2, 8: mean 2 and 5, variance 1 and 9."""
    x = torch.tensor([[1.0, 2.0], [3.0, 8.0]], dtype=torch.float64)
    out, mean, inverse = Normalise.apply(x, None, None, 0.0)
    assert mean.tolist() == [2.0, 5.0]
    torch.testing.assert_close(inverse, torch.tensor([1.0, 1 / 3], dtype=torch.float64))
    torch.testing.assert_close(out, torch.tensor([[-1.0, -1.0], [1.0, 1.0]], dtype=torch.float64))


def energy(layer: Norm, fused: bool, target: Tensor) -> Any:
    def function(weights: dict[str, Tensor], x: Tensor) -> Tensor:
        layer.norm_pass = NormPass("own", None if fused else all_rows(x))
        return (torch.tanh(functional_call(layer, weights, (x,))) * target).sum()

    return function


def weights_of(layer: Norm, tasks: int) -> dict[str, Tensor]:
    return {name: value.detach() + 0.1 * torch.randn(tasks, *value.shape, dtype=torch.float64) for name, value in layer.named_parameters()}


@pytest.mark.parametrize("shape", SHAPES)
def test_first_derivatives_of_the_fused_kernel_equal_the_formulas_under_vmap(shape: tuple[int, ...]):
    layer, x, target = norm_layer(), images(4, *shape), torch.randn(*shape, dtype=torch.float64)
    weights = weights_of(layer, 4)
    fused, formula = (vmap(grad(energy(layer, how, target), argnums=(0, 1)))(weights, x) for how in (True, False))
    torch.testing.assert_close(fused, formula, rtol=1e-10, atol=1e-11)


@pytest.mark.parametrize("shape", SHAPES)
def test_second_derivatives_of_the_fused_kernel_equal_the_formulas_under_vmap(shape: tuple[int, ...]):
    """The Hessian times a random direction, over scale, shift and input at once."""
    layer, x, target = norm_layer(), images(4, *shape), torch.randn(*shape, dtype=torch.float64)
    weights = weights_of(layer, 4)
    directions = {name: torch.randn_like(value) for name, value in weights.items()}, torch.randn_like(x)

    def product(how: bool) -> Any:
        first = grad(energy(layer, how, target), argnums=(0, 1))

        def along(weights: Any, x: Tensor, direction: Any) -> Tensor:
            slopes, slope = first(weights, x)
            return sum((slopes[name] * direction[0][name]).sum() for name in slopes) + (slope * direction[1]).sum()

        return vmap(grad(along, argnums=(0, 1)))(weights, x, directions)

    torch.testing.assert_close(product(True), product(False), rtol=1e-9, atol=1e-10)


def test_the_meta_gradient_through_the_fused_kernel_equals_the_formulas_with_autograd_outside_vmap():
    """As the engine does it: torch.func inside, torch.autograd outside, a leaf shared by all tasks."""
    layer, x, target = norm_layer(), images(4, 6, 3, 4, 4), torch.randn(6, 3, 4, 4, dtype=torch.float64)

    def meta_gradient(how: bool) -> list[Tensor]:
        leaves = {name: value.detach().requires_grad_() for name, value in layer.named_parameters()}
        loss = energy(layer, how, target)

        def adapted(x: Tensor) -> Tensor:
            slopes = grad(loss)(leaves, x)
            return loss({name: leaf - 0.1 * slopes[name] for name, leaf in leaves.items()}, x)

        return list(torch.autograd.grad(vmap(adapted)(x).sum(), list(leaves.values())))

    torch.testing.assert_close(meta_gradient(True), meta_gradient(False), rtol=1e-10, atol=1e-11)


def test_tasks_that_lie_outside_the_rows_are_normalised_one_by_one_and_stay_there(monkeypatch: pytest.MonkeyPatch):
    """As after a convolution with shared weights. Values, first and second derivatives are those of the formula."""
    monkeypatch.setattr("metarun.layers.normalise.WORTH_ALONE", 0)
    layer, x, target = norm_layer(), images(4, 6, 5, 5, 3).permute(0, 1, 4, 2, 3), torch.randn(6, 3, 5, 5, dtype=torch.float64)
    weights, direction = weights_of(layer, 4), torch.randn_like(x)
    out = vmap(lambda weights, x: functional_call(layer, weights, (x,)))(weights, x)
    assert out.permute(0, 1, 3, 4, 2).is_contiguous()

    def product(how: bool) -> Any:
        first = grad(energy(layer, how, target), argnums=(0, 1))

        def along(weights: Any, x: Tensor, direction: Tensor) -> Tensor:
            slopes, slope = first(weights, x)
            return sum(each.sum() for each in slopes.values()) + (slope * direction).sum()

        return vmap(first)(weights, x), vmap(grad(along, argnums=(0, 1)))(weights, x, direction)

    torch.testing.assert_close(product(True), product(False), rtol=1e-9, atol=1e-10)


@pytest.mark.parametrize("affine", [True, False])
@pytest.mark.parametrize("dims", [(0, 0), (1, 0), (None, 0), (0, None)], ids=str)
def test_maps_within_maps_equal_the_formula_wherever_the_tasks_lie(
    monkeypatch: pytest.MonkeyPatch, dims: tuple[int | None, int | None], affine: bool
):
    """As queries one by one within a task within a chunk (`norm=reptile`); the scale and shift are shared."""
    monkeypatch.setattr("metarun.layers.normalise.WORTH_ALONE", 0)
    layer, target = plain_norm(3, affine=affine).double(), torch.randn(6, 3, 5, 5, dtype=torch.float64)
    tasks = sum(dim is not None for dim in dims)
    x = images(*[2] * tasks, 6, 5, 5, 3).movedim(-1, -3)
    weights = {name: value.detach() for name, value in layer.named_parameters()}

    def mapped(how: bool) -> Any:
        function = grad(energy(layer, how, target), argnums=(0, 1))
        for dim in reversed(dims):
            if dim is not None:
                function = vmap(function, in_dims=(None, dim))
        return function(weights, x)

    torch.testing.assert_close(mapped(True), mapped(False), rtol=1e-9, atol=1e-10)
