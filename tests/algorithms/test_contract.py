"""Every algorithm in configs/algo keeps the contract, under every normalisation: found by listing, so that a new file joins by being there."""

from __future__ import annotations

import logging
from dataclasses import dataclass, replace
from pathlib import Path
from typing import Any

import pytest
import torch
from small import Lines, algorithm_of, conv_network, few_shot, kinds_of, wants_network
from torch import Tensor

from metarun import testing
from metarun.compute.programs.recording import Recorded
from metarun.engine.evaluation import score_episode
from metarun.engine.training import gradients_of
from metarun.functional import map_tasks
from metarun.layers.norm import MODES
from metarun.types import Algorithm, Aux, Episode, Examples, Params, State, traits_of

ALGORITHMS = [file.stem for file in sorted((Path(__file__).parents[2] / "configs/algo").glob("*.yaml")) if not file.stem.endswith("_")]
CASES = [(name, kind) for name in ALGORITHMS for kind in kinds_of(name)]
NORMALISED = [(name, norm) for name in ALGORITHMS if "classification" in kinds_of(name) and wants_network(name) for norm in MODES]
SOURCES = {"classification": few_shot(), "regression": Lines()}


def test_the_folder_was_found():
    assert {"maml", "reptile", "protonet", "scratch"} <= set(ALGORITHMS)


@pytest.mark.parametrize(("name", "kind"), CASES)
def test_the_contract_holds(name: str, kind: str):
    testing.check_algorithm(algorithm_of(name, kind), SOURCES[kind])


@pytest.mark.parametrize(("name", "kind"), CASES)
def test_programs_of_training_and_evaluation_give_the_same_bits_as_the_functions(name: str, kind: str, caplog: pytest.LogCaptureFixture):
    """And no program is left to Python; what cannot be recorded, as a number of steps that is a tensor, is the function itself."""
    algorithm = algorithm_of(name, kind)
    variance = torch.tensor(0.1, dtype=torch.float64) if kind == "regression" else None

    def train(shared: Any, part: Any) -> Any:
        return gradients_of(algorithm, *shared, *part, torch.tensor(3))

    def score(shared: Any, part: Any) -> Any:
        def one(episode: Episode, key: Tensor) -> dict[str, Tensor]:
            return score_episode(algorithm, *shared, episode, key, variance=variance)

        return map_tasks(one, *part)

    shared, part = testing.start(algorithm), testing.first_episodes(SOURCES[kind], 2)
    for function in (train, score):
        with caplog.at_level(logging.INFO), torch.set_grad_enabled(function is train):
            found, expected = Recorded(function).program(shared, part).call(shared, part), function(shared, part)
        torch.testing.assert_close(found, expected, rtol=0, atol=0, equal_nan=True)
    assert "run by Python" not in caplog.text


@pytest.mark.parametrize(("name", "norm"), NORMALISED)
def test_padding_rows_change_nothing(name: str, norm: str):
    testing.check_padding_changes_nothing(algorithm_of(name, norm=norm), SOURCES["classification"])


@pytest.mark.parametrize(("name", "norm"), NORMALISED)
def test_batched_equals_loop(name: str, norm: str):
    testing.check_batched_equals_loop(algorithm_of(name, norm=norm), SOURCES["classification"], tasks=2)


@pytest.mark.parametrize(("name", "norm"), NORMALISED)
def test_an_absent_way_changes_nothing(name: str, norm: str):
    """An episode of 3 ways stored in the shape of 4 gives what the same episode gives to a network without the fourth output."""
    four = algorithm_of(name, norm=norm, outputs=4)
    three = replace(four, network=conv_network(norm, 3 if traits_of(four).head else None))
    params, state = testing.start(four)
    fewer = {key: params[key][: len(value)] if value.dim() else params[key] for key, value in testing.start(three)[0].items()}
    state_of_three = {key: value[:3] if ".head." in key or key.startswith("inner_second.head") else value for key, value in state.items()}
    batch, keys = testing.first_episodes(SOURCES["classification"], 2)
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


