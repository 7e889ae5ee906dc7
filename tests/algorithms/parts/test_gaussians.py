"""Gaussians over weights: the divergence against torch's own, its gradient against differences, samples against their moments."""

from __future__ import annotations

import math

import pytest
import torch
from small import Lines, algorithm_of, conv_network, dense_network, few_shot
from torch import Tensor
from torch.autograd import gradcheck
from torch.distributions import Normal, kl_divergence

from metarun import draws, testing
from metarun.algorithms.parts.gaussians import Gaussian, Sampled, draw, kl, mixture_loss, sampled_distribution, sampled_outputs
from metarun.engine.evaluation import score_episode
from metarun.objectives import CLASSIFICATION, REGRESSION
from metarun.predictive import averaged

KEY = draws.key(0, "noise")
SHAPES = {"body.weight": (3, 2), "head.bias": (4,)}


def gaussian(name: str) -> Gaussian:
    def values(part: str) -> dict[str, Tensor]:
        return {
            weight: 0.5 * draws.normal(draws.key(1, name, part, weight), *shape, dtype=torch.float64) for weight, shape in SHAPES.items()
        }

    return Gaussian(values("mean"), values("log_std"))


def test_the_divergence_by_hand():
    """N(1, 1) from N(0, 4): log 2 + (1 + 1) / 8 - 1/2."""
    q, p = (Gaussian({"w": torch.tensor([mean])}, {"w": torch.tensor([math.log(std)])}) for mean, std in ((1.0, 1.0), (0.0, 2.0)))
    assert float(kl(q, p)) == pytest.approx(math.log(2.0) + 0.25 - 0.5)


def test_the_divergence_is_that_of_torch_summed_over_the_weights():
    q, p = gaussian("q"), gaussian("p")
    expected = sum(kl_divergence(*(Normal(each.mean[name], each.log_std[name].exp()) for each in (q, p))).sum() for name in SHAPES)
    torch.testing.assert_close(kl(q, p), expected, rtol=1e-12, atol=1e-12)


def test_the_divergence_of_a_gaussian_from_itself_and_its_gradient_are_zero():
    q = gaussian("q")
    leaves = [value.requires_grad_() for part in q for value in part.values()]
    divergence = kl(q, Gaussian(*({name: value.detach() for name, value in part.items()} for part in q)))
    assert divergence.item() == 0.0
    assert all((gradient == 0).all() for gradient in torch.autograd.grad(divergence, leaves))


def test_the_gradient_of_the_divergence_equals_finite_differences():
    leaves = [value.requires_grad_() for each in (gaussian("q"), gaussian("p")) for part in each for value in part.values()]

    def divergence(*values: Tensor) -> Tensor:
        parts = [dict(zip(SHAPES, values[start : start + 2], strict=True)) for start in (0, 2, 4, 6)]
        return kl(Gaussian(*parts[:2]), Gaussian(*parts[2:]))

    assert gradcheck(divergence, leaves)


def test_the_heads_weights_of_absent_ways_are_left_out():
    q, p = gaussian("q"), gaussian("p")
    present = torch.tensor([True, False, True, False])

    def rows(each: Gaussian) -> Gaussian:
        return Gaussian(*({**part, "head.bias": part["head.bias"][present]} for part in each))

    torch.testing.assert_close(kl(q, p, present), kl(rows(q), rows(p)), rtol=1e-12, atol=1e-12)


def test_samples_have_the_mean_and_the_deviation_of_the_gaussian():
    """Of 20,000 samples, within 4 standard errors: 4 σ / √20,000 of the mean and about 4 σ / √40,000 of the deviation."""
    q = gaussian("q")
    for name, samples in draw(q, KEY, 20_000).items():
        std = q.log_std[name].exp()
        assert samples.shape == (20_000, *SHAPES[name])
        assert ((samples.mean(dim=0) - q.mean[name]).abs() < 0.03 * std).all()
        assert ((samples.std(dim=0) - std).abs() < 0.02 * std).all()


def test_samples_hang_on_the_key_alone_and_the_first_ones_not_on_their_number():
    q = gaussian("q")
    few, many, other = draw(q, KEY, 3), draw(q, KEY, 5), draw(q, KEY + 1, 3)
    for name in SHAPES:
        assert torch.equal(few[name], many[name][:3])
        assert not torch.equal(few[name], other[name])
        assert not torch.equal(few[name][0], few[name][1])


