"""The exact Bayes predictor against closed forms and against 200,000 draws from the prior."""

from __future__ import annotations

import math

import pytest
import torch
from torch import Tensor
from torch.distributions import MultivariateNormal

from metarun import draws
from metarun.predictive import mean, nll
from metarun.tasks.ambiguous import FAMILIES, ambiguous
from metarun.tasks.posterior import Family, Posterior, hypotheses
from metarun.testing import double
from metarun.types import Examples

WIDE = 60.0


def _plane(x: Tensor, slope: Tensor) -> tuple[Tensor, Tensor]:
    rise = slope * x
    return torch.ones_like(rise), rise


def examples(count: int = 4) -> Examples:
    x = torch.linspace(-2.0, 3.0, count, dtype=torch.float64)[:, None]
    return Examples(x, 0.5 * x + 1.0 + 0.2 * draws.normal(draws.key(0, "y"), count, 1, dtype=torch.float64))


def test_the_evidence_of_lines_under_a_wide_prior_is_the_integral_of_a_gaussian():
    """Over all slopes and offsets ∫ N(y; X w, σ² I) dw = (2πσ²)^(-K/2) exp(-|residual|²/2σ²) 2πσ² / √det(XᵀX), over a prior of 1/120²."""
    noise, points = 0.5, examples()
    family = Family(_plane, (-WIDE, WIDE), (-WIDE, WIDE))
    design = torch.cat([points.x, torch.ones_like(points.x)], dim=1)
    residual = points.y - design @ torch.linalg.lstsq(design, points.y).solution
    count = len(points.x)
    expected = -0.5 * (count - 2) * math.log(2.0 * math.pi * noise**2) - 0.5 * float(residual.square().sum()) / noise**2
    expected -= 0.5 * float(torch.logdet(design.T @ design)) + 2.0 * math.log(2.0 * WIDE)
    found = hypotheses(family, points, noise, 4000).log_shares.flatten().logsumexp(dim=0)
    assert float(found) == pytest.approx(expected, abs=2e-4)


def test_the_posterior_of_lines_under_a_wide_prior_is_that_of_linear_regression():
    """The mean is the least squares line, and a far query has the variance σ² (1 + zᵀ (XᵀX)⁻¹ z)."""
    points, x = examples(), torch.tensor([[0.0], [7.0]], dtype=torch.float64)
    design, asked = (torch.cat([each, torch.ones_like(each)], dim=1) for each in (points.x, x))
    line = torch.linalg.lstsq(design, points.y).solution
    found = Posterior([Family(_plane, (-3.0, 3.0), (-9.0, 9.0))], 0.3).predictive(points, x)
    torch.testing.assert_close(mean(found), asked @ line, rtol=0, atol=2e-3)
    covariance = 0.09 * (asked @ torch.linalg.inv(design.T @ design) @ asked.T + torch.eye(2, dtype=torch.float64))
    y = asked @ line + torch.tensor([[0.1], [-0.8]], dtype=torch.float64)
    each = torch.distributions.Normal(asked @ line, covariance.diagonal().sqrt()[:, None])
    assert float(nll(found, y)) == pytest.approx(-float(each.log_prob(y).mean()), abs=2e-3)
    whole = Examples(torch.cat([points.x, x]), torch.cat([points.y, y]))
    predictor = Posterior([Family(_plane, (-3.0, 3.0), (-9.0, 9.0))], 0.3)
    ratio = predictor.log_evidence(whole) - predictor.log_evidence(points)
    together = MultivariateNormal((asked @ line)[:, 0], covariance)
    assert float(ratio) == pytest.approx(float(together.log_prob(y[:, 0])), abs=2e-3)


@pytest.mark.parametrize("shots", [1, 2, 3])
def test_the_density_of_single_queries_is_the_ratio_of_evidences_with_and_without_them(shots: int):
    """Two ways to one number: weighted functions, and p(support and query) / p(support) on a finer grid."""
    source = ambiguous(shots=shots, queries=12)
    for index in range(6):
        support, query = double(source.episode("test", index))
        predicted = source.posterior(support, query.x)
        for row in range(12):
            point = slice(row, row + 1)
            whole = Examples(torch.cat([support.x, query.x[point]]), torch.cat([support.y, query.y[point]]))
            ratio = source.log_evidence(support) - source.log_evidence(whole)
            one = predicted._replace(means=predicted.means[:, :, point])
            assert float(nll(one, query.y[point])) == pytest.approx(float(ratio), abs=0.01)


@pytest.mark.parametrize("shots", [1, 2])
def test_mean_and_evidence_are_those_of_draws_from_the_prior(shots: int):
    """Importance sampling with 100,000 functions of each family, whose weights are their likelihoods of the support set."""
    source, count = ambiguous(shots=shots, queries=20), 100_000
    first, second = (draws.uniform(draws.key(0, name), count, 1, dtype=torch.float64) for name in ("first", "second"))
    for index in range(2):
        support, query = double(source.episode("test", index))
        values, weights = [], []
        for family in FAMILIES:
            theta = family.parameter[0] + (family.parameter[1] - family.parameter[0]) * first
            factor = family.coefficient[0] + (family.coefficient[1] - family.coefficient[0]) * second
            at = [basis * factor + rest for basis, rest in (family.basis(part.x[:, 0], theta) for part in (support, query))]
            weights.append(-(at[0] - support.y[:, 0]).square().sum(dim=1) / (2.0 * 0.09))
            values.append(at[1])
        log_weights = torch.cat(weights)
        expected = log_weights.softmax(dim=0) @ torch.cat(values)
        deviation = (log_weights.softmax(dim=0) @ torch.cat(values).square() - expected.square()).sqrt()
        effective = 1.0 / log_weights.softmax(dim=0).square().sum()
        apart = (mean(source.posterior(support, query.x))[:, 0] - expected).abs() / deviation
        assert float(apart.max()) < 5.0 / math.sqrt(float(effective)), float(effective)
        evidence = log_weights.logsumexp(dim=0) - math.log(2 * count) - 0.5 * shots * math.log(2.0 * math.pi * 0.09)
        assert float(source.log_evidence(support)) == pytest.approx(float(evidence), abs=5.0 / math.sqrt(float(effective)))


def test_padding_rows_change_neither_posterior_nor_evidence():
    points = examples()
    padded = Examples(*(torch.cat([part, torch.full((1, 1), 9.0, dtype=torch.float64)]) for part in points[:2]), torch.arange(5) < 4)
    predictor, x = Posterior(FAMILIES, 0.3), torch.tensor([[1.0]], dtype=torch.float64)
    torch.testing.assert_close(predictor.log_evidence(padded), predictor.log_evidence(points))
    torch.testing.assert_close(mean(predictor.predictive(padded, x)), mean(predictor.predictive(points, x)))


def test_an_observation_that_no_function_explains_gives_a_finite_prediction():
    far = Examples(torch.tensor([[0.0], [0.01]], dtype=torch.float64), torch.tensor([[30.0], [-30.0]], dtype=torch.float64))
    predictor, x = Posterior(FAMILIES, 0.3), torch.tensor([[1.0]], dtype=torch.float64)
    assert torch.isfinite(mean(predictor.predictive(far, x))).all()
    assert torch.isfinite(predictor.log_evidence(far))