# What the checks catch: an algorithm that is right, and copies of it with one fault each.


@dataclass(frozen=True)
class Mean:
    """Predict a learned number plus the mean of the support targets."""

    objective: Any
    fault: str = ""

    def init(self, key: Tensor) -> tuple[Params, State]:
        return {"offset": torch.rand(2) if self.fault == "random" else torch.full((2,), 0.1)}, {"seen": torch.zeros(2)}

    def adapt(self, params: Params, state: State, support: Examples, key: Tensor, *, training: bool = False) -> Tensor:
        weight = torch.ones_like(support.y[:, :1]) if support.mask is None else support.mask[:, None].double()
        if self.fault == "padding":
            weight = torch.ones_like(weight)
        if self.fault == "in place":
            state["seen"] += 1.0
        return params["offset"] + (weight * support.y).sum(dim=0) / weight.sum()

    def predict(self, adapted: Tensor, x: Tensor, mask: Tensor | None = None) -> Tensor:
        return adapted.expand(len(x), 2)[:, : 1 if self.fault == "shape" else 2]

    def loss(self, params: Params, state: State, episode: Episode, key: Tensor, step: Tensor) -> tuple[Tensor, Aux]:
        outputs = self.predict(self.adapt(params, state, episode.support, key), episode.query.x)
        loss = self.objective.loss(outputs, episode.query.y, episode.query.mask)
        if self.fault == "not finite":
            loss = loss + (params["offset"] - params["offset"]).sum().sqrt()
        metric = loss if self.fault == "graph" else loss.detach()
        return loss, Aux({"loss": metric}, {"seen": outputs.mean(dim=0).detach()})

    def update_state(self, state: State, aux: dict[str, Tensor]) -> State:
        return {"seen": aux["seen"] if self.fault == "state" else aux["seen"].mean(dim=0)}


def mean_predictor(fault: str = "") -> Algorithm:
    from metarun.objectives import REGRESSION

    return Mean(REGRESSION, fault)


def test_a_third_party_algorithm_without_network_keeps_the_contract():
    testing.check_algorithm(mean_predictor(), Lines())


@pytest.mark.parametrize(
    ("fault", "words"),
    [
        ("random", "init gives different parameters"),
        ("in place", "in place|another result|changed"),
        ("shape", "predict gives outputs of shape"),
        ("padding", "padding rows change"),
        ("not finite", "not finite"),
        ("graph", "with a gradient"),
        ("state", "update_state turns"),
    ],
)
def test_a_fault_is_found_and_told_in_a_sentence(fault: str, words: str):
    with pytest.raises(AssertionError, match=words):
        testing.check_algorithm(mean_predictor(fault), Lines())


@dataclass(frozen=True)
class Forgetful:
    """A source that deals another episode every time."""

    objective: str = "regression"

    def episode(self, split: str, index: int) -> Episode:
        return Episode(Examples(torch.rand(2, 4), torch.rand(2, 2)), Examples(torch.rand(2, 4), torch.rand(2, 2)))


@dataclass(frozen=True)
class Stuck:
    """A source that deals the same episode under every number."""

    objective: str = "regression"

    def episode(self, split: str, index: int) -> Episode:
        return Episode(Examples(torch.ones(2, 4), torch.ones(2, 2)), Examples(torch.ones(2, 4), torch.ones(2, 2)))


def test_a_source_that_forgets_its_numbers_is_found():
    with pytest.raises(AssertionError, match="episode 3 of 'train' is another one"):
        testing.check_source(Forgetful())
    with pytest.raises(AssertionError, match="episodes 0 and 3 of 'train' have the same support set"):
        testing.check_source(Stuck())


def test_the_sources_of_these_tests_keep_the_contract():
    for source in SOURCES.values():
        testing.check_source(source)
