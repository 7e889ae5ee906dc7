"""The i.i.d. oracle: passes over all examples in random order."""

from __future__ import annotations

from typing import Any

import pytest
import torch
from small import conv_network
from trajectories import CLASSES, trajectory

from metarun import draws, testing
from metarun.algorithms.iid_oracle import IidOracle
from metarun.algorithms.parts.orders import random_order
from metarun.objectives import CLASSIFICATION
from metarun.types import Examples, WithAdaptInPlace, WithChoice, WithStream

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


@pytest.mark.parametrize("optimizer", ["adam", "sgd", "best"])
def test_adaptation_in_place_equals_adaptation_and_changes_no_argument(optimizer):
    episode = trajectory()
    algorithm = oracle(passes=10, test_optimizer=optimizer, test_inner_lrs=(0.03,))
    params, state = testing.start(algorithm)
    before = {name: value.clone() for name, value in (params | state).items()}
    answers = []
    for adapt in (algorithm.adapt, algorithm.adapt_in_place):
        answers.append(algorithm.predict(adapt(params, state, episode.support, KEY), episode.query.x))
    torch.testing.assert_close(answers[1], answers[0], rtol=1e-4, atol=1e-4)  # Adam corrects its averages in float32
    assert answers[0].softmax(dim=1).std(dim=1).mean() > 0.05  # the steps have taught something
    torch.testing.assert_close(params | state, before, rtol=0, atol=0)
    assert isinstance(algorithm, WithAdaptInPlace)


def test_its_output_layer_starts_at_zero_unless_it_is_to_be_random():
    support = trajectory().support
    largest = {}
    for start in ("zero", "random"):
        algorithm = oracle(test_head=start, test_inner_lrs=(1e-9,))
        weight = algorithm.adapt(*testing.start(algorithm), support, KEY).learner.params["weight"]
        largest[start] = float(weight.abs().max())
    assert largest["zero"] < 1e-6 < 0.1 < largest["random"]


def test_a_pass_is_shuffled_anew():
    """The rows of 40 examples in the order of four classes."""
    order = [random_order(torch.zeros(40, 1), None, draws.fold(KEY, number)) for number in range(2)]
    assert all(sorted(each.tolist()) == list(range(40)) for each in order)
    assert order[0].tolist() != order[1].tolist()
    assert all(len(set((each[:15] // 10).tolist())) > 1 for each in order)
