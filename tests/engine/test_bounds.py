"""The scores of the exact Bayes predictor on a task whose posterior has a closed form."""

from __future__ import annotations

import math
from dataclasses import dataclass

import pytest
import torch
from small import Lines
from torch import Tensor
from torch.distributions import MultivariateNormal, Normal

from metarun import draws
from metarun.engine.bounds import bayes_scores, score_posterior
from metarun.predictive import Predictive
from metarun.tasks.ambiguous import ambiguous
from metarun.types import Episode, Examples


@dataclass(frozen=True)
class Levels:
    """y = level + noise, both standard normal: after K points of sum s, the level is N(s / (K + 1), 1 / (K + 1))."""

    queries: int = 3
    objective: str = "regression"

    def episode(self, split: str, index: int) -> Episode:
        key = draws.key(4, split, index)
        y = draws.normal(draws.fold(key, "level"), dtype=torch.float64) + draws.normal(key, 2 + self.queries, 1, dtype=torch.float64)
        return Episode(*(Examples(torch.zeros_like(part), part) for part in (y[:2], y[2:])))

    def posterior(self, support: Examples, x: Tensor) -> Predictive:
        count = len(support.y)
        means = (support.y.sum() / (count + 1)).expand(1, 1, len(x), 1)
        return Predictive(means, torch.full((), 1.0 + 1.0 / (count + 1), dtype=torch.float64))

    def log_evidence(self, examples: Examples) -> Tensor:
        y = examples.y[:, 0]
        covariance = torch.eye(len(y), dtype=torch.float64) + 1.0
        return -0.5 * (y @ torch.linalg.solve(covariance, y) + torch.logdet(covariance) + len(y) * math.log(2.0 * math.pi))


def test_the_scores_of_one_episode_by_hand():
    """Given two points, the queries are N(mean, I + 1/3), jointly: the marginal variance is 4/3, and all covariances are 1/3."""
    source = Levels()
    support, query = source.episode("test", 0)
    scored = score_posterior(source, Episode(support, query))
    centre = float(support.y.sum()) / 3.0
    errors = query.y[:, 0] - centre
    assert float(scored["mse"]) == pytest.approx(float(errors.square().mean()))
    assert float(scored["nll"]) == pytest.approx(-float(Normal(centre, math.sqrt(4.0 / 3.0)).log_prob(query.y).mean()))
    together = MultivariateNormal(torch.full((3,), centre, dtype=torch.float64), torch.eye(3, dtype=torch.float64) + 1.0 / 3.0)
    assert float(scored["joint_nll"]) == pytest.approx(-float(together.log_prob(query.y[:, 0])) / 3.0)


def test_the_bound_is_the_mean_over_the_episodes_and_the_point_prediction_has_a_variance_fitted_on_validation():
    source = Levels()
    found = bayes_scores(source, split="test", episodes=20)
    assert found is not None
    each = [score_posterior(source, source.episode("test", index)) for index in range(20)]
    for name in ("mse", "nll", "joint_nll", "coverage90"):
        assert found[name] == pytest.approx(float(torch.stack([scores[name] for scores in each]).mean())), name
        assert found[f"{name}_ci95"] > 0
    variance = float(torch.stack([score_posterior(source, source.episode("val", index))["mse"] for index in range(20)]).mean())
    assert found["point_nll"] == pytest.approx(0.5 * math.log(2.0 * math.pi * variance) + found["mse"] / (2.0 * variance))


def test_a_source_without_a_known_prior_has_no_bound():
    assert bayes_scores(Lines(), split="test", episodes=2) is None
    assert bayes_scores(ambiguous(noise=0.0), split="test", episodes=2) is None


def test_no_method_of_one_value_beats_the_bound_of_the_ambiguous_task():
    """The mean of the support targets, a constant, and the posterior mean itself are all worse than the posterior."""
    found = bayes_scores(ambiguous(shots=2), split="test", episodes=40)
    assert found is not None
    assert found["joint_nll"] < found["nll"] < found["point_nll"]
    assert 0.8 < found["coverage90"] < 1.0
