from __future__ import annotations

import math

import pytest
import torch
from torch import nn
from torch.func import functional_call, grad, vmap

from metarun.backbones.classifier import Classifier
from metarun.backbones.conv4 import Conv4
from metarun.errors import UserError


def seeded(*args, **options) -> Conv4:
    with torch.random.fork_rng():
        torch.manual_seed(0)
        return Conv4(*args, **options)


@pytest.mark.parametrize("output", ["flatten", "mean"])
@pytest.mark.parametrize("pooling", ["max", "stride"])
@pytest.mark.parametrize("shape", [(1, 28, 28), (3, 84, 84), (3, 33, 47), (1, 16, 16)])
def test_out_features_is_the_width_of_the_embedding(shape: tuple[int, ...], pooling: str, output: str):
    net = seeded(shape, filters=6, pooling=pooling, output=output)
    assert net(torch.rand(2, *shape)).shape == (2, net.out_features)


def test_known_widths_of_the_literature():
    """28 -> 14 -> 7 -> 3 -> 1 by pooling; -> 4 -> 2 by stride with SAME padding; 84 -> 42 -> 21 -> 10 -> 5 on mini-ImageNet."""
    assert seeded((1, 28, 28)).out_features == 64
    assert seeded((1, 28, 28), pooling="stride").out_features == 64 * 2 * 2
    assert seeded((1, 28, 28), pooling="stride", output="mean").out_features == 64
    assert seeded((3, 84, 84), filters=32).out_features == 32 * 5 * 5


def test_stride_halves_28_to_14_7_4_2():
    net, sides, x = seeded((1, 28, 28), filters=2, pooling="stride"), [], torch.rand(1, 1, 28, 28)
    for block in net.blocks:
        x = block(x)
        sides.append(x.shape[-1])
    assert sides == [14, 7, 4, 2]


def test_a_stride_network_takes_images_of_one_pixel():
    assert seeded((3, 1, 1), filters=2, pooling="stride").eval()(torch.rand(2, 3, 1, 1)).shape == (2, 2)


def test_the_mean_output_is_the_spatial_mean_of_the_flattened_one():
    flat = seeded((1, 28, 28), filters=3, pooling="stride").eval()
    mean = Conv4((1, 28, 28), filters=3, pooling="stride", output="mean").eval()
    mean.load_state_dict(flat.state_dict())
    x = torch.rand(4, 1, 28, 28)
    torch.testing.assert_close(mean(x), flat(x).reshape(4, 3, 4).mean(dim=2))


def test_weights_are_glorot_uniform_and_biases_zero_head_included():
    """Glorot's bound is sqrt(6 / (fan_in + fan_out)): 9 * 64 each way in an inner block, 64 and 5 in the head."""
    net = Classifier(seeded((1, 28, 28)), 5)
    for weight, fans in ((net.body.blocks[1][0].weight, 2 * 9 * 64), (net.head.weight, 64 + 5)):
        bound = math.sqrt(6 / fans)
        assert weight.abs().max() <= bound
        assert weight.std().item() == pytest.approx(bound / math.sqrt(3), rel=0.1)
    assert all((layer.bias == 0).all() for layer in net.modules() if isinstance(layer, nn.Conv2d | nn.Linear))


def test_weights_of_init_torch_are_as_torch_makes_them_head_included():
    """PyTorch's bound is 1 / sqrt(fan_in), for weights and biases: fan_in is 9 * 64 in an inner block and 64 in the head."""
    net = Classifier(seeded((1, 28, 28), init="torch"), 5)
    for layer, fan_in in ((net.body.blocks[1][0], 9 * 64), (net.head, 64)):
        bound = 1 / math.sqrt(fan_in)
        assert 0.9 * bound < layer.weight.abs().max() <= bound
        assert 0 < layer.bias.abs().max() <= bound


def test_norm_eps_is_that_of_every_normalisation_and_torchs_by_default():
    for options, eps in (({}, 1e-5), ({"norm_eps": 1e-3}, 1e-3)):
        layers = [layer for layer in seeded((1, 28, 28), **options).modules() if isinstance(layer, nn.BatchNorm2d)]
        assert [layer.eps for layer in layers] == [eps] * 4


def test_the_network_has_four_plain_batch_normalisations():
    assert [type(layer) for layer in seeded((1, 28, 28)).modules() if "Norm" in type(layer).__name__] == [nn.BatchNorm2d] * 4


@pytest.mark.parametrize("output", ["flatten", "mean"])
@pytest.mark.parametrize("pooling", ["max", "stride"])
def test_gradients_of_gradients_mapped_over_tasks_equal_a_loop(pooling: str, output: str):
    """Without its normalisation, which metarun replaces before it maps over tasks."""
    net = seeded((1, 16, 16), filters=3, pooling=pooling, output=output).double()
    for block in net.blocks:
        block[1] = nn.Identity()
    params = {name: value.detach() for name, value in net.named_parameters()}

    def energy(params: dict[str, torch.Tensor], x: torch.Tensor) -> torch.Tensor:
        return functional_call(net, params, (x,)).square().sum()

    def after_a_step(params: dict[str, torch.Tensor], x: torch.Tensor) -> torch.Tensor:
        gradients = grad(energy)(params, x)
        return energy({name: value - 0.1 * gradients[name] for name, value in params.items()}, x)

    x = torch.rand(3, 2, 1, 16, 16, dtype=torch.float64, generator=torch.Generator().manual_seed(0))
    mapped = vmap(grad(after_a_step), in_dims=(None, 0))(params, x)
    for task in range(3):
        torch.testing.assert_close({name: value[task] for name, value in mapped.items()}, grad(after_a_step)(params, x[task]))


@pytest.mark.parametrize(
    ("options", "sentence"),
    [
        ({"input_shape": (1, 15, 28)}, "images of 15x28 are too small for four 2x2 max-poolings, which need at least 16x16"),
        ({"input_shape": (10,)}, r"needs images .* the shape \(10,\)"),
        ({"input_shape": (1, 28, 28), "pooling": "maxx"}, r"pooling is max or stride, not 'maxx'. Did you mean 'max'\?"),
        ({"input_shape": (1, 28, 28), "output": "flat"}, r"output is flatten or mean, not 'flat'. Did you mean 'flatten'\?"),
        ({"input_shape": (1, 28, 28), "init": "glorrot"}, r"init is glorot or torch, not 'glorrot'. Did you mean 'glorot'\?"),
        ({"input_shape": (1, 28, 28), "norm_eps": 0.0}, "norm_eps=0.0 must be a number above 0"),
        ({"input_shape": (1, 28, 28), "norm_eps": "small"}, "norm_eps=small must be a number above 0"),
        ({"input_shape": (1, 28, 28), "filters": 0}, "filters=0 must be a whole number of at least 1"),
        ({"input_shape": (1, 28, 28), "filters": "many"}, "filters=many must be a whole number of at least 1"),
    ],
)
def test_bad_arguments_are_told_in_a_sentence(options: dict, sentence: str):
    with pytest.raises(UserError, match=sentence):
        Conv4(**options)
