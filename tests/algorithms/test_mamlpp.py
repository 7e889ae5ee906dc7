"""MAML++'s parts, one by one: their formulas by hand, and what each leaves as it was."""

from __future__ import annotations

from dataclasses import replace
from typing import Any

import pytest
import torch
from small import conv_network, few_shot
from torch import Tensor, nn

from metarun import testing
from metarun.algorithms.maml import Maml
from metarun.algorithms.mamlpp import INNER_LR, MamlPlusPlus, annealed, at_step, one_per_step, statistics_per_step, step_weights
from metarun.engine.training import gradients_of
from metarun.episodes import deal
from metarun.errors import UserError
from metarun.layers.norm import MODES
from metarun.network import Network
from metarun.objectives import CLASSIFICATION, REGRESSION
from metarun.types import Algorithm, Episode, Examples, Params

KEY = torch.tensor(1)
START = torch.tensor(0)
A = 0.07
OFF: dict[str, Any] = {"learn_inner_lr": False, "multi_step_loss_share": 0, "first_order_share": 0, "per_step_norm": False}


def plus_plus(network: Network, **options: Any) -> MamlPlusPlus:
    """MAML++ for classification with the parts that the options turn on, and no other."""
    return MamlPlusPlus(network, CLASSIFICATION, **{"inner_steps": 1, **OFF, **options})


def linear(**options: Any) -> tuple[MamlPlusPlus, Params, Episode]:
    """A linear model with a bias under mean squared error, and an episode of 6 support and 4 query points in 3 dimensions."""
    algorithm = MamlPlusPlus(Network(nn.Linear(3, 1)), REGRESSION, **{"inner_lr": A, "inner_steps": 3, **OFF, **options})
    params = {name: torch.randn_like(value, dtype=torch.float64) for name, value in testing.start(algorithm)[0].items()}
    x, y = torch.randn(10, 3, dtype=torch.float64), torch.randn(10, 1, dtype=torch.float64)
    return algorithm, params, Episode(Examples(x[:6], y[:6]), Examples(x[6:], y[6:]))


def image_episode() -> Episode:
    episode: Episode = testing.double(few_shot().episode("train", 0))
    return episode


def perturbed(params: Params, size: float = 0.1) -> Params:
    return {name: value + size * torch.randn_like(value) for name, value in params.items()}


def value_and_gradient(
    algorithm: Algorithm, params: Params, state: Params, episode: Episode, step: Tensor = START
) -> tuple[Tensor, Params]:
    leaves = {name: value.clone().requires_grad_() for name, value in params.items()}
    loss, _ = algorithm.loss(leaves, state, episode, KEY, step)
    gradients = torch.autograd.grad(loss, list(leaves.values()), materialize_grads=True)
    return loss.detach(), dict(zip(leaves, gradients, strict=True))


def query_losses(algorithm: MamlPlusPlus, params: Params, state: Params, episode: Episode) -> list[Tensor]:
    """The query loss after each inner step, from the path that evaluation takes."""
    query = episode.query
    path = algorithm.trajectory(params, state, episode.support, KEY)[1:]
    return [algorithm.objective.loss(algorithm.predict(fitted, query.x), query.y) for fitted in path]


@pytest.mark.parametrize("options", [{}, {"first_order": True}, {"adapts": ["head.*"]}, {"inner_loss": "sum_over_shot"}], ids=str)
def test_with_every_part_off_it_is_maml_to_the_last_bit(options: dict[str, Any]):
    same = {"inner_lr": 0.3, "inner_steps": 2, **options}
    ours, maml = plus_plus(conv_network(), **same), Maml(conv_network(), CLASSIFICATION, **same)
    found, expected = (value_and_gradient(each, *testing.start(each), image_episode()) for each in (ours, maml))
    testing.assert_same(found, expected, "the loss and its gradient", tolerance=0.0)


# Multi-step loss.


def released_weights(epoch: int, steps: int, epochs: int) -> list[float]:
    """The rule of the released code, with an epoch as its unit of time."""
    decay, least = 1.0 / steps / epochs, 0.03 / steps
    earlier = [max(1.0 / steps - epoch * decay, least)] * (steps - 1)
    return [*earlier, min(1.0 / steps + epoch * (steps - 1) * decay, 1.0 - (steps - 1) * least)]


@pytest.mark.parametrize("epoch", [0, 1, 5, 9])
def test_the_weights_of_the_steps_are_the_released_codes_while_they_anneal(epoch: int):
    found = step_weights(torch.tensor(500 * epoch), 5, 5000)
    torch.testing.assert_close(found, torch.tensor(released_weights(epoch, 5, 10), dtype=torch.float64))


