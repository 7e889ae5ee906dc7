from __future__ import annotations

import torch
from small_ratings import Tastes, taste_network

from metarun.algorithms.parts.embedding import embedded, embedding_params, inputs_init


def test_the_network_gives_its_vectors_from_the_parameters_of_the_algorithm():
    network = taste_network(head=False)
    params = {**inputs_init(network), "encoder.0.weight": torch.zeros(1)}
    x = Tastes().episode("train", 0).support.x.double()
    torch.testing.assert_close(embedded(network, params, x, None), network.module(x))
    assert set(embedding_params(network, params)) == set(params) - {"encoder.0.weight"}


def test_without_a_network_inputs_stay_as_they_are():
    x = torch.rand(3, 2)
    assert embedded(None, {}, x, None) is x
    assert inputs_init(None) == embedding_params(None, {"inputs.a": x}) == {}
