"""The predictive mixture against numbers by hand, torch's own distributions, and simulated targets."""

from __future__ import annotations

import math

import pytest
import torch
from torch.distributions import Categorical, Independent, MixtureSameFamily, Normal

from metarun import draws
from metarun.predictive import Predictive, coverage, fit_variance, joint_nll, mean, nll, quantile, spread

ONE = torch.tensor(1.0, dtype=torch.float64)


def predictive(samples: list[list[list[float]]], variance: float = 1.0) -> Predictive:
    return Predictive.around(torch.tensor(samples, dtype=torch.float64), variance * ONE)


def targets(*rows: list[float]) -> torch.Tensor:
    return torch.tensor(rows, dtype=torch.float64)


def random_mixture(targets: int = 2) -> tuple[Predictive, torch.Tensor]:
    samples = draws.normal(draws.key(0, "samples"), 7, 5, targets, dtype=torch.float64)
    return Predictive.around(samples, 0.3 * ONE), draws.normal(draws.key(0, "y"), 5, targets, dtype=torch.float64)


def test_one_sample_is_a_gaussian():
    """Variance 4, errors 0 and 2: log(√(2π) 2) + 0 and + 4/8, of which the mean."""
    expected = math.log(2.0 * math.sqrt(2.0 * math.pi)) + 0.25
    assert float(nll(predictive([[[1.0], [1.0]]], 4.0), targets([1.0], [3.0]))) == pytest.approx(expected)


def test_two_samples_share_the_density_by_hand():
    """Samples 0 and 2, variance 1, y = 0: p = (φ(0) + φ(2)) / 2 with φ(z) = exp(-z²/2) / √(2π)."""
    density = (1.0 + math.exp(-2.0)) / 2.0 / math.sqrt(2.0 * math.pi)
    assert float(nll(predictive([[[0.0]], [[2.0]]]), targets([0.0]))) == pytest.approx(-math.log(density))


def test_the_likelihood_is_that_of_torchs_mixture_over_all_targets_of_an_example():
    mixture, y = random_mixture()
    parts = Independent(Normal(mixture.means[:, 0].movedim(0, 1), mixture.variance.sqrt()), 1)
    expected = -MixtureSameFamily(Categorical(torch.ones(5, 7, dtype=torch.float64)), parts).log_prob(y).mean()
    torch.testing.assert_close(nll(mixture, y), expected, rtol=1e-12, atol=1e-12)


def test_a_sample_that_comes_twice_changes_nothing():
    mixture, y = random_mixture()
    twice = mixture._replace(means=torch.cat([mixture.means] * 2))
    for figure in (nll, coverage):
        torch.testing.assert_close(figure(twice, y), figure(mixture, y), rtol=1e-12, atol=1e-12)
    torch.testing.assert_close(spread(twice), spread(mixture), rtol=1e-12, atol=1e-12)


def test_the_quantiles_of_a_gaussian_are_the_table_s():
    """Mean 1, deviation 2: 1 ± 2 · 1.6448536 at 5 and 95 %, 1 at the half."""
    gaussian = predictive([[[1.0]]], 4.0)
    found = [float(quantile(gaussian, level)) for level in (0.05, 0.5, 0.95)]
    assert found == pytest.approx([1.0 - 3.2897073, 1.0, 1.0 + 3.2897073], abs=1e-6)


@pytest.mark.parametrize("level", [0.05, 0.3, 0.5, 0.95])
def test_so_much_of_the_mixture_lies_below_a_quantile(level: float):
    """Also between samples that lie far apart: the distribution function of torch's mixture, at the quantile, is the level."""
    for mixture in (random_mixture()[0], predictive([[[-9.0]], [[5.0]]], 0.25)):
        reached = Normal(mixture.means[:, 0], mixture.variance.sqrt()).cdf(quantile(mixture, level)).mean(dim=0)
        torch.testing.assert_close(reached, torch.full_like(reached, level), rtol=0, atol=1e-6)


