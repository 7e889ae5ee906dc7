"""A perceptron against torch's own layers."""

from __future__ import annotations

import torch
from torch import nn
from torch.autograd import gradcheck

from metarun import draws, testing
from metarun.algorithms.parts.perceptrons import linear_init, perceptron, perceptron_init

KEY = draws.key(0, "perceptron")


def test_the_outputs_are_those_of_torchs_layers_with_relu_between_them():
    params = testing.double(perceptron_init(KEY, (3, 5, 4, 2)))
    layers = nn.Sequential(nn.Linear(3, 5), nn.ReLU(), nn.Linear(5, 4), nn.ReLU(), nn.Linear(4, 2)).double()
    with torch.no_grad():
        for number, place in enumerate((0, 2, 4)):
            layers[place].weight.copy_(params[f"{number}.weight"])
            layers[place].bias.copy_(params[f"{number}.bias"])
    x = draws.normal(KEY, 7, 3, dtype=torch.float64)
    torch.testing.assert_close(perceptron(params, x), layers(x), rtol=1e-12, atol=1e-12)


def test_weights_and_biases_start_uniform_within_one_over_the_root_of_the_inputs():
    params = linear_init(KEY, 400, 300)
    for value in params.values():
        assert float(value.abs().max()) <= 0.05
        assert float(value.abs().max()) > 0.049
    assert not torch.equal(*(perceptron_init(KEY, (4, 4, 4))[f"{number}.weight"] for number in (0, 1)))


def test_the_gradient_equals_finite_differences():
    params = testing.double(perceptron_init(KEY, (3, 4, 2)))
    x = draws.normal(KEY, 2, 3, dtype=torch.float64)
    leaves = [value.requires_grad_() for value in params.values()]
    assert gradcheck(lambda *values: perceptron(dict(zip(params, values, strict=True)), x), leaves)
