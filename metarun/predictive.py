"""The predictive distribution of a regression, a mixture of Gaussians, and the figures that describe it.

    p(y_1 … y_B) = Σ_s π_s Π_b p_s(y_b),    p_s(y_b) = Σ_k w_skb Π_d N(y_bd; m_skbd, v_skbd)

A method that samples S networks is an equal mixture of S hypotheses with K = 1, and all Gaussians share one fitted variance. This variance
models observation noise of constant size. The distance between the samples varies with x. A method that predicts one value has S = 1. A
method that returns a distribution for each example has S = 1 and K components.

The marginal likelihood scores each example alone: -1/B Σ_b log Σ_s π_s p_s(y_b). The joint likelihood scores all examples of a task
together: -1/B log Σ_s π_s Π_b p_s(y_b). Only the joint likelihood rewards samples that are whole functions. With S = 1 both are equal.
"""

from __future__ import annotations

import math
from typing import NamedTuple, Self

import torch
from torch import Tensor

LEAST_VARIANCE = 1e-12


class Predictive(NamedTuple):
    """The distribution of the targets of B examples: a mixture over S hypotheses about the task.

    A hypothesis may be a sampled network. Under one hypothesis the examples are independent, and each has a mixture of K Gaussians.
    means: m, (S, K, B, D). variance: v in squared units of y, a scalar or a shape that broadcasts to that of `means`.
    log_weights: log w, (S, K, B), normalised over k; None for equal weights. log_priors: log π, (S,), normalised; None for equal ones.
    """

    means: Tensor
    variance: Tensor
    log_weights: Tensor | None = None
    log_priors: Tensor | None = None

    @classmethod
    def around(cls, samples: Tensor, variance: Tensor) -> Self:
        """Return the equal mixture of one Gaussian around each of the outputs (S, B, D) of S networks, all of one variance."""
        return cls(samples[:, None], variance)


def nll(predictive: Predictive, y: Tensor, mask: Tensor | None = None) -> Tensor:
    """Return the mean over the real rows of -log p(y_b), in nats per example; y: (B, D), mask: (B,) bool."""
    return _mean(-(_by_hypothesis(predictive, y, mask) + _log_priors(predictive)[:, None]).logsumexp(dim=0), mask)


def joint_nll(predictive: Predictive, y: Tensor, mask: Tensor | None = None) -> Tensor:
    """Return -log p(y_1 … y_B) of all real rows together, divided by their number: nats per example; y: (B, D), mask: (B,) bool."""
    rows = _by_hypothesis(predictive, y, mask)
    count = len(y) if mask is None else mask.sum().clamp(min=1)
    return -(rows.sum(dim=1) + _log_priors(predictive)).logsumexp(dim=0) / count


def mean(predictive: Predictive) -> Tensor:
    """Return the mean of the distribution, (B, D)."""
    return _average(predictive, predictive.means)


def coverage(predictive: Predictive, y: Tensor, mask: Tensor | None = None, level: float = 0.9) -> Tensor:
    """Return the share of real targets inside the central interval of `level`, that is (1 - level)/2 <= F(y) <= (1 + level)/2.

    F is the distribution function of one target. It grows with y, so this test needs no quantiles.
    """
    probability = _distribution(predictive, _errors(predictive, y, mask))
    inside = (probability >= 0.5 * (1.0 - level)) & (probability <= 0.5 * (1.0 + level))
    return _mean(inside.to(y.dtype).mean(dim=-1), mask)


def quantile(predictive: Predictive, level: float) -> Tensor:
    """Return the y (B, D) with F(y) = level, 0 < level < 1, by bisection; F is the distribution function of one target.

    y lies between the quantiles of the lowest and of the highest Gaussian. After 60 halvings the error is below rounding.
    """
    means = predictive.means
    offset = math.sqrt(2.0) * torch.erfinv(torch.tensor(2.0 * level - 1.0, dtype=means.dtype, device=means.device))
    ends = means + predictive.variance.sqrt() * offset
    low, high = ends.amin(dim=(0, 1)), ends.amax(dim=(0, 1))
    for _ in range(60):
        middle = 0.5 * (low + high)
        above = _distribution(predictive, middle - means) > level
        low, high = torch.where(above, low, middle), torch.where(above, middle, high)
    return 0.5 * (low + high)


