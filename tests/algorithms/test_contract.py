"""Every algorithm in configs/algo keeps the contract under every kind of normalisation. The tests list the folder, so new files join."""

from __future__ import annotations

import logging
from dataclasses import replace
from pathlib import Path
from typing import Any

import pytest
import torch
from small import Lines, OneConv, algorithm_of, conv_network, few_shot, kinds_of, wants_network
from torch import Tensor

from metarun import testing
from metarun.algorithms.mann import Mann
from metarun.compute.programs.recording import Recorded
from metarun.engine.evaluation import score_episode
from metarun.engine.training import gradients_of
from metarun.functional import map_tasks
from metarun.layers.norm import MODES, PER_EXAMPLE
from metarun.types import Algorithm, Episode, Examples, TaskSource, WithStream, traits_of

ALGORITHMS = [file.stem for file in sorted((Path(__file__).parents[2] / "configs/algo").glob("*.yaml")) if not file.stem.endswith("_")]
CASES = [(name, kind) for name in ALGORITHMS for kind in kinds_of(name)]
IMAGES = [name for name in ALGORITHMS if "classification" in kinds_of(name) and wants_network(name)]
DIFFERENT = [norm for norm in MODES if norm not in PER_EXAMPLE[1:]]
"""One normalisation of each kind: no algorithm and no other part of a network tells the modes of `PER_EXAMPLE` apart."""
OTHER = [norm for norm in DIFFERENT if norm != "batch"]
"""Those that `test_the_contract_holds` does not have."""
SOURCES = {"classification": few_shot(), "regression": Lines()}
SHORT = {"classification": few_shot(shots=1, queries=1), "regression": Lines(shots=3, queries=2)}
"""Few examples, for what takes time with each example that a recurrent network reads or a learner of streams learns from."""


def examples_for(algorithm: Algorithm, kind: str = "classification") -> TaskSource:
    """Return the source of the checks: few examples where each one is a step."""
    return (SHORT if isinstance(algorithm, WithStream | Mann) else SOURCES)[kind]


def on_one_conv(algorithm: Any, norm: str = "batch") -> Any:
    """Return the algorithm on a network with one layer of each kind, half the operations of two; the two are in the other tests."""
    return replace(algorithm, network=conv_network(norm, 3 if traits_of(algorithm).head else None, kind=OneConv))


def test_the_folder_was_found():
    assert {"maml", "reptile", "protonet", "scratch"} <= set(ALGORITHMS)


@pytest.mark.parametrize(("name", "kind"), CASES)
def test_the_contract_holds(name: str, kind: str):
    algorithm = algorithm_of(name, kind)
    testing.check_algorithm(algorithm, examples_for(algorithm, kind))


@pytest.mark.parametrize(("name", "kind"), CASES)
def test_programs_of_training_and_evaluation_give_the_same_bits_as_the_functions(name: str, kind: str, caplog: pytest.LogCaptureFixture):
    """And no program is left to Python; what cannot be recorded, as a number of steps that is a tensor, is the function itself."""
    algorithm = algorithm_of(name, kind)
    if kind == "classification" and wants_network(name):
        algorithm = on_one_conv(algorithm)
    variance = torch.tensor(0.1, dtype=torch.float64) if kind == "regression" else None

    def train(shared: Any, part: Any) -> Any:
        return gradients_of(algorithm, *shared, *part, torch.tensor(3))

    def score(shared: Any, part: Any) -> Any:
        def one(episode: Episode, key: Tensor) -> dict[str, Tensor]:
            return score_episode(algorithm, *shared, episode, key, variance=variance)

        return map_tasks(one, *part)

    shared, part = testing.start(algorithm), testing.first_episodes(SHORT[kind], 2)
    for function in (train, score):
        with caplog.at_level(logging.INFO), torch.set_grad_enabled(function is train):
            found, expected = Recorded(function).program(shared, part).call(shared, part), function(shared, part)
        torch.testing.assert_close(found, expected, rtol=0, atol=0, equal_nan=True)
    assert "run by Python" not in caplog.text


