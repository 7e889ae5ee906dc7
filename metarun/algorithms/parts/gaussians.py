"""Gaussians over the weights of a network with one variance for each weight, and the predictions of networks with sampled weights.

For methods that keep a distribution of weights instead of a point. The distribution covers all weights but the scales and shifts of
normalisation. These have one value each, which the outer loop learns, as in MAML.
"""

from __future__ import annotations

from typing import NamedTuple

import torch
from torch import Tensor

from metarun import draws
from metarun.functional import map_tasks
from metarun.network import Network
from metarun.objectives import Objective
from metarun.predictive import Predictive, averaged, nll
from metarun.types import Examples, Params, State

LOG_NOISE = "log_noise"
"""Name of the logarithm of the observations' standard deviation among the parameters of a regression."""


class Gaussian(NamedTuple):
    """N(mean, exp(log_std)²), independent over the weights; both by the weights' names, of their shapes."""

    mean: Params
    log_std: Params


class Sampled(NamedTuple):
    """A network with S sampled weights, ready for queries.

    weights: (S, ...) by name. held: the parameters that all samples share. state, support: these normalise queries.
    classes: (N,) bool, the ways that the episode has; None where it has all, and in regression. log_noise: as `LOG_NOISE`; None in
    classification.
    """

    weights: Params
    held: Params
    state: State
    support: Examples
    classes: Tensor | None
    log_noise: Tensor | None = None


def random_part(network: Network, params: Params) -> Params:
    """Return the parameters that have a distribution: all of the network's but the scales and shifts of normalisation."""
    return {name: params[name] for name in network.names if name not in network.norm_params}


def held_part(network: Network, params: Params) -> Params:
    """Return the parameters that have one value: the scales and shifts of normalisation."""
    return {name: params[name] for name in network.norm_params}


def count_of(examples: Examples) -> Tensor | int:
    """Return the number of real rows."""
    return len(examples.x) if examples.mask is None else examples.mask.sum()


def draw(gaussian: Gaussian, key: Tensor, count: int) -> Params:
    """Return `count` samples by reparameterisation, mean + std · noise, (S, ...) by name.

    Each sample has a key of its own, so the first samples do not depend on `count`.
    """

    def one(name: str, mean: Tensor) -> Tensor:
        keys = draws.fold(draws.fold(key, name), torch.arange(count, device=key.device))
        return mean + gaussian.log_std[name].exp() * draws.noise(keys, *mean.shape, dtype=mean.dtype)

    return {name: one(name, mean) for name, mean in gaussian.mean.items()}


def kl(q: Gaussian, p: Gaussian, classes: Tensor | None = None) -> Tensor:
    """Return KL(q ‖ p) in nats, summed over the weights:

        Σ log(σ_p / σ_q) + (σ_q² + (μ_q - μ_p)²) / (2 σ_p²) - 1/2

    classes: (N,) bool, the ways that the episode has; the sum leaves out the head's weights of the other ways.
    """

    def one(name: str) -> Tensor:
        ratio = q.log_std[name] - p.log_std[name]
        apart = (q.mean[name] - p.mean[name]) * (-p.log_std[name]).exp()
        each = -ratio + 0.5 * ((2.0 * ratio).exp() + apart.square() - 1.0)
        if classes is not None and name.startswith("head."):
            each = torch.where(classes.view(-1, *[1] * (each.dim() - 1)), each, 0.0)
        return each.sum()

    return torch.stack([one(name) for name in q.mean]).sum()


def sampled_outputs(network: Network, sampled: Sampled, x: Tensor, mask: Tensor | None = None) -> Tensor:
    """Return each sample's outputs (S, B, N) or (S, B, D) on queries x (B, ...)."""

    def one(weights: Params) -> Tensor:
        fitted = network.fit({**sampled.held, **weights}, sampled.state, sampled.support, sampled.classes, training=False)
        return network.on_query(fitted, x, mask)[0]

    outputs: Tensor = map_tasks(one, sampled.weights)
    return outputs


def sampled_distribution(network: Network, sampled: Sampled, x: Tensor, mask: Tensor | None = None) -> Predictive:
    """Return the mixture of one Gaussian around each sample's outputs (S, B, D), with the learned variance. For regression."""
    if sampled.log_noise is None:
        raise ValueError("a classification has no noise of observations, so its samples have no distribution of targets")
    return Predictive.around(sampled_outputs(network, sampled, x, mask), (2.0 * sampled.log_noise).exp())


def mixture_loss(objective: Objective, outputs: Tensor, y: Tensor, mask: Tensor | None, log_noise: Tensor | None) -> Tensor:
    """Return the mean negative log-likelihood of the real rows under the equal mixture of outputs (S, B, N), in nats.

    log_noise: logarithm of the standard deviation of a regression's observations; None in classification.
    """
    if log_noise is None:
        return objective.loss(averaged(outputs, objective.kind), y, mask)
    return nll(Predictive.around(outputs, (2.0 * log_noise).exp()), y, mask)
