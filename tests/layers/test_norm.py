"""Norm against torch's own layers, its fused kernel against the formula, and masks against leaving rows out."""

from __future__ import annotations

from typing import Any

import pytest
import torch
from torch import Tensor, nn
from torch.func import functional_call, grad, vmap

from metarun.layers.norm import Norm, NormPass, batch_statistics, replace_batch_norm

SHAPES = [(6, 3), (6, 3, 5), (6, 3, 4, 5)]


def norm_layer(features: int = 3, seed: int = 0) -> Norm:
    layer = Norm(features).double()
    generator = torch.Generator().manual_seed(seed)
    for parameter in (layer.weight, layer.bias):
        assert parameter is not None
        parameter.data = torch.randn(features, generator=generator, dtype=torch.float64)
    layer.name = "layer"
    return layer


def images(*shape: int) -> Tensor:
    return 2.0 + 3.0 * torch.randn(*shape, dtype=torch.float64)


def run(layer: Norm, x: Tensor, now: NormPass) -> Tensor:
    layer.current = now
    return layer(x)


def all_rows(x: Tensor) -> Tensor:
    """A mask that leaves nothing out: it makes the layer take the formula instead of the fused kernel."""
    return torch.ones(len(x), dtype=torch.bool)


def torch_twin(layer: Norm, dimensions: int) -> nn.Module:
    kind = {2: nn.BatchNorm1d, 3: nn.BatchNorm1d, 4: nn.BatchNorm2d}[dimensions]
    twin = kind(layer.features).double()
    twin.load_state_dict(dict(layer.named_parameters()), strict=False)
    return twin


@pytest.mark.parametrize("shape", SHAPES)
def test_own_statistics_are_those_of_torchs_batch_norm_in_training(shape: tuple[int, ...]):
    layer, x = norm_layer(), images(*shape)
    expected = torch_twin(layer, len(shape))(x)
    torch.testing.assert_close(run(layer, x, NormPass("own")), expected, rtol=1e-12, atol=1e-12)
    torch.testing.assert_close(run(layer, x, NormPass("own", all_rows(x))), expected, rtol=1e-12, atol=1e-12)


@pytest.mark.parametrize("shape", SHAPES)
def test_given_statistics_are_those_of_torchs_batch_norm_at_test(shape: tuple[int, ...]):
    layer, x = norm_layer(), images(*shape)
    given = {"layer.mean": torch.randn(3, dtype=torch.float64), "layer.var": torch.rand(3, dtype=torch.float64)}
    twin = torch_twin(layer, len(shape)).eval()
    twin.running_mean, twin.running_var = given["layer.mean"], given["layer.var"]
    torch.testing.assert_close(run(layer, x, NormPass("given", given=given)), twin(x), rtol=1e-12, atol=1e-12)


@pytest.mark.parametrize("shape", SHAPES[1:])
def test_instance_and_layer_are_torchs(shape: tuple[int, ...]):
    layer, x = norm_layer(), images(*shape)
    instance = {3: nn.InstanceNorm1d, 4: nn.InstanceNorm2d}[len(shape)](3, affine=True).double()
    group = nn.GroupNorm(1, 3).double()
    for twin, how in ((instance, "instance"), (group, "layer")):
        twin.load_state_dict(dict(layer.named_parameters()))
        torch.testing.assert_close(run(layer, x, NormPass(how)), twin(x), rtol=1e-12, atol=1e-12)


def test_none_is_the_scale_and_shift_alone():
    layer, x = norm_layer(), images(6, 3, 4, 4)
    scaled = x * (layer.weight / (1 + layer.eps) ** 0.5)[:, None, None] + layer.bias[:, None, None]
    torch.testing.assert_close(run(layer, x, NormPass("none")), scaled, rtol=1e-12, atol=1e-12)
    vectors = images(6, 3)
    torch.testing.assert_close(run(layer, vectors, NormPass("instance")), run(layer, vectors, NormPass("none")))


@pytest.mark.parametrize("shape", SHAPES)
def test_the_statistics_of_both_ways_are_mean_and_biased_variance(shape: tuple[int, ...]):
    layer, x = norm_layer(), images(*shape)
    flat = x.transpose(0, 1).reshape(3, -1)
    expected = {"layer.mean": flat.mean(dim=1), "layer.var": flat.var(dim=1, correction=0)}
    for mask in (None, all_rows(x)):
        now = NormPass("own", mask, collect=True)
        run(layer, x, now)
        torch.testing.assert_close(now.collected, expected, rtol=1e-10, atol=1e-12)


