from __future__ import annotations

import pytest
import torch
from torch import nn

from metarun.backbones.classifier import Classifier
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
