"""Calling a module with other tensors, wherever it holds them."""

from __future__ import annotations

import torch
from torch import nn

from metarun.layers.calling import call_with, places_of


def test_a_layer_registered_twice_computes_with_the_given_tensors_and_keeps_its_own() -> None:
    layer = nn.Linear(2, 2)
    module = nn.Sequential(layer, nn.Tanh(), nn.Sequential(layer))
    weight, places = layer.weight, places_of(module)
    assert places == {"0.weight": "0.weight", "0.bias": "0.bias"}
    out = call_with(module, places, {"0.weight": 2.0 * torch.eye(2), "0.bias": torch.zeros(2)}, torch.ones(1, 2))
    torch.testing.assert_close(out, 2.0 * torch.full((1, 2), 2.0).tanh())
    assert layer.weight is weight


def test_a_tensor_that_two_layers_share_is_given_to_both() -> None:
    first, second = nn.Linear(2, 2, bias=False), nn.Linear(2, 2, bias=False)
    second.weight = first.weight
    module = nn.Sequential(first, second)
    places = places_of(module)
    assert places == {"0.weight": "0.weight", "1.weight": "0.weight"}
    assert call_with(module, places, {"0.weight": 3.0 * torch.eye(2)}, torch.ones(1, 2)).tolist() == [[9.0, 9.0]]
    assert first.weight is second.weight


def test_the_module_computes_with_its_own_tensor_where_none_is_given() -> None:
    module = nn.BatchNorm1d(2).eval()
    module.running_mean += 1.0
    out = call_with(module, places_of(module), {"weight": torch.full((2,), 5.0)}, torch.full((1, 2), 2.0))
    torch.testing.assert_close(out, torch.full((1, 2), 5.0), rtol=1e-4, atol=0)