@pytest.mark.parametrize("norm", OTHER)
@pytest.mark.parametrize("name", IMAGES)
def test_padding_rows_change_nothing(name: str, norm: str):
    algorithm = on_one_conv(algorithm_of(name, norm=norm), norm)
    testing.check_padding_changes_nothing(algorithm, examples_for(algorithm))


@pytest.mark.parametrize("norm", ["batch", "instance"])
@pytest.mark.parametrize("name", ["oml", "anml"])
def test_padding_rows_change_no_step_of_two_examples(name: str, norm: str):
    algorithm = replace(algorithm_of(name, norm=norm), inner_batch=2)
    testing.check_padding_changes_nothing(algorithm, examples_for(algorithm))


@pytest.mark.parametrize("norm", OTHER)
@pytest.mark.parametrize("name", IMAGES)
def test_batched_equals_loop(name: str, norm: str):
    algorithm = on_one_conv(algorithm_of(name, norm=norm), norm)
    testing.check_batched_equals_loop(algorithm, examples_for(algorithm), tasks=2)


@pytest.mark.parametrize("norm", DIFFERENT)
@pytest.mark.parametrize("name", IMAGES)
def test_an_absent_way_changes_nothing(name: str, norm: str):
    """An episode of 3 ways stored in the shape of 4 gives what the same episode gives to a network without the fourth output."""
    four = algorithm_of(name, norm=norm, outputs=4)
    three = replace(four, network=conv_network(norm, 3 if traits_of(four).head else None))
    params, state = testing.start(four)
    fewer = {key: params[key][: len(value)] if value.dim() else params[key] for key, value in testing.start(three)[0].items()}
    state_of_three = {key: value[:3] if ".head." in key or key.startswith("inner_second.head") else value for key, value in state.items()}
    batch, keys = testing.first_episodes(examples_for(four), 2)
    wide = Episode(one_way_more(batch.support), one_way_more(batch.query))
    if not traits_of(four).learns_all_classes:  # else training labels are no ways: a class absent from a mini-batch is still one
        gradients, losses, aux = gradients_of(three, fewer, state_of_three, batch, keys, torch.tensor(0))
        padded_gradients, padded_losses, padded_aux = gradients_of(four, params, state, wide, keys, torch.tensor(0))
        testing.assert_same(losses, padded_losses, "the loss")
        testing.assert_same(aux.metrics, padded_aux.metrics, "the metrics")
        for key, gradient in gradients.items():
            padded = padded_gradients[key]
            if padded.shape != gradient.shape:
                assert padded[3:].abs().max() == 0, "the absent way's output gets a gradient"
                padded = padded[:3]
            testing.assert_same(gradient, padded, f"the gradient of {key}")
    for task in range(2):
        scores = [
            score_episode(algorithm, weights, held, Episode(*(part_of(part, task) for part in each)), keys[task])
            for algorithm, weights, held, each in ((three, fewer, state_of_three, batch), (four, params, state, wide))
        ]
        for figure in ("by_step", "nll"):
            testing.assert_same(scores[0][figure], scores[1][figure], f"the {figure}")


def one_way_more(examples: Examples) -> Examples:
    """Give a batch of episodes a fourth way that has no real row, as the sampler does where the ways vary."""
    tasks, rows, ways = examples.y.shape
    x = torch.cat([examples.x, torch.rand(tasks, 2, *examples.x.shape[2:], dtype=examples.x.dtype)], dim=1)
    y = torch.zeros(tasks, rows + 2, ways + 1, dtype=examples.y.dtype)
    y[:, :rows, :ways] = examples.y
    y[:, rows:, ways] = 1.0
    return Examples(x, y, torch.arange(rows + 2).expand(tasks, -1) < rows)


def part_of(examples: Examples, task: int) -> Examples:
    return Examples(*(None if field is None else field[task] for field in examples))


@pytest.mark.parametrize("name", [name for name in ALGORITHMS if "classification" in kinds_of(name)])
def test_an_episode_that_the_sampler_padded_gives_finite_losses_and_gradients(name: str):
    source = few_shot(min_ways=2, min_shots=1)
    algorithm = algorithm_of(name)
    testing.check_finite_gradients(algorithm, source)
    testing.check_batched_equals_loop(algorithm, source)
