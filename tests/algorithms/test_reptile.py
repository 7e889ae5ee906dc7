"""Reptile's update against parameter differences, and its serial chain against a plain loop with torch's own Adam."""

from __future__ import annotations

import math
from pathlib import Path
from typing import Any

import pytest
import torch
from small import Double, Lines, conv_network, dense_network, few_shot, run_engine
from torch import Tensor
from torch.func import functional_call
from torch.nn import functional as F

from metarun import draws, testing
from metarun.algorithms.parts.orders import mini_batches
from metarun.algorithms.reptile import SECOND, UPDATES, Reptile
from metarun.engine.evaluation import evaluate
from metarun.engine.training import gradients_of
from metarun.errors import UserError
from metarun.objectives import CLASSIFICATION, REGRESSION
from metarun.types import Episode, Examples, Params, State

STEP = torch.tensor(0)


def regression(**options: Any) -> Reptile:
    return Reptile(dense_network(), REGRESSION, **{"inner_lr": 0.01, "inner_steps": 3, "inner_batch": 4, "test_inner_steps": 2, **options})


def lines_episode(index: int = 0) -> Episode:
    episode: Episode = testing.double(Lines().episode("train", index))
    return episode


def plain_adam(weights: Params, optimizer: torch.optim.Adam, support: Examples, batches: list[Tensor], done: int) -> int:
    """Take torch's Adam over these mini-batches, in place; `done` counts all its steps, through all tasks."""
    module = dense_network().module
    for rows in batches:
        done += 1
        # torch adds eps to the corrected root, the paper's short form (and TensorFlow, and we) to the uncorrected one.
        optimizer.param_groups[0]["eps"] = 1e-8 / math.sqrt(1 - 0.999**done)
        optimizer.zero_grad()
        F.mse_loss(functional_call(module, weights, (support.x[rows],)), support.y[rows]).backward()
        optimizer.step()
    return done


def test_the_gradient_of_the_loss_is_parameters_minus_adapted():
    algorithm, episode, key = regression(), lines_episode(), draws.key(5)
    params, state = testing.start(algorithm)
    leaves = {name: value.clone().requires_grad_() for name, value in params.items()}
    loss, _ = algorithm.loss(leaves, state, episode, key, STEP)
    found = dict(zip(leaves, torch.autograd.grad(loss, list(leaves.values())), strict=True))
    adapted = algorithm.adapt(params, state, episode.support, key, training=True).params
    testing.assert_same(found, {name: params[name] - adapted[name] for name in params}, "the gradient")
    assert all((params[name] != adapted[name]).any() for name in params)


def test_one_task_a_step_is_the_papers_serial_chain(tmp_path: Path):
    """φ ← φ + ε (φ̃ - φ), task after task, ε from 1 to 0 linearly; one Adam with β1 = 0 lives through all tasks."""
    algorithm, steps = regression(), 4
    start, _ = testing.start(algorithm)
    run = run_engine(
        tmp_path,
        algorithm,
        Lines(),
        steps=steps,
        tasks_per_step=1,
        optimizer={"name": "SGD", "lr": 1.0, "schedule": "linear", "final_lr": 0.0},
    )
    phi = {name: value.clone().requires_grad_() for name, value in start.items()}
    adam, done = torch.optim.Adam(phi.values(), lr=0.01, betas=(0.0, 0.999)), 0
    for task in range(steps):
        support = lines_episode(task).support
        before = {name: value.detach().clone() for name, value in phi.items()}
        done = plain_adam(phi, adam, support, mini_batches(support, draws.key(0, "train", torch.tensor([task]))[0], 3, 4), done)
        epsilon = 1.0 - task / steps
        with torch.no_grad():
            for name, value in phi.items():
                value.copy_(before[name] + epsilon * (value - before[name]))
    testing.assert_same(run.position.params, phi, "the parameters after four tasks")
    seconds = {SECOND + name: adam.state[value]["exp_avg_sq"] for name, value in phi.items()}
    testing.assert_same({name: run.position.state[name] for name in seconds}, seconds, "the second moments")
    assert int(run.position.state[UPDATES]) == done == 12


def test_several_tasks_a_step_start_from_the_same_moments_and_are_merged_by_their_mean():
    algorithm = regression()
    params, state = testing.start(algorithm)
    state = {name: torch.full_like(value, 0.3) for name, value in state.items()} | {UPDATES: torch.tensor(9.0, dtype=torch.float64)}
    batch, keys = testing.first_episodes(Lines(), 3)
    gradients, _, aux = gradients_of(algorithm, params, state, batch, keys, STEP)
    after = algorithm.update_state(state, aux.state)
    ends, seconds = [], []
    for task in range(3):
        support = lines_episode(task).support
        weights = {name: value.clone().requires_grad_() for name, value in params.items()}
        adam = torch.optim.Adam(weights.values(), lr=0.01, betas=(0.0, 0.999))
        for value in weights.values():
            adam.state[value] = {"step": torch.tensor(9.0), "exp_avg": torch.zeros_like(value), "exp_avg_sq": torch.full_like(value, 0.3)}
        plain_adam(weights, adam, support, mini_batches(support, keys[task], 3, 4), done=9)
        ends.append(weights)
        seconds.append({name: adam.state[value]["exp_avg_sq"] for name, value in weights.items()})
    for name, value in params.items():
        testing.assert_same(gradients[name], sum(value - end[name] for end in ends), f"the gradient of {name}")
        testing.assert_same(after[SECOND + name], sum(second[name] for second in seconds) / 3, f"the moments of {name}")
    assert float(after[UPDATES]) == 12.0