def test_the_weights_by_hand():
    """Of 5 steps: even at first, half of the way at half the time, 0.03/5 each just before the end, and then the last step alone."""
    for step, earlier in ((0, 0.2), (50, 0.1), (99, 0.006), (100, 0.0), (1000, 0.0)):
        found = step_weights(torch.tensor(step), 5, 100)
        torch.testing.assert_close(found, torch.tensor([earlier] * 4 + [1 - 4 * earlier], dtype=torch.float64), rtol=1e-12, atol=1e-12)
    assert step_weights(torch.tensor(7), 1, 100).tolist() == [1.0]


@pytest.mark.parametrize("step", [0, 30, 100])
def test_the_multi_step_loss_is_the_weighted_sum_over_inner_steps(step: int):
    algorithm, params, episode = linear(multi_step_loss_share=0.1, train_steps=1000)
    expected = step_weights(torch.tensor(step), 3, 100) @ torch.stack(query_losses(algorithm, params, {}, episode))
    loss, aux = algorithm.loss(params, {}, episode, KEY, torch.tensor(step))
    torch.testing.assert_close(loss, expected, rtol=1e-12, atol=1e-12)
    torch.testing.assert_close(aux.metrics["loss"], query_losses(algorithm, params, {}, episode)[-1], rtol=1e-12, atol=1e-12)


def test_after_its_annealing_the_multi_step_loss_is_mamls():
    algorithm, params, episode = linear(multi_step_loss_share=0.1, train_steps=1000)
    found = value_and_gradient(algorithm, params, {}, episode, torch.tensor(100))
    plain = value_and_gradient(replace(algorithm, multi_step_loss_share=0), params, {}, episode)
    testing.assert_same(found, plain, "the last step alone")
    before = value_and_gradient(algorithm, params, {}, episode, torch.tensor(99))
    assert (before[0] - plain[0]).abs() > 1e-6


# Learned rates.


def test_there_is_a_rate_for_each_tensor_and_step_and_it_starts_at_inner_lr():
    algorithm = plus_plus(conv_network(), inner_lr=0.1, inner_steps=3, learn_inner_lr=True)
    params, _ = algorithm.init(KEY)
    rates = {name.removeprefix(INNER_LR): value for name, value in params.items() if name.startswith(INNER_LR)}
    assert set(rates) == set(algorithm.inner.chosen(algorithm.network.init()[0]))
    assert all(value.tolist() == [pytest.approx(0.1)] * 3 for value in rates.values())


def test_each_inner_step_takes_its_own_rate_for_each_tensor():
    """θ_{i+1} = θ_i - α_{l,i} ∇L, with ∇L of the linear model by hand: 2 Xᵀr/B for the weight and 2 mean(r) for the bias."""
    algorithm, params, episode = linear(learn_inner_lr=True)
    rates = {INNER_LR + "weight": torch.tensor([0.1, -0.05, 0.02]).double(), INNER_LR + "bias": torch.tensor([0.2, 0.01, 0.3]).double()}
    (x, y), weight, bias = episode.support[:2], params["weight"][0], params["bias"][0]
    for i in range(3):
        residual = x @ weight + bias - y[:, 0]
        weight = weight - rates[INNER_LR + "weight"][i] * 2.0 * x.T @ residual / len(x)
        bias = bias - rates[INNER_LR + "bias"][i] * 2.0 * residual.mean()
    adapted = algorithm.adapt({**params, **rates}, {}, episode.support, KEY).params
    testing.assert_same({"weight": weight[None], "bias": bias[None]}, adapted, "the adapted parameters", tolerance=1e-12)


def test_the_gradient_of_a_rate_is_minus_the_product_of_support_and_query_gradients():
    """One step: dL(θ - α g)/dα = -g · ∇L(θ', query), tensor by tensor."""
    algorithm, params, episode = linear(learn_inner_lr=True, inner_steps=1)
    weights = {name: params[name] for name in ("weight", "bias")}
    adapted = algorithm.adapt(params, {}, episode.support, KEY).params
    support, query = (
        algorithm.inner.slope(point, {}, part, training=True).gradients
        for point, part in ((weights, episode.support), (adapted, episode.query))
    )
    _, gradients = value_and_gradient(algorithm, params, {}, episode)
    for name in weights:
        torch.testing.assert_close(gradients[INNER_LR + name], -(support[name] * query[name]).sum()[None], rtol=1e-10, atol=1e-12)


