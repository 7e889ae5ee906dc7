"""The baselines of a stream: an online output layer, an online network, and replay."""

from __future__ import annotations

from typing import Any

import pytest
import torch
import torch.nn.functional as F
from small import conv_network
from trajectories import CLASSES, trajectory

from metarun import testing
from metarun.algorithms.online import OnlineLearner, Streamed
from metarun.errors import UserError
from metarun.objectives import CLASSIFICATION
from metarun.types import WithChoice, WithStream, adapts_backbone

KEY = torch.tensor(7)


def online(**options: Any) -> OnlineLearner:
    return OnlineLearner(conv_network("instance", None), CLASSIFICATION, CLASSES, **({"test_optimizer": "sgd"} | options))


def after_stream(algorithm: OnlineLearner, steps: int = 4) -> Streamed:
    params, state = testing.start(algorithm)
    learner = algorithm.start(params, state, CLASSES, KEY)
    support = trajectory().support
    features = algorithm.features(params, state, support.x)
    for number in range(steps):
        learner = algorithm.learn(learner, features[number : number + 1], support.y[number : number + 1], KEY + number)
    return learner


def test_the_output_layer_alone_learns_unless_the_whole_network_does():
    assert set(after_stream(online()).learner.params) == {"head.weight", "head.bias"}
    assert {"first.weight", "head.weight"} <= set(after_stream(online(learns_all=True)).learner.params)
    assert [adapts_backbone(online(learns_all=answer)) for answer in (True, False)] == [True, False]
    assert isinstance(online(), WithStream)
    assert isinstance(online(), WithChoice)


def test_from_scratch_a_step_is_gradient_descent_on_the_whole_network():
    algorithm = online(learns_all=True, test_inner_lrs=(0.1,))
    params, state = testing.start(algorithm)
    first = algorithm.first(params, state, CLASSES, KEY)
    support = trajectory().support
    assert torch.equal(algorithm.features(params, state, support.x), support.x)
    after = algorithm.learn(first, support.x[:1], support.y[:1], KEY)
    weights = {name: value.clone().requires_grad_() for name, value in first.learner.params.items()}
    z = algorithm.network.on_support(weights, state, support._replace(x=support.x[:1]), training=False)
    F.cross_entropy(F.linear(z, weights["head.weight"], weights["head.bias"]), support.y[:1]).backward()
    for name, value in weights.items():
        assert value.grad is not None
        torch.testing.assert_close(after.learner.params[name], (value - 0.1 * value.grad).detach())


def test_replay_learns_from_the_new_example_and_from_those_of_the_buffer():
    plain, replay = online(), online(replay=3, buffer=2)
    assert plain.start(*testing.start(plain), CLASSES, KEY).buffer is None
    assert torch.equal(after_stream(plain, 1).learner.params["head.weight"], after_stream(replay, 1).learner.params["head.weight"])
    assert not torch.equal(after_stream(plain, 2).learner.params["head.weight"], after_stream(replay, 2).learner.params["head.weight"])
    buffer = after_stream(replay).buffer
    assert buffer is not None
    assert int(buffer.seen) == 4
    assert buffer.x.shape == (2, 12)


@pytest.mark.parametrize("options", [{}, {"learns_all": True}, {"replay": 2, "buffer": 3}, {"learns_all": True, "replay": 2}])
def test_adapting_to_a_support_set_is_one_pass_of_the_stream(options: dict[str, Any]):
    algorithm, episode = online(**options), trajectory()
    params, state = testing.start(algorithm)
    ready = algorithm.adapt(params, state, episode.support, KEY)
    learner = algorithm.start(params, state, CLASSES, KEY)
    features = algorithm.features(params, state, episode.support.x)
    for number, key in enumerate(testing.draws.fold(KEY, torch.arange(len(features)))):
        learner = algorithm.learn(learner, features[number : number + 1], episode.support.y[number : number + 1], key)
    expected = algorithm.answer(learner, algorithm.features(params, state, episode.query.x))
    torch.testing.assert_close(algorithm.predict(ready, episode.query.x), expected)


def test_a_buffer_without_a_place_is_refused():
    with pytest.raises(UserError, match=r"algo.replay=-1 must not be negative and algo.buffer=200"):
        online(replay=-1)


def test_the_output_layer_starts_at_zero_unless_it_is_to_be_random():
    params, state = testing.start(online())
    zero, random = (online(test_head=start).start(params, state, 3, KEY).learner.params["head.weight"] for start in ("zero", "random"))
    assert zero.abs().max() == 0.0 < random.abs().max()
    assert zero.shape == random.shape
