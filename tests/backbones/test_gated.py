"""The gated embedding of ANML."""

from __future__ import annotations

import pytest
import torch

from metarun.backbones.gated import Gated
from metarun.errors import UserError


def test_the_gate_multiplies_the_embedding_by_numbers_from_0_to_1():
    torch.manual_seed(0)
    module = Gated((1, 28, 28), filters=4, gate_filters=2)
    x = torch.rand(3, 1, 28, 28)
    embedding, gated = module.body(x), module(x)
    assert gated.shape == (3, module.out_features) == (3, 36)
    assert ((gated >= 0.0) & (gated <= embedding)).all()
    with torch.no_grad():
        module.gate.weight.zero_()
        module.gate.bias.fill_(0.0)
    torch.testing.assert_close(module(x), 0.5 * embedding)


def test_the_network_of_the_paper_has_its_sizes():
    with torch.device("meta"):
        module = Gated((3, 28, 28))
    assert (module.gate.in_features, module.gate.out_features) == (1008, 2304)


def test_a_gate_for_large_images_is_refused():
    with pytest.raises(UserError, match="with images of 84x84 the gate of backbone=gated_conv has"), torch.device("meta"):
        Gated((3, 84, 84))