def test_the_interval_of_a_gaussian_is_1_645_deviations_either_side():
    """Deviation 2: 3.289 and 3.291 lie within and beyond 2 · 1.64485 = 3.2897."""
    mixture = predictive([[[0.0]] * 4], 4.0)
    assert float(coverage(mixture, targets([3.289], [3.291], [-3.289], [-3.291]))) == 0.5


def test_between_two_far_samples_is_inside_and_beyond_the_outer_twentieth_is_not():
    """Samples 0 and 100: F is 1/2 Φ(y) below, so 0.05 where Φ(y) = 0.1, y = -1.28155, and by symmetry 0.95 at 101.28155."""
    mixture = predictive([[[0.0]] * 5, [[100.0]] * 5])
    y = targets([50.0], [-1.281], [-1.282], [101.281], [101.282])
    assert float(coverage(mixture, y)) == pytest.approx(3 / 5)


def test_half_the_targets_lie_in_the_interval_of_one_half_and_nine_tenths_in_that_of_nine_tenths():
    """Targets drawn from the mixture itself: the share is binomial, 20,000 draws of it within 0.01."""
    keys = draws.key(0, "which"), draws.key(0, "noise")
    samples = torch.tensor([-1.0, 0.5, 4.0], dtype=torch.float64)[:, None, None].expand(3, 20_000, 1)
    y = samples[draws.integers(keys[0], 20_000, size=3), 0, 0] + 0.7 * draws.normal(keys[1], 20_000, dtype=torch.float64)
    for level in (0.5, 0.9):
        assert float(coverage(Predictive.around(samples, 0.49 * ONE), y[:, None], level=level)) == pytest.approx(level, abs=0.01)


def test_the_spread_adds_the_variance_of_the_samples_to_that_of_the_observations():
    """Samples -1 and 1 have variance 1: √(3 + 1) = 2; equal ones leave √3."""
    assert float(spread(predictive([[[-1.0], [5.0]], [[1.0], [5.0]]], 3.0))) == pytest.approx((2.0 + math.sqrt(3.0)) / 2)


@pytest.mark.parametrize("content", [0.0, 1e30, math.inf, math.nan])
def test_a_padding_row_changes_no_figure_and_no_gradient(content: float):
    mixture, y = random_mixture()
    mask = torch.tensor([True] * 5 + [False])
    padded = torch.cat([mixture.means[:, 0], torch.full((7, 1, 2), content, dtype=torch.float64)], dim=1).requires_grad_()
    longer = torch.cat([y, torch.full((1, 2), 3.0, dtype=torch.float64)])
    for figure in (nll, joint_nll, coverage):
        torch.testing.assert_close(
            figure(Predictive.around(padded, mixture.variance), longer, mask), figure(mixture, y), rtol=1e-12, atol=1e-12
        )
    torch.testing.assert_close(spread(Predictive.around(padded, mixture.variance), mask), spread(mixture), rtol=1e-12, atol=1e-12)
    plain = mixture.means[:, 0].requires_grad_()
    expected = torch.autograd.grad(nll(Predictive.around(plain, mixture.variance), y), plain)[0]
    found = torch.autograd.grad(nll(Predictive.around(padded, mixture.variance), longer, mask), padded)[0]
    torch.testing.assert_close(found[:, :5], expected, rtol=1e-12, atol=1e-12)
    assert (found[:, 5] == 0).all()


def test_the_fitted_variance_of_one_sample_is_the_mean_squared_error():
    squared = torch.tensor([[[1.0, 3.0]], [[2.0, 6.0]]], dtype=torch.float64)
    assert float(fit_variance(squared)) == 3.0


