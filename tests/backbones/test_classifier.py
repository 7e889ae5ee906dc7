from __future__ import annotations

import math

import pytest
import torch
from torch import nn

from metarun.backbones.classifier import Classifier
from metarun.backbones.conv4 import Conv4
from metarun.errors import UserError


class Plain(nn.Module):
    """What a user would write: an embedding with `out_features` and nothing else."""

    out_features = 3

    def __init__(self) -> None:
        super().__init__()
        self.layer = nn.Linear(2, 3)

    def forward(self, x: torch.Tensor) -> torch.Tensor:
        return self.layer(x)


def test_the_network_is_the_head_on_the_body():
    backbone = Plain()
    net = Classifier(backbone, 5)
    x = torch.randn(4, 2)
    torch.testing.assert_close(net(x), net.head(backbone(x)))
    assert {name.split(".")[0] for name, _ in net.named_parameters()} == {"body", "head"}
    assert net(x).shape == (4, 5)


def test_a_backbone_without_its_own_rule_leaves_the_head_as_torch_makes_it():
    with torch.random.fork_rng():
        torch.manual_seed(1)
        net = Classifier(Plain(), 5)
        torch.manual_seed(1)
        Plain()
        assert torch.equal(net.head.weight, nn.Linear(3, 5).weight)


def test_a_backbone_without_out_features_is_told_what_to_do():
    with pytest.raises(UserError, match="the backbone Flatten has no integer `out_features`; set it in its __init__"):
        Classifier(nn.Flatten(), 5)


def head(rule: str | None, width: int = 64) -> nn.Linear:
    """Return the head of 20 outputs that a rule draws under seed 1."""
    with torch.random.fork_rng():
        torch.manual_seed(1)
        return Classifier(Conv4((1, 16, 16), filters=width), 20, rule).head


def test_a_normal_head_has_deviation_1_as_mamls_released_one_and_zero_biases():
    """1,280 draws: the deviation's standard error is 1/sqrt(2 * 1280) = 0.02."""
    normal = head("normal")
    assert normal.weight.std().item() == pytest.approx(1.0, abs=0.08)
    assert normal.weight.abs().max() > 2.5  # neither uniform nor truncated
    assert (normal.bias == 0).all()


def test_a_glorot_head_has_glorots_bound_and_zero_biases():
    bound = math.sqrt(6 / (64 + 20))
    weight = head("glorot").weight
    assert 0.95 * bound < weight.abs().max() <= bound
    assert (head("glorot").bias == 0).all()


def test_a_torch_head_has_the_bound_of_torchs_linear_layer_on_weights_and_biases():
    bound = 1 / math.sqrt(64)
    layer = head("torch")
    assert 0.95 * bound < layer.weight.abs().max() <= bound
    assert 0 < layer.bias.abs().max() <= bound


def test_without_a_rule_of_its_own_a_head_follows_the_backbone():
    assert torch.equal(head(None).weight, head("glorot").weight)
    assert not torch.equal(head(None).weight, head("torch").weight)


def test_an_unknown_rule_is_refused_with_the_nearest_one():
    with pytest.raises(UserError, match=r"backbone.head_init=glorott is unknown; .* glorot, normal, torch. Did you mean 'glorot'\?"):
        head("glorott")


class InitialisesItself(nn.Linear):
    """As a network of timm: the method initialises the whole network and takes no layer."""

    def init_weights(self, mode: str = "") -> None:
        raise AssertionError(mode)


def test_a_method_init_weights_of_another_meaning_is_not_called() -> None:
    assert Classifier(InitialisesItself(3, 4), 2).head.weight.shape == (2, 4)
