"""Norm against torch's own layers, and masks against leaving rows out."""

from __future__ import annotations

import pytest
import torch
from norms import SHAPES, all_rows, images, norm_layer, plain_norm
from torch import Tensor, nn

from metarun.layers.adopt import adopt_layers
from metarun.layers.norm import Norm, NormPass, batch_statistics


def run(layer: Norm, x: Tensor, now: NormPass) -> Tensor:
    layer.norm_pass = now
    return layer(x)


def torch_twin(layer: Norm, dimensions: int) -> nn.Module:
    kind = {2: nn.BatchNorm1d, 3: nn.BatchNorm1d, 4: nn.BatchNorm2d}[dimensions]
    twin = kind(layer.num_features).double()
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


def test_the_formula_is_right_to_the_third_derivative_where_a_pass_asks_to_be_differentiable():
    """torch's own kernel is not; this is the way out for an algorithm that needs it."""
    layer, x = norm_layer(2), images(5, 2).requires_grad_()
    target = torch.randn(5, 2, dtype=torch.float64)

    def slope(x: Tensor) -> Tensor:
        layer.norm_pass = NormPass("own", collect=True, differentiable=True)
        return torch.autograd.grad((torch.tanh(layer(x)) * target).sum(), x, create_graph=True)[0]

    assert torch.autograd.gradgradcheck(slope, x, fast_mode=True)


def test_a_gradient_flows_through_collected_statistics_only_where_the_pass_is_differentiable():
    layer, x = norm_layer(), images(6, 3).requires_grad_()
    for differentiable in (False, True):
        now = NormPass("own", collect=True, differentiable=differentiable)
        run(layer, x, now)
        assert now.collected["layer.mean"].requires_grad == differentiable


def test_a_batch_norm_is_adopted_with_its_parameters_eps_and_momentum():
    module = nn.Sequential(
        nn.Conv2d(1, 2, 3), nn.Sequential(nn.BatchNorm2d(2, eps=1e-3, momentum=0.3), nn.ReLU()), nn.BatchNorm1d(4, affine=False)
    )
    nn.init.normal_(module[1][0].weight)
    names, weight = [name for name, _ in module.named_parameters()], module[1][0].weight.detach().clone()
    adopt_layers(module)
    assert [name for name, _ in module.named_parameters()] == names
    assert isinstance(module[1][0], Norm)
    assert isinstance(module[2], Norm)
    assert (module[1][0].eps, module[1][0].momentum) == (1e-3, 0.3)
    assert torch.equal(module[1][0].weight, weight)
    assert module[2].weight is None
    assert module[2].bias is None


def test_a_module_that_is_a_batch_norm_itself_is_adopted():
    assert [layer.norm_name for layer in adopt_layers(nn.BatchNorm3d(2))] == [""]


def test_without_affine_parameters_the_kernel_and_the_formula_agree():
    layer, x = plain_norm(3, affine=False), images(6, 3, 4, 4)
    torch.testing.assert_close(run(layer, x, NormPass("own")), run(layer, x, NormPass("own", all_rows(x))), rtol=1e-11, atol=1e-11)


@pytest.mark.parametrize("layout", [torch.contiguous_format, torch.channels_last])
def test_statistics_in_float32_lose_no_digit_whatever_the_layout(layout: torch.memory_format):
    """Adding up 16,384 values one after the other, as torch does with channels last, is off by 5e-6 of the mean."""
    x = 0.5 + 0.3 * torch.randn(64, 8, 16, 16, generator=torch.Generator().manual_seed(0))
    norm = plain_norm(8)
    norm.norm_pass = NormPass("own", collect=True)
    norm(x.contiguous(memory_format=layout))
    expected_var, expected_mean = torch.var_mean(x.double(), (0, 2, 3), correction=0)
    torch.testing.assert_close(norm.norm_pass.collected["layer.mean"].double(), expected_mean, rtol=5e-7, atol=0)
    torch.testing.assert_close(norm.norm_pass.collected["layer.var"].double(), expected_var, rtol=1e-6, atol=0)
