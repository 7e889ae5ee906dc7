"""The loss of supervised pre-training."""

from __future__ import annotations

import torch
import torch.nn.functional as F
from small import conv_network
from trajectories import CLASSES, trajectory

from metarun import testing
from metarun.algorithms.online import OnlineLearner
from metarun.algorithms.parts.pretraining import supervised_loss
from metarun.objectives import CLASSIFICATION


def test_it_is_the_cross_entropy_of_all_examples_support_and_query_alike():
    algorithm = OnlineLearner(conv_network("instance", None), CLASSIFICATION, CLASSES)
    params, state = testing.start(algorithm)
    episode = trajectory()
    loss, aux = supervised_loss(algorithm.network, CLASSIFICATION, params, state, episode)
    x, y = (torch.cat([getattr(part, name) for part in episode]) for name in ("x", "y"))
    z = algorithm.features(params, state, x)
    torch.testing.assert_close(loss, F.cross_entropy(F.linear(z, params["head.weight"], params["head.bias"]), y))
    assert set(aux.metrics) == {"loss", "accuracy"}