def test_the_fitted_variance_is_the_most_likely_one():
    """At the optimum the derivative of the likelihood by log v vanishes, and twice or half as much is less likely."""
    mixture, y = random_mixture()
    fitted = fit_variance((y - mixture.means[:, 0]).square().movedim(0, 1)).requires_grad_()
    slope = torch.autograd.grad(nll(mixture._replace(variance=fitted), y), fitted)[0] * fitted
    assert abs(float(slope.detach())) < 1e-6
    best = nll(mixture._replace(variance=fitted), y)
    assert all(nll(mixture._replace(variance=factor * fitted), y) > best for factor in (0.5, 2.0))


def test_means_of_another_shape_than_the_targets_are_refused():
    with pytest.raises(ValueError, match=r"means of shape \(1, 1, 2, 1\) do not fit targets of shape \(2,\)"):
        nll(predictive([[[1.0], [1.0]]]), torch.zeros(2, dtype=torch.float64))


# Whole tasks: the joint likelihood


def test_the_joint_likelihood_of_two_functions_by_hand():
    """Functions (0, 0) and (2, 2), variance 1, y = (0, 0): p = (φ(0)² + φ(2)²) / 2, of which each query has half the logarithm.

    One by one, each query has (φ(0) + φ(2)) / 2: this likelihood does not know that the second query is of the same function.
    """
    mixture, y = predictive([[[0.0], [0.0]], [[2.0], [2.0]]]), targets([0.0], [0.0])
    joint = (1.0 + math.exp(-4.0)) / 2.0 / (2.0 * math.pi)
    assert float(joint_nll(mixture, y)) == pytest.approx(-0.5 * math.log(joint))
    assert float(nll(mixture, y)) == pytest.approx(-math.log((1.0 + math.exp(-2.0)) / 2.0 / math.sqrt(2.0 * math.pi)))


def test_with_one_hypothesis_the_joint_likelihood_is_the_product_of_the_marginal_ones():
    for mixture, y in ((predictive([[[1.0], [1.0]]], 4.0), targets([1.0], [3.0])), per_example(hypotheses=1)):
        torch.testing.assert_close(joint_nll(mixture, y), nll(mixture, y), rtol=1e-12, atol=1e-12)


def test_functions_that_swap_their_values_have_the_same_marginal_and_another_joint_likelihood():
    straight, crossed = predictive([[[0.0], [0.0]], [[2.0], [2.0]]]), predictive([[[0.0], [2.0]], [[2.0], [0.0]]])
    y = targets([0.0], [0.0])
    assert float(nll(straight, y)) == pytest.approx(float(nll(crossed, y)))
    assert float(joint_nll(straight, y)) < float(joint_nll(crossed, y))


# Mixtures with weights and variances of each example


def per_example(hypotheses: int = 2, components: int = 3) -> tuple[Predictive, torch.Tensor]:
    """Return random means, variances and weights for 5 examples of 2 targets, and targets."""
    key, shape = draws.key(1, "mixture"), (hypotheses, components, 5, 2)

    def normal(name: str, *sizes: int) -> torch.Tensor:
        return draws.normal(draws.fold(key, name), *sizes, dtype=torch.float64)

    weights, priors = normal("weights", *shape[:3]).log_softmax(dim=1), normal("priors", hypotheses).log_softmax(dim=0)
    return Predictive(normal("means", *shape), (0.5 * normal("variance", *shape)).exp(), weights, priors), normal("y", 5, 2)


def densities(mixture: Predictive, y: torch.Tensor) -> torch.Tensor:
    """Return p_s(y_b), (S, B), by torch's own mixtures."""
    assert mixture.log_weights is not None
    parts = Independent(Normal(mixture.means.movedim(1, 2), mixture.variance.sqrt().movedim(1, 2)), 1)
    return MixtureSameFamily(Categorical(logits=mixture.log_weights.movedim(1, 2)), parts).log_prob(y).exp()


