"""Which distribution a regression is scored by: fitted around predictions or samples, or the algorithm's own."""

from __future__ import annotations

import math
from dataclasses import dataclass

import pytest
import torch
from torch import Tensor

from metarun.engine.evaluation import evaluate, observation_variance, score_episode
from metarun.engine.likelihood import has_fitted_variance, predictive_of, samples_of
from metarun.objectives import REGRESSION, Objective
from metarun.predictive import Predictive
from metarun.types import Episode, Examples, Params, State

KEY = torch.tensor(0)
POINTS = Examples(torch.zeros(2, 1, dtype=torch.float64), torch.tensor([[0.0], [2.0]], dtype=torch.float64))
EPISODE = Episode(POINTS, POINTS)
FOUR = torch.tensor(4.0, dtype=torch.float64)


@dataclass(frozen=True)
class Plain:
    """Predicts 0 for every query."""

    objective: Objective = REGRESSION

    def adapt(self, params: Params, state: State, support: Examples, key: Tensor, *, training: bool = False) -> Tensor:
        return support.y.mean()

    def predict(self, adapted: Tensor, x: Tensor, mask: Tensor | None = None) -> Tensor:
        return torch.zeros(len(x), 1, dtype=torch.float64)


class Sampling(Plain):
    """Samples the values 0 and 2 for every query."""

    def sampled(self, adapted: Tensor, x: Tensor, mask: Tensor | None = None) -> Tensor:
        return torch.tensor([0.0, 2.0], dtype=torch.float64)[:, None, None].expand(2, len(x), 1)


class Own(Plain):
    """Returns the Gaussian N(0, 1) for every query."""

    def distribution(self, adapted: Tensor, x: Tensor, mask: Tensor | None = None) -> Predictive:
        return Predictive(torch.zeros(1, 1, len(x), 1, dtype=torch.float64), torch.ones((), dtype=torch.float64))


class Both(Sampling, Own):
    """Samples two values, and has a distribution of its own."""


def gaussian(error: float, variance: float) -> float:
    return 0.5 * math.log(2.0 * math.pi * variance) + error**2 / (2.0 * variance)


def test_only_an_algorithm_that_returns_a_distribution_alone_needs_no_variance():
    assert [has_fitted_variance(kind()) for kind in (Plain, Sampling, Both, Own)] == [True, True, True, False]
    assert observation_variance(Own(), {}, {}, Twice(), episodes=2) is None
    assert observation_variance(Plain(), {}, {}, Twice(), episodes=2) == pytest.approx(2.0)


@dataclass(frozen=True)
class Twice:
    """A source of the same episode again and again."""

    objective: str = "regression"

    def episode(self, split: str, index: int) -> Episode:
        return EPISODE


@pytest.mark.parametrize("kind", [Plain, Sampling, Both])
def test_without_a_variance_there_is_no_prediction_to_score(kind: type):
    assert predictive_of(kind(), KEY, POINTS, None) is None
    assert "nll" not in score_episode(kind(), {}, {}, EPISODE, KEY)


def test_the_figures_of_a_plain_prediction_use_the_fitted_variance():
    """Errors 0 and 2 at variance 4. The joint likelihood of one function is that of its queries one by one."""
    scored = score_episode(Plain(), {}, {}, EPISODE, KEY, variance=FOUR)
    expected = 0.5 * (gaussian(0.0, 4.0) + gaussian(2.0, 4.0))
    assert float(scored["nll"]) == pytest.approx(expected)
    assert float(scored["joint_nll"]) == pytest.approx(expected)
    assert "own_nll" not in scored
    assert float(scored["spread"]) == 2.0


def test_the_figures_of_samples_are_those_of_whole_functions_and_of_single_queries():
    """At variance 4, the functions 0 and 2 have errors (0, 2) and (2, 0): the same joint density, and the same mixture at both queries."""
    scored = score_episode(Sampling(), {}, {}, EPISODE, KEY, variance=FOUR)
    density = 0.5 * (math.exp(-gaussian(0.0, 4.0)) + math.exp(-gaussian(2.0, 4.0)))
    assert float(scored["nll"]) == pytest.approx(-math.log(density))
    assert float(scored["joint_nll"]) == pytest.approx(0.5 * (gaussian(0.0, 4.0) + gaussian(2.0, 4.0)))


@pytest.mark.parametrize("variance", [None, FOUR])
def test_an_algorithms_own_distribution_is_scored_without_a_fitted_variance(variance: Tensor | None):
    scored = score_episode(Own(), {}, {}, EPISODE, KEY, variance=variance)
    expected = 0.5 * (gaussian(0.0, 1.0) + gaussian(2.0, 1.0))
    for name in ("nll", "own_nll", "joint_nll"):
        assert float(scored[name]) == pytest.approx(expected), name
    assert float(scored["spread"]) == 1.0
    assert float(scored["coverage90"]) == 0.5  # 2 lies beyond 1.645


def test_samples_and_an_own_distribution_have_a_likelihood_each():
    scored = score_episode(Both(), {}, {}, EPISODE, KEY, variance=FOUR)
    assert float(scored["own_nll"]) == pytest.approx(0.5 * (gaussian(0.0, 1.0) + gaussian(2.0, 1.0)))
    assert float(scored["nll"]) == pytest.approx(float(score_episode(Sampling(), {}, {}, EPISODE, KEY, variance=FOUR)["nll"]))


def test_a_report_has_the_likelihoods_of_its_episodes():
    report = evaluate(Both(), {}, {}, Twice(), split="test", episodes=3, variance=4.0)
    assert report.joint_nll == pytest.approx(0.5 * (gaussian(0.0, 4.0) + gaussian(2.0, 4.0)))
    assert report.own_nll == pytest.approx(0.5 * (gaussian(0.0, 1.0) + gaussian(2.0, 1.0)))
    assert (report.joint_nll_ci95, report.own_nll_ci95) == pytest.approx((0.0, 0.0), abs=1e-12)
    assert report.joint_nlls == pytest.approx([report.joint_nll] * 3)
    own = evaluate(Own(), {}, {}, Twice(), split="test", episodes=3)
    assert (own.variance, own.nll) == (None, own.own_nll)
    plain = evaluate(Plain(), {}, {}, Twice(), split="test", episodes=3)
    assert (plain.nll, plain.joint_nll, plain.own_nll, plain.joint_nlls) == (None, None, None, [])


def test_the_samples_of_a_plain_prediction_are_the_prediction():
    output = torch.ones(2, 1, dtype=torch.float64)
    assert torch.equal(samples_of(Plain(), KEY, POINTS, output), output[None])
    assert samples_of(Sampling(), KEY, POINTS).shape == (2, 2, 1)
