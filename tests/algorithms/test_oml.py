"""OML: its meta-gradient by finite differences, its inner loop by hand, and what its learner does on a stream."""

from __future__ import annotations

from dataclasses import replace
from typing import Any

import pytest
import torch
import torch.nn.functional as F
from small import conv_network
from torch import Tensor
from torch.func import grad
from trajectories import CLASSES, differences, largest_error, trajectory

from metarun import draws, testing
from metarun.algorithms.oml import Oml
from metarun.algorithms.parts.online import Learner, new_head, renewed
from metarun.errors import UserError
from metarun.objectives import CLASSIFICATION
from metarun.types import Episode, Examples, Params, WithChoice, WithStream, part_of

KEY, STEP = torch.tensor(7), torch.tensor(0)


def oml(norm: str = "none", **options: Any) -> Oml:
    return Oml(conv_network(norm, None), CLASSIFICATION, CLASSES, **({"inner_lr": 0.3} | options))


def loss_of(algorithm: Oml, episode: Episode | None = None) -> Any:
    _, state = testing.start(algorithm)
    return lambda params: algorithm.loss(params, state, episode or trajectory(), KEY, STEP)[0]


@pytest.mark.parametrize("widths", [(), (6,), (6, 4)])
@pytest.mark.parametrize("norm", ["none", "instance"])
def test_the_meta_gradient_equals_central_differences_of_the_whole_outer_loss(norm: str, widths: tuple[int, ...]):
    algorithm = oml(norm, prediction_widths=widths)
    params, _ = testing.start(algorithm)
    assert largest_error(differences(loss_of(algorithm), params)) < 1e-6


@pytest.mark.parametrize("widths", [(), (6,)])
def test_a_first_order_meta_gradient_does_not_equal_them(widths: tuple[int, ...]):
    algorithm = oml(prediction_widths=widths, first_order=True)
    params, _ = testing.start(algorithm)
    assert largest_error(differences(loss_of(algorithm), params)) > 1e-2


def test_first_order_changes_the_gradient_and_not_the_loss():
    params, _ = testing.start(oml())
    exact, first = (loss_of(oml(first_order=order)) for order in (False, True))
    torch.testing.assert_close(exact(params), first(params), rtol=0, atol=0)
    exact_gradient, first_gradient = grad(exact)(params), grad(first)(params)
    assert any(not torch.allclose(exact_gradient[name], first_gradient[name]) for name in params)


def test_the_loss_is_that_of_gradient_descent_on_copies_of_the_output_layer():
    """The inner loop as algorithm 2 of the paper writes it: one step on W and b for each example."""
    algorithm, episode = oml(), trajectory()
    params, state = testing.start(algorithm)
    embed = algorithm.network.on_support
    z = embed(params, state, episode.support, training=True)
    head = renewed(part_of(params, "head."), episode.support, draws.fold(KEY, "rows"))
    for row, label in zip(z, episode.support.y, strict=True):

        def inner(head: Params, row: Tensor = row, label: Tensor = label) -> Tensor:
            return F.cross_entropy(F.linear(row[None], head["weight"], head["bias"]), label[None])

        slopes = grad(inner)(head)
        head = {name: head[name] - 0.3 * slopes[name] for name in head}
    outputs = F.linear(embed(params, state, episode.query, training=True), head["weight"], head["bias"])
    torch.testing.assert_close(loss_of(algorithm)(params), F.cross_entropy(outputs, episode.query.y))


def test_the_rows_of_the_coming_classes_are_new_so_their_old_values_have_no_gradient():
    algorithm = oml()
    params, _ = testing.start(algorithm)
    gradient = grad(loss_of(algorithm))(params)
    assert gradient["head.weight"][[1, 3]].abs().max() == 0.0
    assert gradient["head.bias"][[1, 3]].abs().max() == 0.0
    assert (gradient["head.weight"][[0, 2, 4]].abs().amax(dim=1) > 0.0).all()


