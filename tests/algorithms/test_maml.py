"""MAML's mathematics: closed forms on least squares, an independent loop with torch's own batch norm, and numerical derivatives."""

from __future__ import annotations

from dataclasses import replace
from typing import Any

import pytest
import torch
from small import SmallConv, conv_network, few_shot
from torch import Tensor, nn
from torch.func import functional_call
from torch.nn import functional as F

from metarun import testing
from metarun.algorithms.maml import Maml
from metarun.backbones.classifier import Classifier
from metarun.engine.training import gradients_of
from metarun.episodes import deal
from metarun.errors import UserError
from metarun.layers.norm import MODES
from metarun.network import Network
from metarun.objectives import CLASSIFICATION, REGRESSION
from metarun.types import Episode, Examples, Params

KEY = torch.tensor(1)
STEP = torch.tensor(0)
A = 0.07


def least_squares(**options: Any) -> tuple[Maml, Params, Episode]:
    """A linear model y = w.x with mean squared error, and one episode of 6 support and 4 query points in 3 dimensions."""
    algorithm = Maml(Network(nn.Linear(3, 1, bias=False)), REGRESSION, **{"inner_lr": A, **options})
    x, y = torch.randn(10, 3, dtype=torch.float64), torch.randn(10, 1, dtype=torch.float64)
    return algorithm, {"weight": torch.randn(1, 3, dtype=torch.float64)}, Episode(Examples(x[:6], y[:6]), Examples(x[6:], y[6:]))


def slope(w: Tensor, examples: Examples) -> Tensor:
    """The gradient of |Xw - y|²/B, that is 2 Xᵀ(Xw - y)/B."""
    x, y = examples.x, examples.y[:, 0]
    return 2.0 * x.T @ (x @ w - y) / len(x)


def curvature(examples: Examples) -> Tensor:
    """The Hessian of |Xw - y|²/B, that is H = 2 XᵀX/B."""
    return 2.0 * examples.x.T @ examples.x / len(examples.x)


def meta_gradient(algorithm: Maml, params: Params, episode: Episode) -> Tensor:
    leaf = params["weight"].clone().requires_grad_()
    loss, _ = algorithm.loss({"weight": leaf}, {}, episode, KEY, STEP)
    return torch.autograd.grad(loss, leaf)[0][0]


def test_an_inner_step_is_a_gradient_step_on_the_support_loss():
    """θ' = θ - α 2 Xᵀ(Xθ - y)/B."""
    algorithm, params, episode = least_squares()
    w = params["weight"][0]
    adapted = algorithm.adapt(params, {}, episode.support, KEY)
    torch.testing.assert_close(adapted.params["weight"][0], w - A * slope(w, episode.support), rtol=1e-12, atol=1e-12)


@pytest.mark.parametrize("steps", [0, 1, 2, 5])
def test_second_order_meta_gradient_equals_the_closed_form(steps: int):
    """The support loss is quadratic, so dθ'/dθ of k steps is (I - αH)^k, and the meta-gradient (I - αH)^k g with g the query
    gradient at θ'. H is symmetric, so its transpose is itself.
    """
    algorithm, params, episode = least_squares(inner_steps=steps)
    w, I, H = params["weight"][0], torch.eye(3, dtype=torch.float64), curvature(episode.support)
    for _ in range(steps):
        w = w - A * slope(w, episode.support)
    expected = torch.linalg.matrix_power(I - A * H, steps) @ slope(w, episode.query)
    torch.testing.assert_close(meta_gradient(algorithm, params, episode), expected, rtol=1e-11, atol=1e-11)


@pytest.mark.parametrize("steps", [1, 3])
def test_first_order_meta_gradient_equals_the_query_gradient_at_the_adapted_point(steps: int):
    algorithm, params, episode = least_squares(inner_steps=steps, first_order=True)
    w = params["weight"][0]
    for _ in range(steps):
        w = w - A * slope(w, episode.support)
    torch.testing.assert_close(meta_gradient(algorithm, params, episode), slope(w, episode.query), rtol=1e-11, atol=1e-11)


