"""The checks of the contract: an algorithm that is right, and copies of it with one fault each."""

from __future__ import annotations

from dataclasses import dataclass
from typing import Any

import pytest
import torch
from small import Lines, few_shot
from torch import Tensor

from metarun import testing
from metarun.objectives import REGRESSION
from metarun.types import Algorithm, Aux, Episode, Examples, Params, State


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
    for source in (few_shot(), Lines()):
        testing.check_source(source)


def test_padding_adds_masked_rows_among_the_others_and_keeps_the_real_ones():
    examples = Examples(torch.arange(6.0).reshape(1, 3, 2), torch.arange(3.0).reshape(1, 3, 1))
    padded = testing.pad(examples, 2)
    assert padded.mask is not None
    assert padded.mask.tolist() == [[True, False, True, True, False]]
    assert torch.equal(padded.x[padded.mask], examples.x[0])
    assert torch.equal(padded.y[padded.mask], examples.y[0])


def test_results_that_differ_are_told_with_their_place_and_their_difference():
    with pytest.raises(AssertionError, match=r"they differ: a difference of 0\.5 at \['a'\]"):
        testing.assert_same({"a": torch.tensor(1.0)}, {"a": torch.tensor(1.5)}, "they differ")
    testing.assert_same({"a": torch.tensor(float("nan"))}, {"a": torch.tensor(float("nan"))}, "they differ")
