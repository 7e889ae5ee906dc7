"""The bound of a task whose prior is known: no method that sees only the support set can have a lower expected error or likelihood.

The exact Bayes predictor gives the posterior predictive distribution p(y | x, support). Its mean has the least expected squared error, and
the distribution has the least expected negative log-likelihood. A *point predictor* gives one value and one variance for all queries; the
best one predicts the posterior mean. The difference of the two likelihoods is all that a distribution can win over a point.
"""

from __future__ import annotations

import math
from collections.abc import Callable
from functools import partial
from typing import Protocol, runtime_checkable

import torch
from torch import Tensor

from metarun.engine import averages
from metarun.network import joint_mask
from metarun.objectives import REGRESSION
from metarun.predictive import Predictive, coverage, mean, nll
from metarun.types import Episode, Examples, TaskSource


@runtime_checkable
class WithPosterior(Protocol):
    """A task source that knows the prior of its tasks, so that every report can print the scores of the exact Bayes predictor.

    Its methods need not run under vmap.
    """

    def posterior(self, support: Examples, x: Tensor) -> Predictive:
        """Return the distribution of the (noisy) targets (B, D) at x (B, ...), given the support set of one task."""

    def log_evidence(self, examples: Examples) -> Tensor:
        """Return log p(y | x) of all real examples of one task together, a scalar in nats."""


def bayes_scores(source: TaskSource, *, split: str, episodes: int) -> dict[str, float] | None:
    """Return the scores of the exact Bayes predictor on the first episodes of a split; None where the source has no posterior.

    nll, joint_nll, mse, coverage90 and their `…_ci95`: as in `metarun.engine.report.Report`. point_nll: of the posterior mean as a point
    prediction, with the variance that fits as many validation episodes best, as for every other method.
    """
    if not isinstance(source, WithPosterior):
        return None
    scored = _by_episode(partial(score_posterior, source), source, split, episodes)
    targets = source.episode(split, 0).query.y.shape[-1]
    variance = float(_by_episode(partial(_error, source), source, "val", episodes)["mse"].mean())
    scored["point_nll"] = 0.5 * targets * (math.log(2.0 * math.pi * variance) + scored["mse"] / variance)
    figures: dict[str, float] = {}
    for name, values in scored.items():
        figures[name], figures[f"{name}_ci95"] = averages.mean(values), averages.interval(values)
    return figures


def score_posterior(source: WithPosterior, episode: Episode) -> dict[str, Tensor]:
    """Return the scores of the Bayes predictor on one episode.

    The joint likelihood is a ratio of evidences, p(queries | support) = p(support and queries) / p(support).
    """
    support, query = episode
    predicted = source.posterior(support, query.x)
    count = len(query.x) if query.mask is None else query.mask.sum().clamp(min=1)
    whole = Examples(torch.cat([support.x, query.x]), torch.cat([support.y, query.y]), joint_mask(support, query))
    return {
        "mse": REGRESSION.score(mean(predicted).to(query.y.dtype), query.y, query.mask),
        "nll": nll(predicted, query.y, query.mask),
        "joint_nll": (source.log_evidence(support) - source.log_evidence(whole)) / count,
        "coverage90": coverage(predicted, query.y, query.mask),
    }


def _error(source: WithPosterior, episode: Episode) -> dict[str, Tensor]:
    """Return the squared error of the posterior mean."""
    support, query = episode
    return {"mse": REGRESSION.score(mean(source.posterior(support, query.x)).to(query.y.dtype), query.y, query.mask)}


def _by_episode(score: Callable[[Episode], dict[str, Tensor]], source: TaskSource, split: str, episodes: int) -> dict[str, Tensor]:
    """Return the scores of the first episodes of a split, (T,) by name, in double precision."""
    with torch.no_grad():
        scored = [score(source.episode(split, index)) for index in range(episodes)]
    return {name: torch.stack([each[name] for each in scored]).double() for name in scored[0]}
