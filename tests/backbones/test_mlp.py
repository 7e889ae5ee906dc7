from __future__ import annotations

import pytest
import torch
from torch import nn
from torch.func import functional_call, grad, vmap

from metarun.backbones.classifier import Classifier
from metarun.backbones.mlp import Mlp
from metarun.errors import UserError


def linears(net: nn.Module) -> list[nn.Linear]:
    return [layer for layer in net.modules() if isinstance(layer, nn.Linear)]


def test_init_std_and_one_output_give_the_sinusoid_network_of_maml():
    """1-40-40-1, weights truncated normal: nothing beyond 2 * 0.01, standard deviation 0.88 * 0.01, biases zero; 1761 parameters."""
    with torch.random.fork_rng():
        torch.manual_seed(0)
        net = Classifier(Mlp((1,), [40, 40], init_std=0.01), 1)
    assert [tuple(layer.weight.shape) for layer in linears(net)] == [(40, 1), (40, 40), (1, 40)]
    assert sum(value.numel() for value in net.parameters()) == 1761
    assert all((layer.bias == 0).all() and layer.weight.abs().max() <= 0.02 for layer in linears(net))
    assert linears(net)[1].weight.std().item() == pytest.approx(0.0088, rel=0.1)
    assert (linears(net)[2].weight != 0).all()


def test_without_init_std_the_weights_are_torchs_own():
    with torch.random.fork_rng():
        torch.manual_seed(3)
        ours = Classifier(Mlp((10,), [64]), 1)
        torch.manual_seed(3)
        theirs = nn.Sequential(nn.Linear(10, 64), nn.ReLU(), nn.Linear(64, 1))
    for mine, plain in zip(ours.parameters(), theirs.parameters(), strict=True):
        assert torch.equal(mine, plain)


@pytest.mark.parametrize("activation", ["relu", "tanh"])
def test_every_layer_is_followed_by_its_activation(activation: str):
    net = Mlp((3,), [8, 5], activation)
    x = torch.randn(6, 3)
    first, second = linears(net)
    function = getattr(torch, activation)
    torch.testing.assert_close(net(x), function(second(function(first(x)))))
    assert net.out_features == 5


def test_inputs_of_any_shape_are_flattened():
    assert Mlp((3, 4, 5), [7])(torch.rand(2, 3, 4, 5)).shape == (2, 7)


def test_gradients_mapped_over_tasks_equal_a_loop():
    net = Classifier(Mlp((2,), [4], "tanh"), 1).double()
    params = {name: value.detach() for name, value in net.named_parameters()}
    x = torch.randn(3, 5, 2, dtype=torch.float64)

    def energy(params: dict[str, torch.Tensor], x: torch.Tensor) -> torch.Tensor:
        return functional_call(net, params, (x,)).square().mean()

    mapped = vmap(grad(energy), in_dims=(None, 0))(params, x)
    for task in range(3):
        torch.testing.assert_close({name: value[task] for name, value in mapped.items()}, grad(energy)(params, x[task]))


@pytest.mark.parametrize(
    ("options", "sentence"),
    [
        ({"widths": []}, r"widths=\[\] must be a list of one or more layers"),
        ({"widths": [40, 0]}, r"widths=\[40, 0\] must be a list"),
        ({"widths": 40}, "widths=40 must be a list"),
        ({"widths": "40"}, "widths=40 must be a list"),
        ({"activation": "rely"}, r"activation is relu or tanh, not 'rely'. Did you mean 'relu'\?"),
        ({"init_std": 0.0}, "init_std=0.0 must be above 0"),
        ({"init_std": "small"}, "init_std=small must be above 0"),
    ],
)
def test_bad_arguments_are_told_in_a_sentence(options: dict, sentence: str):
    with pytest.raises(UserError, match=sentence):
        Mlp((1,), **options)