def test_a_test_of_more_steps_than_were_trained_goes_on_with_the_last_rate():
    algorithm, params, episode = linear(learn_inner_lr=True, test_inner_steps=5)
    rates = {name: value for name, value in params.items() if name.startswith(INNER_LR)}
    longer = replace(algorithm, inner_steps=5)
    repeated = {name: torch.cat([value, value[-1:], value[-1:]]) for name, value in rates.items()}
    one, other = (
        each.adapt({**params, **given}, {}, episode.support, KEY).params for each, given in ((algorithm, rates), (longer, repeated))
    )
    testing.assert_same(one, other, "the adapted parameters", tolerance=0.0)


# Annealing of the order of derivatives.


@pytest.mark.parametrize(("step", "first_order"), [(0, True), (9, True), (10, False), (50, False)])
def test_the_order_of_derivatives_is_first_until_its_share_of_the_steps_is_over_and_second_from_there(step: int, first_order: bool):
    algorithm = plus_plus(conv_network(), inner_lr=0.3, inner_steps=2, first_order_share=0.25, train_steps=40)
    params, state = testing.start(algorithm)
    found = value_and_gradient(algorithm, params, state, image_episode(), torch.tensor(step))
    plain = replace(algorithm, first_order_share=0, first_order=first_order)
    testing.assert_same(found, value_and_gradient(plain, params, state, image_episode()), "the order", tolerance=1e-12)


def test_annealing_changes_no_value():
    g = torch.randn(3, dtype=torch.float64)
    for second_order in (True, False):
        assert torch.equal(annealed({"w": g}, torch.tensor(second_order))["w"], g)


# Normalisation per step.


def test_rows_are_taken_by_step_the_first_before_and_the_last_after():
    stacked = one_per_step({"a": torch.tensor([1.0, 2.0]), "b": torch.tensor(5.0)}, {"a"}, 3)
    assert stacked["a"].shape == (3, 2)
    assert stacked["b"].shape == ()
    stacked["a"] += torch.arange(3.0)[:, None]
    assert [at_step(stacked, {"a"}, step)["a"].tolist() for step in (-1, 0, 2, 9)] == [[1, 2], [1, 2], [3, 4], [3, 4]]


def test_a_single_row_for_all_steps_gives_what_mamls_norms_give():
    plain = Maml(conv_network(), CLASSIFICATION, inner_lr=0.3, inner_steps=3)
    per_step = plus_plus(conv_network(), inner_lr=0.3, inner_steps=3, per_step_norm=True)
    loss, gradients = value_and_gradient(plain, *testing.start(plain), image_episode())
    loss_per_step, gradients_per_step = value_and_gradient(per_step, *testing.start(per_step), image_episode())
    torch.testing.assert_close(loss, loss_per_step, rtol=1e-12, atol=1e-12)
    for name, gradient in gradients.items():
        found = gradients_per_step[name].sum(dim=0) if name in plain.network.norm_params else gradients_per_step[name]
        torch.testing.assert_close(gradient, found, rtol=1e-9, atol=1e-12)


def test_each_step_has_its_own_scales_and_shifts_and_the_query_those_of_the_last():
    algorithm = plus_plus(conv_network(), inner_lr=0.3, inner_steps=2, per_step_norm=True)
    params, state = testing.start(algorithm)
    params, episode, network = perturbed(params, 0.3), image_episode(), algorithm.network
    rows = [{name: value[i] if name in network.norm_params else value for name, value in params.items()} for i in range(2)]
    plain = Maml(network, CLASSIFICATION, inner_lr=0.3, inner_steps=1)
    once = plain.adapt(rows[0], {}, episode.support, KEY, training=True).params
    second = {name: rows[1][name] if name in network.norm_params else value for name, value in once.items()}
    twice = plain.adapt(second, {}, episode.support, KEY, training=True)
    expected = CLASSIFICATION.loss(plain.predict(twice, episode.query.x), episode.query.y)
    torch.testing.assert_close(algorithm.loss(params, state, episode, KEY, START)[0], expected, rtol=1e-12, atol=1e-12)


@pytest.mark.parametrize("norm", MODES)
def test_the_support_pass_that_tracks_statistics_gives_the_outputs_of_the_one_that_does_not(norm: str):
    network = conv_network(norm)
    params, state = testing.double(network.init())
    for support in (image_episode().support, testing.double(few_shot(min_ways=2).episode("train", 0)).support):
        plain = network.on_support(params, state, support, training=True)
        outputs, seen = network.on_support_seen(params, state, support)
        torch.testing.assert_close(outputs, plain, rtol=1e-12, atol=1e-12)
        assert set(seen) == {name.removeprefix("running.") for name in state}


