"""The network that is none."""

from __future__ import annotations

import torch

from metarun.backbones.identity import Identity


def test_the_embedding_is_the_flattened_input_and_there_is_nothing_to_learn() -> None:
    network = Identity((2, 3, 3))
    x = torch.rand(4, 2, 3, 3)
    assert torch.equal(network(x), x.reshape(4, 18))
    assert network.out_features == 18
    assert not list(network.parameters())