def test_a_pass_with_given_statistics_collects_its_own():
    layer, x = norm_layer(), images(6, 3)
    now = NormPass("given", given={"layer.mean": torch.zeros(3), "layer.var": torch.ones(3)}, collect=True)
    run(layer, x, now)
    torch.testing.assert_close(now.collected["layer.mean"], x.mean(dim=0))


@pytest.mark.parametrize("shape", SHAPES)
def test_a_masked_row_is_left_out_of_the_statistics(shape: tuple[int, ...]):
    layer, x = norm_layer(), images(*shape)
    mask = torch.tensor([True, False, True, True, False, True])
    now = NormPass("own", mask, collect=True)
    out = run(layer, torch.where(mask.reshape(-1, *[1] * (x.dim() - 1)), x, 100.0), now)
    torch.testing.assert_close(out[mask], run(layer, x[mask], NormPass("own")), rtol=1e-10, atol=1e-10)
    mean, var = batch_statistics(x[mask], None)
    torch.testing.assert_close(now.collected, {"layer.mean": mean, "layer.var": var}, rtol=1e-10, atol=1e-12)


# The fused kernel: value, first and second derivatives, alone and mapped over tasks, equal those of the formula.


def energy(layer: Norm, fused: bool, target: Tensor) -> Any:
    def function(weights: dict[str, Tensor], x: Tensor) -> Tensor:
        layer.current = NormPass("own", None if fused else all_rows(x))
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
    layer, target = Norm(3, affine=affine).double(), torch.randn(6, 3, 5, 5, dtype=torch.float64)
    layer.name = "layer"
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


def test_the_formula_is_right_to_the_third_derivative_where_a_pass_asks_to_be_differentiable():
    """torch's own kernel is not; this is the way out for an algorithm that needs it."""
    layer, x = norm_layer(2), images(5, 2).requires_grad_()
    target = torch.randn(5, 2, dtype=torch.float64)

    def slope(x: Tensor) -> Tensor:
        layer.current = NormPass("own", collect=True, differentiable=True)
        return torch.autograd.grad((torch.tanh(layer(x)) * target).sum(), x, create_graph=True)[0]

    assert torch.autograd.gradgradcheck(slope, x, fast_mode=True)


def test_a_gradient_flows_through_collected_statistics_only_where_the_pass_is_differentiable():
    layer, x = norm_layer(), images(6, 3).requires_grad_()
    for differentiable in (False, True):
        now = NormPass("own", collect=True, differentiable=differentiable)
        run(layer, x, now)
        assert now.collected["layer.mean"].requires_grad == differentiable


def test_a_batch_norm_is_replaced_with_its_parameters_eps_and_momentum():
    module = nn.Sequential(
        nn.Conv2d(1, 2, 3), nn.Sequential(nn.BatchNorm2d(2, eps=1e-3, momentum=0.3), nn.ReLU()), nn.BatchNorm1d(4, affine=False)
    )
    nn.init.normal_(module[1][0].weight)
    names, weight = [name for name, _ in module.named_parameters()], module[1][0].weight.detach().clone()
    replace_batch_norm(module)
    assert [name for name, _ in module.named_parameters()] == names
    assert isinstance(module[1][0], Norm)
    assert isinstance(module[2], Norm)
    assert (module[1][0].eps, module[1][0].momentum) == (1e-3, 0.3)
    assert torch.equal(module[1][0].weight, weight)
    assert module[2].weight is None
    assert module[2].bias is None


def test_a_module_that_is_a_batch_norm_itself_is_replaced():
    assert isinstance(replace_batch_norm(nn.BatchNorm3d(2)), Norm)


def test_without_affine_parameters_the_kernel_and_the_formula_agree():
    layer, x = Norm(3, affine=False), images(6, 3, 4, 4)
    torch.testing.assert_close(run(layer, x, NormPass("own")), run(layer, x, NormPass("own", all_rows(x))), rtol=1e-11, atol=1e-11)


@pytest.mark.parametrize("layout", [torch.contiguous_format, torch.channels_last])
def test_statistics_in_float32_lose_no_digit_whatever_the_layout(layout: torch.memory_format):
    """Adding up 16,384 values one after the other, as torch does with channels last, is off by 5e-6 of the mean."""
    x = 0.5 + 0.3 * torch.randn(64, 8, 16, 16, generator=torch.Generator().manual_seed(0))
    norm = Norm(8)
    norm.name, norm.current = "norm", NormPass("own", collect=True)
    norm(x.contiguous(memory_format=layout))
    expected_var, expected_mean = torch.var_mean(x.double(), (0, 2, 3), correction=0)
    torch.testing.assert_close(norm.current.collected["norm.mean"].double(), expected_mean, rtol=5e-7, atol=0)
    torch.testing.assert_close(norm.current.collected["norm.var"].double(), expected_var, rtol=1e-6, atol=0)