def test_the_gradient_of_a_sample_is_one_by_the_mean_and_the_noise_by_the_deviation():
    q = gaussian("q")
    q.mean["head.bias"].requires_grad_()
    q.log_std["head.bias"].requires_grad_()
    samples = draw(q, KEY, 1)["head.bias"][0]
    by_mean, by_log_std = torch.autograd.grad(samples.sum(), [q.mean["head.bias"], q.log_std["head.bias"]])
    assert (by_mean == 1).all()
    torch.testing.assert_close(by_log_std, (samples - q.mean["head.bias"]).detach(), rtol=1e-12, atol=1e-12)


@pytest.mark.parametrize("norm", ["batch", "support", "reptile", "running"])
def test_every_sample_predicts_what_a_network_with_its_weights_does(norm: str):
    network, episode = conv_network(norm), testing.double(few_shot().episode("val", 0))
    params, state = testing.double(network.init())
    held = {name: params[name] for name in network.norm_params}
    q = Gaussian(*({name: params[name] - shift for name in params if name not in held} for shift in (0.0, 3.0)))
    weights = draw(q, KEY, 3)
    outputs = sampled_outputs(network, Sampled(weights, held, state, episode.support, None), episode.query.x)
    for number, output in enumerate(outputs):
        one = held | {name: value[number] for name, value in weights.items()}
        expected = network.on_query(network.fit(one, state, episode.support, training=False), episode.query.x)[0]
        torch.testing.assert_close(output, expected, rtol=1e-10, atol=1e-10)


def test_probabilities_are_averaged_and_not_logits():
    """Probabilities (0.9, 0.1) and (0.5, 0.5) average to (0.7, 0.3); the mean logits would give (0.75, 0.25)."""
    outputs = torch.tensor([[[math.log(9.0), 0.0]], [[3.0, 3.0]]])
    torch.testing.assert_close(averaged(outputs, "classification").softmax(dim=-1), torch.tensor([[0.7, 0.3]]))
    torch.testing.assert_close(averaged(outputs, "regression"), outputs.mean(dim=0))


def test_the_loss_of_a_mixture_is_the_likelihood_of_its_average():
    """Class 0 has probability 0.7: -log 0.7. Regression outputs 0 and 2 around y = 0 at deviation 1: as in tests/test_predictive.py."""
    outputs = torch.tensor([[[math.log(9.0), 0.0]], [[3.0, 3.0]]])
    loss = mixture_loss(CLASSIFICATION, outputs, torch.tensor([[1.0, 0.0]]), None, None)
    assert float(loss) == pytest.approx(-math.log(0.7), abs=1e-6)
    loss = mixture_loss(REGRESSION, torch.tensor([[[0.0]], [[2.0]]]), torch.zeros(1, 1), None, torch.tensor(0.0))
    assert float(loss) == pytest.approx(-math.log((1.0 + math.exp(-2.0)) / 2.0 / math.sqrt(2.0 * math.pi)), abs=1e-6)


def test_the_distribution_of_samples_is_around_their_outputs_with_the_learned_variance():
    """log σ = log 2, so the variance is 4; a classification has no such variance."""
    network = dense_network()
    params, state = testing.start(algorithm_of("pmaml", "regression"))
    weights = {name: torch.stack([params[name], 2.0 * params[name]]) for name in network.names}
    support = testing.double(Lines().episode("val", 0)).support
    sampled = Sampled(weights, {}, state, support, None, torch.tensor(math.log(2.0), dtype=torch.float64))
    found = sampled_distribution(network, sampled, support.x)
    assert float(found.variance) == pytest.approx(4.0)
    torch.testing.assert_close(found.means[:, 0], sampled_outputs(network, sampled, support.x))
    with pytest.raises(ValueError, match="a classification has no noise"):
        sampled_distribution(network, sampled._replace(log_noise=None), support.x)


@pytest.mark.parametrize("name", ["pmaml", "metaprior"])
def test_the_own_likelihood_of_an_algorithm_is_under_the_variance_that_it_learned(name: str):
    """A fitted variance of the same size gives the same number."""
    algorithm = algorithm_of(name, "regression")
    params, state = testing.start(algorithm)
    params["log_noise"] = torch.tensor(0.3, dtype=torch.float64)
    episode, key = testing.double(Lines().episode("val", 0)), torch.tensor(1)
    scored = score_episode(algorithm, params, state, episode, key, variance=torch.tensor(0.6, dtype=torch.float64).exp())
    torch.testing.assert_close(scored["own_nll"], scored["nll"], rtol=1e-9, atol=1e-9)