def test_the_optimum_of_the_meta_loss_is_where_the_closed_form_says():
    """The meta-loss of one task is quadratic too; at w* = argmin of |Xq θ'(w) - yq|² its gradient is zero.
    θ'(w) = M w + b with M = I - αH, b = α 2 Xᵀy/B, so Xq M w* = yq - Xq b in the least-squares sense.
    """
    algorithm, _, episode = least_squares()
    (x, y), query = episode.support[:2], episode.query
    M, b = torch.eye(3, dtype=torch.float64) - A * curvature(episode.support), A * 2.0 * x.T @ y[:, 0] / len(x)
    best = torch.linalg.lstsq(query.x @ M, (query.y[:, 0] - query.x @ b)[:, None]).solution
    assert meta_gradient(algorithm, {"weight": best.T}, episode).abs().max() < 1e-12


def reference(params: Params, episode: Episode, algorithm: Maml, adapts: set[str]) -> tuple[Tensor, Params]:
    """Compute MAML's query loss the plain way: torch's own BatchNorm2d in training mode, autograd with create_graph, a loop."""
    module = Classifier(SmallConv(), 3).double()
    module.train()
    fast = dict(params)

    def loss(weights: Params, examples: Examples) -> Tensor:
        return F.cross_entropy(functional_call(module, weights, (examples.x,)), examples.y.argmax(dim=1))

    for _ in range(algorithm.inner_steps):
        point = {name: value.detach() if algorithm.first_order else value for name, value in fast.items()}
        point = {name: value.requires_grad_() if algorithm.first_order else value for name, value in point.items()}
        scale = 3.0 if algorithm.inner_loss == "sum_over_shot" else 1.0
        gradients = torch.autograd.grad(scale * loss(point, episode.support), [point[name] for name in sorted(adapts)], create_graph=True)
        steps = dict(zip(sorted(adapts), gradients, strict=True))
        steps = {name: value.detach() if algorithm.first_order else value for name, value in steps.items()}
        fast = {name: value - algorithm.inner_lr * steps[name] if name in adapts else value for name, value in fast.items()}
    return loss(fast, episode.query), fast


def image_episode() -> Episode:
    episode: Episode = testing.double(few_shot().episode("train", 0))
    return episode


NORM_NAMES = {"body.first_norm.weight", "body.first_norm.bias", "body.second_norm.weight", "body.second_norm.bias"}


@pytest.mark.parametrize(
    "options",
    [
        {"inner_steps": 1},
        {"inner_steps": 3},
        {"inner_steps": 3, "first_order": True},
        {"inner_steps": 2, "inner_loss": "sum_over_shot"},
        {"inner_steps": 2, "adapt_norm": True},
        {"inner_steps": 2, "adapts": ["head.*"]},
        {"inner_steps": 2, "adapts": ["body.*"], "first_order": True},
    ],
    ids=str,
)
def test_loss_and_meta_gradient_equal_a_plain_loop_with_torchs_batch_norm(options: dict[str, Any]):
    algorithm = Maml(conv_network(), CLASSIFICATION, inner_lr=0.3, **options)
    params, state = testing.start(algorithm)
    episode = image_episode()
    adapts = {name for name in params if name.split(".")[0] in "".join(options.get("adapts", ["body head"]))}
    if not options.get("adapt_norm"):
        adapts -= NORM_NAMES
    leaves = {name: value.clone().requires_grad_() for name, value in params.items()}
    expected, fast = reference(leaves, episode, algorithm, adapts)
    wanted = torch.autograd.grad(expected, list(leaves.values()), allow_unused=True)
    loss, _ = algorithm.loss(leaves, state, episode, KEY, STEP)
    found = torch.autograd.grad(loss, list(leaves.values()), allow_unused=True)
    torch.testing.assert_close(loss, expected, rtol=1e-10, atol=1e-12)
    for name, a, b in zip(leaves, found, wanted, strict=True):
        torch.testing.assert_close(a, b, rtol=1e-8, atol=1e-10, msg=lambda text, name=name: f"{name}: {text}")
    adapted = algorithm.adapt(params, state, episode.support, KEY, training=True)
    testing.assert_same({name: adapted.params[name] for name in fast}, fast, "the adapted weights")


