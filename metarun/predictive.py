"""The predictive distribution of a regression: an equal mixture of Gaussians around sampled outputs, all of one variance.

    p(y | x) = 1/S Σ_s N(y; f_s(x), v)                              independent over the D targets of an example, given s

All methods share this model, so their likelihoods compare. A method that predicts one value is the mixture with S = 1. All examples
share one v, which models observation noise of constant size. The distance between the samples varies with x.
"""

from __future__ import annotations

import math
from typing import NamedTuple

import torch
from torch import Tensor

LEAST_VARIANCE = 1e-12


class Predictive(NamedTuple):
    """samples: (S, B, D), sampled outputs. variance: scalar, v of the observations around each sample, in squared units of y."""

    samples: Tensor
    variance: Tensor


def nll(predictive: Predictive, y: Tensor, mask: Tensor | None = None) -> Tensor:
    """Return the mean over the real rows of -log p(y | x), in nats per example; y: (B, D), mask: (B,) bool."""
    errors = _errors(predictive, y, mask)
    variance, (count, _, targets) = predictive.variance, errors.shape
    exponents = -errors.square().sum(dim=-1) / (2.0 * variance)
    rows = math.log(count) + 0.5 * targets * (2.0 * math.pi * variance).log() - exponents.logsumexp(dim=0)
    return _mean(rows, mask)


def coverage(predictive: Predictive, y: Tensor, mask: Tensor | None = None, level: float = 0.9) -> Tensor:
    """Return the share of real targets inside the central interval of `level`, that is (1 - level)/2 <= F(y) <= (1 + level)/2.

    F is the mixture's distribution function. It grows with y, so this test needs no quantiles.
    """
    probability = _distribution(_errors(predictive, y, mask) / predictive.variance.sqrt())
    inside = (probability >= 0.5 * (1.0 - level)) & (probability <= 0.5 * (1.0 + level))
    return _mean(inside.to(y.dtype).mean(dim=-1), mask)


def quantile(predictive: Predictive, level: float) -> Tensor:
    """Return the y (B, D) with F(y) = level, 0 < level < 1, by bisection; F is the mixture's distribution function.

    y lies between the quantiles of the lowest and of the highest Gaussian. After 60 halvings the error is below rounding.
    """
    deviation = predictive.variance.sqrt()
    offset = (
        deviation * math.sqrt(2.0) * torch.erfinv(torch.tensor(2.0 * level - 1.0, dtype=predictive.samples.dtype, device=deviation.device))
    )
    low, high = predictive.samples.amin(dim=0) + offset, predictive.samples.amax(dim=0) + offset
    for _ in range(60):
        middle = 0.5 * (low + high)
        above = _distribution((middle - predictive.samples) / deviation) > level
        low, high = torch.where(above, low, middle), torch.where(above, middle, high)
    return 0.5 * (low + high)


def spread(predictive: Predictive, mask: Tensor | None = None) -> Tensor:
    """Return the standard deviation of p(y | x), √(v + variance of the samples), averaged over targets and real rows."""
    samples = predictive.samples
    apart = (samples - samples.mean(dim=0)).square().mean(dim=0)
    return _mean((predictive.variance + apart).sqrt().mean(dim=-1), mask)


def fit_variance(squared: Tensor, steps: int = 100) -> Tensor:
    """Return the v of the largest likelihood, by expectation maximisation; with S = 1 this is the mean of `squared`.

    squared: (M, S, D), the squared errors of M observed examples; the D targets share v. v is at least `LEAST_VARIANCE`.
    """
    variance = squared.mean().clamp(min=LEAST_VARIANCE)
    for _ in range(steps if squared.shape[1] > 1 else 0):
        share = (-squared.sum(dim=-1) / (2.0 * variance)).softmax(dim=-1)  # of each sample in each example
        variance = ((share[..., None] * squared).sum() / (squared.shape[0] * squared.shape[2])).clamp(min=LEAST_VARIANCE)
    return variance


def _distribution(deviations: Tensor) -> Tensor:
    """Return the mixture's distribution function F(y), (B, D), from (y - sample) / √v, (S, B, D)."""
    return (0.5 * (1.0 + torch.erf(deviations / math.sqrt(2.0)))).mean(dim=0)


def _errors(predictive: Predictive, y: Tensor, mask: Tensor | None) -> Tensor:
    """Return y minus each sample, (S, B, D); padding rows are 0, so their content reaches no derivative."""
    if predictive.samples.shape[1:] != y.shape:
        raise ValueError(f"samples of shape {tuple(predictive.samples.shape)} do not fit targets of shape {tuple(y.shape)}")
    errors = y - predictive.samples
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