def test_the_stream_learns_the_prediction_network_alone():
    algorithm = oml(prediction_widths=(6,), test_optimizer="sgd")
    params, state = testing.start(algorithm)
    learner = algorithm.first(params, state, 3, KEY)
    x, y = trajectory().support.x, torch.eye(3, dtype=torch.float64)[[0, 0, 1, 2]]
    features = algorithm.features(params, state, x)
    torch.testing.assert_close(features, algorithm.network.on_support(params, state, Examples(x, y), training=False))
    after = learner
    for number in range(4):
        after = algorithm.learn(after, features[number : number + 1], y[number : number + 1], KEY)
    assert set(after.params) == {"prediction.0.weight", "prediction.0.bias", "head.weight", "head.bias"}
    assert all(not torch.equal(after.params[name], learner.params[name]) for name in after.params)
    assert algorithm.answer(after, features).shape == (4, 3)
    assert isinstance(algorithm, WithStream)


def test_at_test_the_output_layer_is_new_and_the_hidden_layers_are_those_of_meta_training():
    algorithm = oml(prediction_widths=(6,), test_head="random")
    params, state = testing.start(algorithm)
    learner = algorithm.start(params, state, 3, KEY)
    torch.testing.assert_close(learner.params["prediction.0.weight"], params["prediction.0.weight"])
    torch.testing.assert_close(
        learner.params["head.weight"], new_head(draws.fold(KEY, "head."), 3, 6, like=params["head.weight"])["weight"]
    )
    assert learner.params["head.bias"].abs().max() == 0.0
    assert oml(prediction_widths=(6,)).start(params, state, 3, KEY).params["head.weight"].abs().max() == 0.0


def test_a_letter_just_learned_is_known_and_known_less_later():
    """By plain gradient descent from weights of 0: the order of learning and scoring, and the columns, are right."""
    algorithm = oml(test_optimizer="sgd", test_inner_lrs=(0.1,))
    params, state = testing.start(algorithm)
    learner = algorithm.start(params, state, 4, KEY)
    z, y = torch.eye(4, dtype=torch.float64) + 1.0, torch.eye(4, dtype=torch.float64)
    margins = []
    for number in range(4):
        learner = algorithm.learn(learner, _wide(z[number : number + 1], learner), y[number : number + 1], KEY)
        outputs = algorithm.answer(learner, _wide(z[:1], learner))[0]
        margins.append(float(outputs[0] - outputs[1:].max()))
    assert margins[0] > 0.0
    assert margins == sorted(margins, reverse=True)


def test_adapting_to_a_support_set_is_one_pass_of_the_stream():
    algorithm = oml()
    params, state = testing.start(algorithm)
    episode = trajectory()
    ready = algorithm.adapt(params, state, episode.support, KEY)
    learner = algorithm.start(params, state, CLASSES, KEY)
    for z, y in zip(algorithm.features(params, state, episode.support.x), episode.support.y, strict=True):
        learner = algorithm.learn(learner, z[None], y[None], KEY)
    expected = algorithm.answer(learner, algorithm.features(params, state, episode.query.x))
    # The corrections of Adam's moments are computed in float32 in `adapt`, and more exactly in a stream.
    torch.testing.assert_close(algorithm.predict(ready, episode.query.x), expected, rtol=2e-5, atol=1e-6)


def test_the_best_rate_of_the_validation_is_chosen():
    algorithm = oml(test_inner_lrs=(0.001, 0.01, 0.1))
    _, state = testing.start(algorithm)
    scores = {0.001: float("nan"), 0.01: 0.7, 0.1: 0.6}
    chosen = algorithm.choose({}, state, lambda tried: {0: scores[round(float(tried["test_inner_lr"]), 4)]})
    assert float(chosen["test_inner_lr"]) == pytest.approx(0.01)
    assert isinstance(algorithm, WithChoice)


def test_a_normalisation_by_other_examples_is_refused_in_a_stream():
    algorithm = oml("batch")
    params, state = testing.start(algorithm)
    with pytest.raises(UserError, match="norm=batch normalises several examples together"):
        algorithm.features(params, state, trajectory().support.x)
    with pytest.raises(UserError, match=r"test_inner_lrs=\[0\.1, -1\.0\] must be one or more rates above 0"):
        replace(algorithm, test_inner_lrs=(0.1, -1.0))


def _wide(z: Tensor, learner: Learner) -> Tensor:
    """Return features (B, 4) with zeros up to the width of the output layer."""
    return F.pad(z, (0, learner.params["head.weight"].shape[1] - 4))