def test_both_likelihoods_are_those_of_torchs_mixtures():
    mixture, y = per_example()
    assert mixture.log_priors is not None
    each, priors = densities(mixture, y), mixture.log_priors.exp()
    torch.testing.assert_close(nll(mixture, y), -(priors @ each).log().mean(), rtol=1e-12, atol=1e-12)
    torch.testing.assert_close(joint_nll(mixture, y), -(priors @ each.prod(dim=1)).log() / 5, rtol=1e-12, atol=1e-12)


def test_mean_and_spread_are_the_moments_of_torchs_mixture():
    mixture, _ = per_example(hypotheses=1)
    assert mixture.log_weights is not None
    parts = Normal(mixture.means[0].movedim(0, -1), mixture.variance[0].sqrt().movedim(0, -1))
    same = MixtureSameFamily(Categorical(logits=mixture.log_weights[0].T[:, None].expand(5, 2, 3)), parts)
    torch.testing.assert_close(mean(mixture), same.mean, rtol=1e-12, atol=1e-12)
    torch.testing.assert_close(spread(mixture), same.variance.sqrt().mean(), rtol=1e-12, atol=1e-12)


def test_a_quantile_of_weighted_gaussians_has_so_much_of_them_below_it():
    mixture, _ = per_example()
    assert mixture.log_weights is not None
    assert mixture.log_priors is not None
    below = Normal(mixture.means, mixture.variance.sqrt()).cdf(quantile(mixture, 0.2))
    shares = mixture.log_priors.exp()[:, None, None, None] * mixture.log_weights.exp()[..., None]
    torch.testing.assert_close((shares * below).sum(dim=(0, 1)), torch.full((5, 2), 0.2, dtype=torch.float64), rtol=0, atol=1e-9)


def test_equal_weights_that_are_written_down_change_nothing():
    mixture, y = random_mixture()
    written = Predictive(
        mixture.means,
        mixture.variance.expand_as(mixture.means),
        torch.zeros(7, 1, 5, dtype=torch.float64),
        torch.full((7,), -math.log(7.0), dtype=torch.float64),
    )
    for figure in (nll, joint_nll, coverage):
        torch.testing.assert_close(figure(written, y), figure(mixture, y), rtol=1e-12, atol=1e-12)
    torch.testing.assert_close(spread(written), spread(mixture), rtol=1e-12, atol=1e-12)


@pytest.mark.parametrize("content", [0.0, 1e30, math.inf, math.nan])
def test_a_padding_row_changes_no_figure_and_no_gradient_of_a_weighted_mixture(content: float):
    mixture, y = per_example()
    mask = torch.tensor([True] * 5 + [False])
    assert mixture.log_weights is not None

    def longer(values: torch.Tensor, axis: int) -> torch.Tensor:
        row = torch.full_like(values.narrow(axis, 0, 1), content)
        return torch.cat([values, row], dim=axis).detach().requires_grad_()

    padded = Predictive(longer(mixture.means, 2), longer(mixture.variance, 2), longer(mixture.log_weights, 2), mixture.log_priors)
    targets = torch.cat([y, torch.full((1, 2), 3.0, dtype=torch.float64)])
    for figure in (nll, joint_nll, coverage):
        torch.testing.assert_close(figure(padded, targets, mask), figure(mixture, y), rtol=1e-12, atol=1e-12)
    leaves = [padded.means, padded.variance, padded.log_weights]
    gradients = torch.autograd.grad(nll(padded, targets, mask) + joint_nll(padded, targets, mask), leaves)
    assert all(bool(gradient.isfinite().all()) for gradient in gradients)
    assert all(bool((gradient.select(2, 5) == 0).all()) for gradient in gradients)


def test_the_gradients_of_both_likelihoods_equal_finite_differences():
    mixture, y = per_example()
    leaves = [mixture.means, mixture.variance, mixture.log_weights, mixture.log_priors]
    leaves = [leaf.detach().requires_grad_() for leaf in leaves if leaf is not None]
    for figure in (nll, joint_nll):
        assert torch.autograd.gradcheck(lambda *parts, figure=figure: figure(Predictive(*parts), y), leaves)