@pytest.mark.parametrize(("patterns", "untouched"), [(["head.*"], "body."), (["body.*"], "head.")])
def test_only_the_parameters_that_adapts_names_change(patterns: list[str], untouched: str):
    algorithm = Maml(conv_network(), CLASSIFICATION, inner_steps=2, adapts=patterns, adapt_norm=True)
    params, state = testing.start(algorithm)
    fast = algorithm.adapt(params, state, image_episode().support, KEY).params
    for name, value in params.items():
        assert torch.equal(value, fast[name]) == name.startswith(untouched), name


@pytest.mark.parametrize("adapt_norm", [False, True])
def test_scales_and_shifts_of_norms_adapt_only_where_adapt_norm_says_so(adapt_norm: bool):
    algorithm = Maml(conv_network(), CLASSIFICATION, adapt_norm=adapt_norm)
    params, state = testing.start(algorithm)
    fast = algorithm.adapt(params, state, image_episode().support, KEY).params
    for name in params:
        moved = not torch.equal(params[name], fast[name])
        # A bias before a batch norm has no effect, so its gradient is zero up to rounding.
        if not name.endswith(("first.bias", "second.bias")):
            assert moved == (adapt_norm or name not in NORM_NAMES), name


def test_sum_over_shot_is_a_mean_with_a_rate_times_the_ways():
    episode, network = image_episode(), conv_network()
    summed = Maml(network, CLASSIFICATION, inner_lr=0.1, inner_loss="sum_over_shot", inner_steps=2)
    mean = Maml(network, CLASSIFICATION, inner_lr=0.3, inner_steps=2)
    params, state = testing.start(mean)
    one, other = (each.adapt(params, state, episode.support, KEY).params for each in (summed, mean))
    testing.assert_same(one, other, "the fast weights")


def test_test_inner_steps_hold_at_test_only():
    algorithm, params, episode = least_squares(inner_steps=2, test_inner_steps=4)
    path = algorithm.trajectory(params, {}, episode.support, KEY)
    assert len(path) == 5
    w = params["weight"][0]
    for fitted in path:
        torch.testing.assert_close(fitted.params["weight"][0], w, rtol=1e-12, atol=1e-12)
        w = w - A * slope(w, episode.support)
    at_test = algorithm.adapt(params, {}, episode.support, KEY).params["weight"]
    in_training = algorithm.adapt(params, {}, episode.support, KEY, training=True).params["weight"]
    assert torch.equal(at_test, path[4].params["weight"])
    assert torch.equal(in_training, path[2].params["weight"])


def test_without_test_inner_steps_there_are_as_many_as_in_training():
    algorithm, params, episode = least_squares(inner_steps=3)
    assert len(algorithm.trajectory(params, {}, episode.support, KEY)) == 4


def check_derivative(algorithm: Maml, *, second: bool = False) -> None:
    """Compare the loss's gradient by all parameters, as one vector, with finite differences; or the gradient's own gradient."""
    params, state = testing.start(algorithm)
    episode: Episode = testing.double(few_shot(ways=3, shots=1, queries=1).episode("train", 1))
    sizes = [value.numel() for value in params.values()]

    def loss(vector: Tensor) -> Tensor:
        parts = zip(params.items(), vector.split(sizes), strict=True)
        return algorithm.loss({name: part.reshape(value.shape) for (name, value), part in parts}, state, episode, KEY, STEP)[0]

    vector = torch.cat([value.flatten() for value in params.values()]).requires_grad_()
    if second:
        assert torch.autograd.gradgradcheck(loss, vector, fast_mode=True)
    else:
        assert torch.autograd.gradcheck(loss, vector, fast_mode=True)


