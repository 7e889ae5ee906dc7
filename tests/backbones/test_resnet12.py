from __future__ import annotations

import math

import pytest
import torch
from torch import Tensor, nn
from torch.func import functional_call, grad, vmap
from torch.nn import functional as F

from metarun.backbones.resnet12 import Block, ResNet12
from metarun.errors import UserError

SMALL = (2, 3, 4, 5)


def seeded(*args, **options) -> ResNet12:
    with torch.random.fork_rng():
        torch.manual_seed(0)
        return ResNet12(*args, **options)


@pytest.mark.parametrize("output", ["mean", "flatten"])
@pytest.mark.parametrize(("shape", "widths"), [((3, 84, 84), SMALL), ((1, 28, 28), SMALL), ((3, 33, 47), (4, 2)), ((1, 16, 16), SMALL)])
def test_out_features_is_the_width_of_the_embedding(shape: tuple[int, ...], widths: tuple[int, ...], output: str):
    net = seeded(shape, widths, output)
    assert net(torch.rand(2, *shape)).shape == (2, net.out_features)


def test_known_sizes_of_the_literature():
    """84 -> 42 -> 21 -> 10 -> 5, so MetaOptNet's flattened embedding has 640 · 25 = 16,000 values; its network 12.4 million weights.

    A block from a to b channels has 9ab + 18b² + ab in its convolutions and 8b in its four normalisations.
    """
    lee, chen = ResNet12((3, 84, 84), (64, 160, 320, 640), "flatten"), ResNet12((3, 84, 84))
    assert lee.out_features == 16_000
    assert chen.out_features == 512
    for net, widths in ((lee, (64, 160, 320, 640)), (chen, (64, 128, 256, 512))):
        counted = sum(10 * a * b + 18 * b * b + 8 * b for a, b in zip((3, *widths), widths, strict=False))
        assert sum(value.numel() for value in net.parameters()) == counted
    assert sum(value.numel() for value in lee.parameters()) == pytest.approx(12.4e6, rel=0.01)


def test_there_are_twelve_convolutions_of_3x3_in_four_blocks_and_a_shortcut_in_each():
    convs = [layer for layer in seeded((3, 84, 84), SMALL).modules() if isinstance(layer, nn.Conv2d)]
    assert sum(layer.kernel_size == (3, 3) for layer in convs) == 12
    assert sum(layer.kernel_size == (1, 1) for layer in convs) == 4
    assert all(layer.bias is None for layer in convs)


def test_a_block_is_three_convolutions_a_shortcut_and_a_pooling():
    block, x = Block(2, 3).double(), torch.randn(4, 2, 6, 6, dtype=torch.float64)

    def normalised(x: Tensor) -> Tensor:
        return F.batch_norm(x, None, None, training=True)

    out = x
    for place, conv in enumerate(block.convs):
        out = normalised(F.conv2d(out, conv.weight, padding=1))
        out = out if place == 2 else torch.where(out > 0, out, 0.1 * out)
    out = out + normalised(F.conv2d(x, block.shortcut[0].weight))
    expected = F.max_pool2d(torch.where(out > 0, out, 0.1 * out), 2)
    torch.testing.assert_close(block(x), expected, rtol=1e-10, atol=1e-12)


def test_the_mean_output_is_the_spatial_mean_of_the_flattened_one():
    flat, mean = seeded((1, 32, 32), SMALL, "flatten").eval(), seeded((1, 32, 32), SMALL).eval()
    x = torch.rand(3, 1, 32, 32)
    torch.testing.assert_close(mean(x), flat(x).reshape(3, 5, 4).mean(dim=2))


def test_weights_are_normal_by_fan_out():
    """A 3x3 convolution to 64 channels has fan_out 9 · 64."""
    conv = seeded((3, 16, 16), (64, 2, 2, 2)).blocks[0].convs[1]
    assert conv.weight.std().item() == pytest.approx(math.sqrt(2 / (9 * 64)), rel=0.02)
    assert conv.weight.mean().item() == pytest.approx(0.0, abs=1e-3)


def test_gradients_of_gradients_mapped_over_tasks_equal_a_loop():
    """Without its normalisation, which metarun replaces before it maps over tasks."""
    net = seeded((1, 8, 8), (2, 3)).double()
    for block in net.blocks:
        block.norms = nn.ModuleList([nn.Identity() for _ in block.norms])
        block.shortcut[1] = nn.Identity()
    params = {name: value.detach() for name, value in net.named_parameters()}

    def energy(params: dict[str, Tensor], x: Tensor) -> Tensor:
        return functional_call(net, params, (x,)).square().sum()

    def after_a_step(params: dict[str, Tensor], x: Tensor) -> Tensor:
        gradients = grad(energy)(params, x)
        return energy({name: value - 0.01 * gradients[name] for name, value in params.items()}, x)

    x = torch.rand(3, 2, 1, 8, 8, dtype=torch.float64)
    mapped = vmap(grad(after_a_step), in_dims=(None, 0))(params, x)
    for task in range(3):
        torch.testing.assert_close({name: value[task] for name, value in mapped.items()}, grad(after_a_step)(params, x[task]))


@pytest.mark.parametrize(
    ("options", "sentence"),
    [
        ({"input_shape": (3, 15, 84)}, "images of 15x84 are too small for 4 2x2 max-poolings, which need at least 16x16"),
        ({"input_shape": (10,)}, r"needs images .* the shape \(10,\)"),
        ({"input_shape": (3, 84, 84), "output": "men"}, r"output is mean or flatten, not 'men'. Did you mean 'mean'\?"),
        ({"input_shape": (3, 84, 84), "widths": []}, r"widths=\[\] must be a list of one or more blocks"),
        ({"input_shape": (3, 84, 84), "widths": [64, 0]}, r"widths=\[64, 0\] must be a list"),
        ({"input_shape": (3, 84, 84), "widths": 64}, "widths=64 must be a list"),
    ],
)
def test_bad_arguments_are_told_in_a_sentence(options: dict, sentence: str):
    with pytest.raises(UserError, match=sentence):
        ResNet12(**options)
