"""The exact Bayes predictor of noisy functions that have two parameters and are linear in one of them.

    y = c u(x, θ) + r(x, θ) + ε,    θ ~ U[parameter],    c ~ U[coefficient],    ε ~ N(0, σ²)

Given θ, the likelihood of c has the form of a Gaussian. With P = Σ u²/σ² and h = Σ u (y - r)/σ² over K points,

    log p(y | θ, c)  =  c h - c² P/2 - Σ (y - r)²/(2 σ²) - K/2 log(2πσ²).

The evidence p(y) is its integral over the prior of θ and c. Two quadratures compute this integral: equal steps of θ over its whole range,
and Gauss-Legendre nodes of c over the part of its range where the likelihood is not negligible. The functions at these nodes, weighted by
their shares of the evidence, are the posterior. Unlike draws from the prior, they lie where the likelihood is, so a few thousand functions
suffice. The test file compares them with draws from the prior.
"""

from __future__ import annotations

import functools
import math
from collections.abc import Callable, Sequence
from dataclasses import dataclass
from typing import NamedTuple

import numpy as np
import torch
from torch import Tensor

from metarun.predictive import Predictive
from metarun.types import Examples

NODES = 12
"""Gauss-Legendre nodes of c for each θ."""
REACH = 5.0
"""The nodes lie within this many standard deviations of the likelihood's maximum."""
STEPS = 51.0
"""Steps of θ over its range, times σ: 170 steps at σ = 0.3. A step is then about one standard deviation of θ given ten points."""
FINER = 2
"""The evidence of a whole episode needs more steps than the posterior, since many points determine θ more closely."""
NEGLIGIBLE = 25.0
"""A function whose share is below the largest share times exp(-25) is left out."""
LEAST_NOISE = 0.01
"""Below this σ, the number of steps makes the predictor too slow."""


@dataclass(frozen=True)
class Family:
    """Functions c u(x, θ) + r(x, θ).

    basis: returns u and r (…, B) at x (B,) for θ (…, 1). parameter, coefficient: the ranges (low, high) of θ and c, both uniform.
    """

    basis: Callable[[Tensor, Tensor], tuple[Tensor, Tensor]]
    parameter: tuple[float, float]
    coefficient: tuple[float, float]


class Hypotheses(NamedTuple):
    """Functions of a family and their shares of the evidence. theta: (G,). coefficients, log_shares: (G, J)."""

    theta: Tensor
    coefficients: Tensor
    log_shares: Tensor


@dataclass(frozen=True)
class Posterior:
    """The Bayes predictor of a task that is a function of one of the families, each as likely as the others. x has one column, and y too.

    noise: σ, at least `LEAST_NOISE`. All methods are for one task and compute in double precision.
    """

    families: Sequence[Family]
    noise: float

    def predictive(self, support: Examples, x: Tensor) -> Predictive:
        """Return the distribution of the noisy targets at x (B, 1), given the support set: S functions with their posterior weights.

        S depends on the support set, so this method does not run under vmap. The result is in double precision, since the smallest numbers
        of single precision are slow.
        """
        found = [hypotheses(family, support, self.noise, self._steps) for family in self.families]
        least = torch.stack([each.log_shares.max() for each in found]).max() - NEGLIGIBLE
        values, shares = [], []
        for family, each in zip(self.families, found, strict=True):
            kept = each.log_shares > least
            theta = each.theta[:, None].expand_as(kept)[kept]
            basis, rest = family.basis(x[:, 0].double(), theta[:, None])
            values.append(each.coefficients[kept][:, None] * basis + rest)
            shares.append(each.log_shares[kept])
        means, log_priors = torch.cat(values)[:, None, :, None], torch.cat(shares).log_softmax(dim=0)
        return Predictive(means, torch.full((), self.noise**2, dtype=means.dtype, device=x.device), log_priors=log_priors)

    def log_evidence(self, examples: Examples) -> Tensor:
        """Return log p(y | x) of all real examples together, in nats."""
        parts = [hypotheses(family, examples, self.noise, FINER * self._steps).log_shares.flatten() for family in self.families]
        return torch.cat(parts).logsumexp(dim=0) - math.log(len(parts))

    @property
    def _steps(self) -> int:
        return max(64, math.ceil(STEPS / self.noise))


def hypotheses(family: Family, examples: Examples, noise: float, steps: int) -> Hypotheses:
    """Return the functions at the nodes of both quadratures; the sum of exp(log_shares) is the family's evidence."""
    x, y, (low, high) = examples.x[:, 0].double(), examples.y[:, 0].double(), family.coefficient
    first, last = family.parameter
    theta = first + (last - first) / steps * (torch.arange(steps, dtype=torch.float64, device=x.device) + 0.5)
    basis, rest = family.basis(x, theta[:, None])
    residual, count = y - rest, torch.tensor(len(y), dtype=torch.float64)
    if examples.mask is not None:
        basis, residual = (torch.where(examples.mask, each, 0.0) for each in (basis, residual))
        count = examples.mask.sum()
    precision = basis.square().sum(dim=1) / noise**2
    pull = (basis * residual).sum(dim=1) / noise**2
    start, end = _interval(pull, precision, low, high)
    nodes, node_weights = (each.to(x.device) for each in _legendre(NODES))
    half = 0.5 * (end - start)
    coefficients = (start + half)[:, None] + half[:, None] * nodes
    fixed = -0.5 * residual.square().sum(dim=1) / noise**2 - 0.5 * count * math.log(2.0 * math.pi * noise**2)
    log_likelihood = coefficients * pull[:, None] - 0.5 * coefficients.square() * precision[:, None] + fixed[:, None]
    log_prior = (half / ((high - low) * steps)).log()[:, None] + node_weights.log()
    return Hypotheses(theta, coefficients, log_likelihood + log_prior)


def _interval(pull: Tensor, precision: Tensor, low: float, high: float) -> tuple[Tensor, Tensor]:
    """Return the ends (G,) of the part of [low, high] where the likelihood of c is not negligible.

    Where the maximum lies far outside, this is one standard deviation at the nearer end of the range.
    """
    precision = precision.clamp(min=1e-12)
    mode, deviation = pull / precision, precision.rsqrt()
    least = deviation.clamp(max=high - low)
    start = torch.minimum((mode - REACH * deviation).clamp(low, high), high - least)
    return start, torch.maximum((mode + REACH * deviation).clamp(low, high), low + least)


@functools.cache
def _legendre(count: int) -> tuple[Tensor, Tensor]:
    """Return nodes in [-1, 1] and weights, (count,), of Gauss-Legendre quadrature."""
    nodes, weights = np.polynomial.legendre.leggauss(count)
    return torch.from_numpy(nodes), torch.from_numpy(weights)