def test_running_statistics_of_a_step_are_of_its_support_and_query_passes():
    one, two, three = ({"n.mean": torch.tensor([value])} for value in (1.0, 2.0, 4.0))
    assert statistics_per_step([one, two], [three])["n.mean"].tolist() == [[1.0], [3.0]]
    assert statistics_per_step([one, two], [two, three])["n.mean"].tolist() == [[1.5], [3.0]]


@pytest.mark.parametrize("multi_step", [0, 0.1])
def test_running_statistics_are_tracked_and_read_step_by_step(multi_step: float):
    """Row i is tracked in training at step i, and normalises what happens at step i of a test with norm=running."""
    algorithm = plus_plus(conv_network("running"), inner_steps=2, per_step_norm=True, multi_step_loss_share=multi_step)
    params, state = testing.start(algorithm)
    batch, keys = testing.first_episodes(few_shot(), 2)
    _, _, aux = gradients_of(algorithm, params, state, batch, keys, START)
    after = algorithm.update_state(state, aux.state)
    assert all(value.shape[0] == 2 and not torch.equal(value[0], value[1]) for value in after.values())
    support = image_episode().support
    path = algorithm.trajectory(params, after, support, KEY)
    for row, changed in ((0, [False, True, True]), (1, [False, False, True])):
        # A mean that differs by a constant would be taken out by the next norm; one that differs by channel is not.
        moved = {n: v + torch.eye(2, dtype=v.dtype)[row][:, None] * torch.rand(v.shape[1], dtype=v.dtype) for n, v in after.items()}
        other = algorithm.trajectory(params, moved, support, KEY)
        found = [any(not torch.equal(a.params[n], b.params[n]) for n in a.params) for a, b in zip(path, other, strict=True)]
        assert found == changed


# All together.


ALL: dict[str, Any] = {
    "learn_inner_lr": True,
    "multi_step_loss_share": 0.1,
    "first_order_share": 0.005,
    "train_steps": 1000,
    "per_step_norm": True,
    "inner_steps": 2,
}


@pytest.mark.parametrize("norm", ["batch", "support", "layer"])
def test_the_gradient_by_all_parameters_equals_finite_differences(norm: str):
    algorithm = plus_plus(conv_network(norm), inner_lr=0.2, **ALL)
    params, state = testing.start(algorithm)
    params, episode = perturbed(params), image_episode()
    sizes = [value.numel() for value in params.values()]

    def loss(vector: Tensor) -> Tensor:
        parts = zip(params.items(), vector.split(sizes), strict=True)
        return algorithm.loss({name: part.reshape(value.shape) for (name, value), part in parts}, state, episode, KEY, torch.tensor(20))[0]

    assert torch.autograd.gradcheck(loss, torch.cat([value.flatten() for value in params.values()]).requires_grad_(), fast_mode=True)


@pytest.mark.parametrize("step", [0, 20])
def test_recomputed_inner_steps_give_the_same_gradient_and_statistics(step: int):
    algorithm = plus_plus(conv_network(), inner_lr=0.2, **ALL)
    params, state = testing.start(algorithm)
    batch = testing.double(deal(few_shot(), "train", torch.arange(2)))
    plain, recomputed = (
        gradients_of(replace(algorithm, recompute=flag), params, state, batch, torch.arange(2), torch.tensor(step))
        for flag in (False, True)
    )
    testing.assert_same(plain, recomputed, "recompute", tolerance=1e-12)


@pytest.mark.parametrize(
    ("options", "words"),
    [
        ({"multi_step_loss_share": -0.1}, "algo.multi_step_loss_share=-0.1 must be a share of the steps, from 0 to 1"),
        ({"multi_step_loss_share": 400}, "algo.multi_step_loss_share=400 must be a share"),
        ({"first_order_share": 1.5}, "algo.first_order_share=1.5 must be a share"),
        ({"train_steps": -3}, "algo.train_steps=-3 must not be negative"),
        ({"per_step_norm": True, "adapt_norm": True}, "set algo.adapt_norm to false"),
        ({"per_step_norm": True, "inner_steps": 0}, "algo.inner_steps=0 leaves nothing to learn per step"),
    ],
)
def test_a_bad_option_is_a_sentence(options: dict[str, Any], words: str):
    with pytest.raises(UserError, match=words):
        plus_plus(conv_network(), **options)