@pytest.mark.parametrize("norm", MODES)
def test_gradcheck_passes_through_adaptation(norm: str):
    """The loss holds the network's first derivatives, so its gradient holds second ones, those of every norm mode included."""
    check_derivative(Maml(conv_network(norm), CLASSIFICATION, inner_lr=0.2, inner_steps=2, adapt_norm=True))


@pytest.mark.parametrize("norm", MODES)
def test_gradgradcheck_passes_for_the_network_itself(norm: str):
    check_derivative(Maml(conv_network(norm), CLASSIFICATION, inner_steps=0), second=True)


def test_the_meta_gradient_of_a_batch_is_the_sum_over_its_tasks():
    algorithm, params, _ = least_squares()
    episodes = [least_squares()[2] for _ in range(3)]
    batch = Episode(
        *(Examples(*(torch.stack([getattr(e, part)._asdict()[f] for e in episodes]) for f in ("x", "y"))) for part in ("support", "query"))
    )
    found = gradients_of(algorithm, params, {}, batch, torch.arange(3), STEP)[0]["weight"][0]
    testing.assert_same(found, sum(meta_gradient(algorithm, params, episode) for episode in episodes), "the sum")


def test_the_classes_may_come_in_any_order():
    """Permuting the labels permutes the head's rows of the adapted network and its outputs; the loss is the same."""
    algorithm = Maml(conv_network(), CLASSIFICATION, inner_steps=2)
    params, state = testing.start(algorithm)
    support, query = image_episode()
    order = torch.tensor([2, 0, 1])
    turned = {name: value[order] if name.startswith("head.") else value for name, value in params.items()}
    renamed = Episode(support._replace(y=support.y[:, order]), query._replace(y=query.y[:, order]))
    loss, _ = algorithm.loss(params, state, Episode(support, query), KEY, STEP)
    same, _ = algorithm.loss(turned, state, renamed, KEY, STEP)
    torch.testing.assert_close(loss, same, rtol=1e-12, atol=1e-12)
    outputs = algorithm.predict(algorithm.adapt(params, state, support, KEY), query.x)
    outputs_renamed = algorithm.predict(algorithm.adapt(turned, state, renamed.support, KEY), query.x)
    torch.testing.assert_close(outputs[:, order], outputs_renamed, rtol=1e-11, atol=1e-11)


@pytest.mark.parametrize(
    ("options", "words"),
    [
        ({"inner_steps": -1}, "algo.inner_steps=-1"),
        ({"test_inner_steps": -2}, "algo.test_inner_steps=-2"),
        ({"inner_loss": "sum"}, "algo.inner_loss=sum is unknown"),
        ({"adapts": ["haed.*"]}, "matches none of the parameters"),
    ],
)
def test_a_bad_option_is_a_sentence(options: dict[str, Any], words: str):
    with pytest.raises(UserError, match=words):
        replace(Maml(conv_network(), CLASSIFICATION), **options)


@pytest.mark.parametrize("tasks", [1, 3])
def test_recomputed_inner_steps_give_the_same_second_order_gradient(tasks: int):
    """Exactly the same operations, only later: with one task as it is, and mapped over several."""
    algorithm = Maml(conv_network(), CLASSIFICATION, inner_lr=0.1, inner_steps=3)
    params, state = testing.start(algorithm)
    batch = testing.double(deal(few_shot(), "train", torch.arange(tasks)))
    plain, recomputed = (
        gradients_of(replace(algorithm, recompute=recompute), params, state, batch, torch.arange(tasks), STEP)
        for recompute in (False, True)
    )
    testing.assert_same(plain, recomputed, "recompute", tolerance=1e-12)
