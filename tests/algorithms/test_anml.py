"""ANML: its meta-gradient by finite differences, what the inner loop changes, and what learns at test."""

from __future__ import annotations

from typing import Any

import pytest
import torch
from small import composed
from torch.func import grad
from trajectories import CLASSES, differences, largest_error, trajectory

from metarun import testing
from metarun.algorithms.anml import Anml
from metarun.backbones.gated import Gated
from metarun.network import Network
from metarun.objectives import CLASSIFICATION
from metarun.types import Params, WithStream
from metarun.wiring.build import build

KEY, STEP = torch.tensor(7), torch.tensor(0)


def anml(norm: str = "instance", **options: Any) -> Anml:
    torch.manual_seed(0)
    module = Gated((1, 8, 8), filters=3, gate_filters=2, strides=(1, 2), pools=(1, 1))
    return Anml(Network(module, norm), CLASSIFICATION, CLASSES, **({"inner_lr": 0.05} | options))  # type: ignore[arg-type]


def loss_of(algorithm: Anml) -> Any:
    _, state = testing.start(algorithm)
    return lambda params: algorithm.loss(params, state, trajectory((2,), 3), KEY, STEP)[0]


@pytest.mark.parametrize("adapts", [("*",), ("body.*",), ("none",)])
def test_the_meta_gradient_equals_central_differences_of_the_whole_outer_loss(adapts: tuple[str, ...]):
    algorithm = anml(adapts=adapts)
    params, _ = testing.start(algorithm)
    assert largest_error(differences(loss_of(algorithm), params, step=1e-6)) < 1e-6


@pytest.mark.parametrize("adapts", [("*",), ("none",)])
def test_a_first_order_meta_gradient_does_not_equal_them(adapts: tuple[str, ...]):
    algorithm = anml(adapts=adapts, first_order=True)
    params, _ = testing.start(algorithm)
    assert largest_error(differences(loss_of(algorithm), params, step=1e-6)) > 1e-2


def test_the_gate_learns_in_the_outer_loop_and_never_in_the_inner_loop():
    """With all of the gate's parameters among those that adapt, the loss stays the same: `gates` holds them."""
    params, _ = testing.start(anml())
    gradient = grad(loss_of(anml()))(params)
    assert all(gradient[name].abs().max() > 0.0 for name in params if name.startswith("gate."))
    torch.testing.assert_close(loss_of(anml())(params), loss_of(anml(adapts=("body.*",)))(params), rtol=0, atol=0)
    assert not torch.equal(loss_of(anml())(params), loss_of(anml(gates=("gate.*",)))(params))


def test_the_row_of_the_coming_class_is_new_so_its_old_values_have_no_gradient():
    params, _ = testing.start(anml())
    gradient = grad(loss_of(anml()))(params)
    assert gradient["head.weight"][2].abs().max() == 0.0
    assert (gradient["head.weight"][[0, 1, 3, 4]].abs().amax(dim=1) > 0.0).all()


def test_at_test_the_output_layer_alone_learns():
    algorithm = anml()
    params, state = testing.start(algorithm)
    learner = algorithm.first(params, state, 3, KEY)
    features = algorithm.features(params, state, trajectory().support.x)
    after = algorithm.learn(learner, features[:1], torch.eye(3, dtype=torch.float64)[:1], KEY)
    assert set(after.params) == {"weight", "bias"}
    assert not torch.equal(after.params["weight"], learner.params["weight"])
    assert algorithm.answer(after, features).shape == (4, 3)
    assert isinstance(algorithm, WithStream)


def test_adapting_to_a_support_set_is_one_pass_of_the_stream():
    algorithm, episode = anml(), trajectory()
    params, state = testing.start(algorithm)
    learner = algorithm.start(params, state, CLASSES, KEY)
    for z, y in zip(algorithm.features(params, state, episode.support.x), episode.support.y, strict=True):
        learner = algorithm.learn(learner, z[None], y[None], KEY)
    expected = algorithm.answer(learner, algorithm.features(params, state, episode.query.x))
    torch.testing.assert_close(algorithm.predict(algorithm.adapt(params, state, episode.support, KEY), episode.query.x), expected)


def test_an_image_alone_and_an_image_among_others_have_the_same_features():
    """The released code normalises each image by itself; so does norm=instance."""
    algorithm = anml()
    params, state = testing.start(algorithm)
    x = trajectory().query.x
    one_by_one = torch.cat([algorithm.features(params, state, image[None]) for image in x])
    torch.testing.assert_close(algorithm.features(params, state, x), one_by_one)


def named(params: Params, prefix: str) -> list[str]:
    return [name for name in params if name.startswith(prefix)]


def test_the_network_has_a_body_and_a_gate():
    params, _ = testing.start(anml())
    assert named(params, "body.")
    assert named(params, "modulator.")
    assert named(params, "gate.")


def test_the_default_inner_rate_depends_on_the_kind_of_task_and_a_given_one_does_not():
    """In classification it is the rate of the released code."""
    params, _ = testing.start(anml())
    default, released, smaller = (loss_of(anml(inner_lr=rate))(params) for rate in (None, 0.1, 0.003))
    assert torch.equal(default, released)
    assert not torch.equal(default, smaller)


@pytest.mark.parametrize("option", ["anml", "oml", "online", "replay"])
@pytest.mark.parametrize("task", ["sinusoid", "line"])
def test_the_defaults_of_a_learner_of_streams_do_not_diverge_in_regression(option: str, task: str):
    parts = build(composed(f"algo={option}", f"task={task}", "backbone=mlp", "device=cpu"))
    params, state = parts.algorithm.init(KEY)
    losses = [parts.algorithm.loss(params, state, parts.source.episode("train", index), KEY, STEP)[0] for index in range(10)]
    assert max(losses) < 100.0
