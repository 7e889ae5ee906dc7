"""Replacing layers inside a module."""

from __future__ import annotations

from torch import nn

from metarun.layers.replace import replace_layers


def relu_to_tanh(layer: nn.Module) -> nn.Module | None:
    return nn.Tanh() if isinstance(layer, nn.ReLU) else None


def test_layers_are_replaced_at_every_depth_and_others_stay():
    linear = nn.Linear(2, 2)
    module = nn.Sequential(linear, nn.ReLU(), nn.Sequential(nn.Flatten(), nn.ReLU()))
    assert replace_layers(module, relu_to_tanh) is module
    assert [type(layer) for layer in (module[1], module[2][0], module[2][1])] == [nn.Tanh, nn.Flatten, nn.Tanh]
    assert module[0] is linear


def test_a_module_that_is_such_a_layer_itself_is_replaced():
    assert isinstance(replace_layers(nn.ReLU(), relu_to_tanh), nn.Tanh)


def test_a_replacement_is_not_searched_for_layers():
    module = replace_layers(nn.Sequential(nn.ReLU()), lambda layer: nn.Sequential(layer) if isinstance(layer, nn.ReLU) else None)
    assert isinstance(module[0][0], nn.ReLU)