def spread(predictive: Predictive, mask: Tensor | None = None) -> Tensor:
    """Return the standard deviation of one target, √(mean variance + variance of the means), averaged over targets and real rows."""
    apart = (predictive.means - mean(predictive)).square()
    return _mean(_average(predictive, predictive.variance + apart).sqrt().mean(dim=-1), mask)


def fit_variance(squared: Tensor, steps: int = 100) -> Tensor:
    """Return the v of the largest likelihood, by expectation maximisation; with S = 1 this is the mean of `squared`.

    squared: (M, S, D), the squared errors of M observed examples; the D targets share v. v is at least `LEAST_VARIANCE`.
    """
    variance = squared.mean().clamp(min=LEAST_VARIANCE)
    for _ in range(steps if squared.shape[1] > 1 else 0):
        share = (-squared.sum(dim=-1) / (2.0 * variance)).softmax(dim=-1)  # of each sample in each example
        variance = ((share[..., None] * squared).sum() / (squared.shape[0] * squared.shape[2])).clamp(min=LEAST_VARIANCE)
    return variance


def _by_hypothesis(predictive: Predictive, y: Tensor, mask: Tensor | None) -> Tensor:
    """Return log p_s(y_b), (S, B). It is 0 on padding rows, so their content reaches no derivative."""
    variance, log_weights = predictive.variance, predictive.log_weights
    errors = _errors(predictive, y, mask)
    if mask is not None and variance.dim():  # as many axes as the means
        variance = torch.where(mask[:, None], variance, 1.0)
    each = -0.5 * (errors.square() / variance + (2.0 * math.pi * variance).log()).sum(dim=-1)
    if log_weights is None:
        rows = each.logsumexp(dim=1) - math.log(each.shape[1]) if each.shape[1] > 1 else each[:, 0]
    else:
        rows = (each + (log_weights if mask is None else torch.where(mask, log_weights, 0.0))).logsumexp(dim=1)
    return rows if mask is None else torch.where(mask, rows, 0.0)


def _log_priors(predictive: Predictive) -> Tensor:
    """Return log π, (S,)."""
    means, log_priors = predictive.means, predictive.log_priors
    return means.new_full((len(means),), -math.log(len(means))) if log_priors is None else log_priors


def _average(predictive: Predictive, values: Tensor) -> Tensor:
    """Return the mean of the values over the Gaussians, (B, D). values: (S, K, B, D), one for each Gaussian."""
    if predictive.log_weights is not None:
        weights = predictive.log_weights.exp()
        values = (weights[..., None] * values).sum(dim=1)
    else:
        values = values.mean(dim=1)
    return values.mean(dim=0) if predictive.log_priors is None else torch.tensordot(predictive.log_priors.exp(), values, dims=1)


def _distribution(predictive: Predictive, errors: Tensor) -> Tensor:
    """Return the distribution function F(y), (B, D), from y minus the means, (S, K, B, D)."""
    return _average(predictive, 0.5 * (1.0 + torch.erf(errors / (predictive.variance.sqrt() * math.sqrt(2.0)))))


def _errors(predictive: Predictive, y: Tensor, mask: Tensor | None) -> Tensor:
    """Return y minus each mean, (S, K, B, D); padding rows are 0, so their content reaches no derivative."""
    if predictive.means.shape[2:] != y.shape:
        raise ValueError(f"means of shape {tuple(predictive.means.shape)} do not fit targets of shape {tuple(y.shape)}")
    errors = y - predictive.means
    return errors if mask is None else torch.where(mask[:, None], errors, 0.0)


def _mean(rows: Tensor, mask: Tensor | None) -> Tensor:
    return rows.mean() if mask is None else torch.where(mask, rows, 0.0).sum() / mask.sum().clamp(min=1)


def averaged(outputs: Tensor, kind: str) -> Tensor:
    """Return the prediction of outputs (S, B, N): in regression their mean, in classification the logarithm of the mean probability.

    These logarithms are logits: their softmax is the average of the samples' probabilities. The average of the logits is not.
    """
    if kind == "regression":
        return outputs.mean(dim=0)
    return outputs.log_softmax(dim=-1).logsumexp(dim=0) - math.log(len(outputs))
