"""The i.i.d. oracle: passes over all examples in random order."""

from __future__ import annotations

from typing import Any

import torch
from small import conv_network
from trajectories import CLASSES, trajectory

from metarun import testing
from metarun.algorithms.iid_oracle import IidOracle
from metarun.objectives import CLASSIFICATION
from metarun.types import Examples, WithChoice, WithStream

KEY = torch.tensor(7)


def oracle(**options: Any) -> IidOracle:
    return IidOracle(conv_network("instance", None), CLASSIFICATION, CLASSES, **({"test_optimizer": "sgd", "batch": 3} | options))


def test_it_is_no_learner_of_a_stream_and_chooses_its_rate():
    assert not isinstance(oracle(), WithStream)
    assert isinstance(oracle(), WithChoice)


def test_more_passes_fit_the_support_set_better():
    episode = trajectory()
    losses = []
    for passes in (1, 100):
        algorithm = oracle(passes=passes, test_inner_lrs=(0.1,))
        params, state = testing.start(algorithm)
        outputs = algorithm.predict(algorithm.adapt(params, state, episode.support, KEY), episode.support.x)
        losses.append(float(CLASSIFICATION.loss(outputs, episode.support.y)))
    assert losses[1] < 0.3 * losses[0]


def test_the_steps_see_each_example_once_a_pass():
    """With one step a pass on all examples, the order changes nothing but the rounding."""
    support = trajectory().support
    other = Examples(support.x.flip(0), support.y.flip(0))
    algorithm = oracle(passes=3, batch=4)
    params, state = testing.start(algorithm)
    first, second = (algorithm.adapt(params, state, examples, KEY).learner.params["weight"] for examples in (support, other))
    torch.testing.assert_close(first, second)
    changed = oracle(passes=3, batch=1).adapt(params, state, support, KEY).learner.params["weight"]
    assert not torch.allclose(first, changed)