def test_evaluation_starts_from_the_trained_moments_and_changes_nothing(tmp_path: Path):
    algorithm, source = regression(), Lines()
    trained = run_engine(tmp_path, algorithm, source, optimizer={"name": "SGD", "lr": 1.0}).position
    state: State = {name: value.clone() for name, value in trained.state.items()}
    params: Params = {name: value.clone() for name, value in trained.params.items()}
    support = testing.double(source.episode("val", 0)).support
    fresh = algorithm.adapt(params, testing.start(algorithm)[1], support, draws.key(1)).params
    from_trained = algorithm.adapt(params, state, support, draws.key(1)).params
    assert all((fresh[name] - from_trained[name]).abs().max() > 1e-3 for name in params), "zero moments make the first steps larger"
    evaluate(algorithm, params, state, Double(source), split="val", episodes=3)
    testing.assert_same((trained.params, trained.state), (params, state), "evaluation", tolerance=0.0)


def test_the_second_evaluation_of_an_episode_gives_the_same_scores():
    algorithm = regression()
    params, state = testing.start(algorithm)
    first, second = (evaluate(algorithm, params, state, Double(Lines()), split="val", episodes=4) for _ in range(2))
    assert first == second


def test_training_and_test_have_their_own_steps_and_batches():
    algorithm, support = regression(inner_steps=3, test_inner_steps=5, test_inner_batch=2), lines_episode().support
    params, state = testing.start(algorithm)
    assert len(algorithm.trajectory(params, state, support, draws.key(0), training=True)) == 4
    path = algorithm.trajectory(params, state, support, draws.key(0))
    assert len(path) == 6
    weights = {name: value.clone().requires_grad_() for name, value in params.items()}
    adam = torch.optim.Adam(weights.values(), lr=0.01, betas=(0.0, 0.999))
    plain_adam(weights, adam, support, mini_batches(support, draws.key(0), 5, 2), 0)
    testing.assert_same(path[-1].params, weights, "the adapted parameters")


def test_the_logged_loss_is_that_of_the_last_mini_batch_before_its_update():
    algorithm, episode, key = regression(), lines_episode(), draws.key(3)
    params, state = testing.start(algorithm)
    _, aux = algorithm.loss(params, state, episode, key, STEP)
    before_last = algorithm.trajectory(params, state, episode.support, key, training=True)[-2]
    rows = mini_batches(episode.support, key, 3, 4)[-1]
    expected = F.mse_loss(algorithm.predict(before_last, episode.support.x[rows]), episode.support.y[rows])
    torch.testing.assert_close(aux.metrics["loss"], expected, rtol=1e-12, atol=1e-12)


def test_there_is_no_query_set_in_training():
    algorithm, key = Reptile(conv_network(), CLASSIFICATION, inner_steps=2, inner_batch=3), draws.key(0)
    params, state = testing.start(algorithm)
    support, query = testing.double(few_shot().episode("train", 0))
    one = algorithm.loss(params, state, Episode(support, query), key, STEP)
    other = algorithm.loss(params, state, Episode(support, query._replace(x=query.x * 0 + 7.0)), key, STEP)
    testing.assert_same(one, other, "the query set")


# Mini-batches.


def rows_of(count: int, mask: Tensor | None = None) -> Examples:
    return Examples(torch.zeros(count, 2), torch.zeros(count, 1), mask)


def test_mini_batches_cycle_without_replacement_and_span_passes():
    batches = torch.stack(mini_batches(rows_of(10), draws.key(0), count=10, size=4))
    assert batches.shape == (10, 4)
    passes = batches.flatten().reshape(4, 10)
    for each in passes:
        assert each.sort().values.tolist() == list(range(10)), "a pass has each row once"
    assert len({tuple(each.tolist()) for each in passes}) == 4, "each pass has an order of its own"


def test_a_mini_batch_may_be_larger_than_the_support_set():
    [rows] = mini_batches(rows_of(3), draws.key(0), count=1, size=8)
    assert rows[:3].sort().values.tolist() == rows[3:6].sort().values.tolist() == [0, 1, 2]


def test_the_order_hangs_on_the_key_alone():
    one, again, other = (torch.stack(mini_batches(rows_of(10), draws.key(seed), 5, 4)) for seed in (0, 0, 1))
    assert torch.equal(one, again)
    assert not torch.equal(one, other)


def test_every_row_is_drawn_first_about_equally_often():
    firsts = torch.tensor([int(mini_batches(rows_of(5), draws.key(seed), 1, 1)[0]) for seed in range(400)])
    assert torch.bincount(firsts, minlength=5).min() > 50  # expected 80, standard deviation 8


def test_padding_changes_no_order():
    """The real rows 0, 2, 3, 5 of a padded set are drawn as rows 0, 1, 2, 3 of the set without padding."""
    mask = torch.tensor([True, False, True, True, False, True])
    place = torch.tensor([0, 2, 3, 5])
    plain = torch.stack(mini_batches(rows_of(4), draws.key(4), 6, 3))
    padded = torch.stack(mini_batches(rows_of(6, mask), draws.key(4), 6, 3))
    assert torch.equal(place[plain], padded)


@pytest.mark.parametrize(
    ("options", "words"),
    [
        ({"inner_steps": 0}, "algo.inner_steps=0 must be at least 1"),
        ({"inner_batch": 0}, "algo.inner_batch=0"),
        ({"test_inner_batch": -1}, "algo.test_inner_batch=-1"),
        ({"test_inner_steps": -1}, "algo.test_inner_steps=-1 must not be negative"),
    ],
)
def test_a_bad_option_is_a_sentence(options: dict[str, int], words: str):
    with pytest.raises(UserError, match=words):
        regression(**options)
