"""PLATIPUS: MAML with a distribution of initialisations, from which a task samples.

Chelsea Finn, Kelvin Xu, Sergey Levine. "Probabilistic Model-Agnostic Meta-Learning", NeurIPS 2018. https://arxiv.org/abs/1806.02817

    q(θ | query)    =  N(μ - γ_q ∇L(μ, query), v_q)             in training only      (algorithm 1, lines 6 and 7)
    p(θ | support)  =  N(μ - γ_p ∇L(μ, support), σ²)                                  (algorithm 1, line 10; algorithm 2, line 2)
    inner:  φ = θ - α ∇_θ L(θ, support)                          repeated `inner_steps` times
    outer:  minimise E_q[-log p(query | φ)] + KL(q ‖ p)          over μ, σ, v_q, γ_p, γ_q         (equation 2 and line 11)
    test:   θ_1 … θ_S ~ p(θ | support), each adapted to φ_s; their predictions are averaged       (algorithm 2)

Several functions may fit the support set. In training, q infers θ from the query set, which shows the right function. At test, p
draws θ from the support set alone. The KL term widens p until it covers the scatter of q, so samples of an ambiguous task differ. The
means of both Gaussians are one gradient step away from the same μ. Gradients flow through these steps and through the sample.

L is the mean loss (squared error or cross entropy). The bound is divided by the number of query examples, and `kl_weight=1` is the exact
bound. The paper does not say how it weighs the two terms; a smaller value tempers the KL. In regression the likelihood is a Gaussian, and
the outer loop learns its variance. `init_from` starts μ from a MAML run.
"""

from __future__ import annotations

import math
from dataclasses import dataclass

import torch
from torch import Tensor
from torch.func import grad

from metarun.algorithms.parts.gaussians import (
    LOG_NOISE,
    Gaussian,
    Sampled,
    count_of,
    draw,
    held_part,
    kl,
    mixture_loss,
    random_part,
    sampled_distribution,
    sampled_outputs,
)
from metarun.algorithms.parts.members import check_steps, last_of_trajectory, sample_average, steps_of, track_running
from metarun.errors import UserError
from metarun.functional import map_tasks
from metarun.network import Network, present_classes
from metarun.objectives import Objective
from metarun.predictive import Predictive
from metarun.types import Aux, Episode, Examples, Params, State, constant
from metarun.values import Few, FewOrZero, NotNegative, Positive

PRIOR_STD, POSTERIOR_STD = "log_sigma.", "log_v."
GAMMA_P, GAMMA_Q = "gamma_p", "gamma_q"


@dataclass(frozen=True)
class Pmaml:
    """PLATIPUS.

    inner_lr: α, per inner step. inner_steps: in training. test_inner_steps: at validation and test; None for as many as in training.
    first_order: drop the second derivatives, of the two γ-steps too. samples: S, at validation and test; training draws one.
    kl_weight: of the KL in the bound. init_gamma: γ_p and γ_q at the start. init_std: the standard deviations σ and √v_q of the weights at
        the start. init_noise: the standard deviation of a regression's observations at the start.
    """

    network: Network
    objective: Objective
    inner_lr: NotNegative = 0.4
    inner_steps: FewOrZero = 1
    test_inner_steps: FewOrZero | None = None
    first_order: bool = False
    samples: Few = 20
    kl_weight: NotNegative = 1.0
    init_gamma: NotNegative = 0.01
    init_std: Positive = 0.02
    init_noise: Positive = 1.0

    def __post_init__(self) -> None:
        check_steps(self)
        if self.samples < 1 or self.kl_weight < 0:
            raise UserError(f"algo.samples={self.samples} must be at least 1 and algo.kl_weight={self.kl_weight} not negative.")
        if not (self.init_std > 0 and self.init_noise > 0):
            raise UserError(f"algo.init_std={self.init_std} and algo.init_noise={self.init_noise} must be above 0.")

    def init(self, key: Tensor) -> tuple[Params, State]:
        """Return μ under the names of the network's parameters, the logarithms of σ and √v_q, γ_p, γ_q, and the running statistics."""
        params, state = self.network.init()
        extra = {GAMMA_P: torch.tensor(self.init_gamma), GAMMA_Q: torch.tensor(self.init_gamma)}
        for name, value in random_part(self.network, params).items():
            for prefix in (PRIOR_STD, POSTERIOR_STD):
                extra[prefix + name] = torch.full_like(value, math.log(self.init_std))
        if self.objective.kind == "regression":
            extra[LOG_NOISE] = torch.tensor(math.log(self.init_noise))
        return params | extra, state

    def trajectory(self, params: Params, state: State, support: Examples, key: Tensor, *, training: bool = False) -> list[Sampled]:
        """Return the samples θ of p(θ | support), and their φ after each inner step."""
        held, classes = held_part(self.network, params), present_classes(support, self.objective)
        prior = self._gaussian(params, GAMMA_P, PRIOR_STD, state, support, classes, training)

        def inner_loop(theta: Params) -> list[Params]:
            path = [theta]
            for _ in range(steps_of(self, training=training)):
                path.append(self._descend(path[-1], held, self.inner_lr, state, support, classes, training))
            return path

        path = map_tasks(inner_loop, draw(prior, key, self.samples))
        return [Sampled(weights, held, state, support, classes, params.get(LOG_NOISE)) for weights in path]

    def sampled(self, adapted: Sampled, x: Tensor, mask: Tensor | None = None) -> Tensor:
        """Return the outputs of each sample, (S, B, N) or (S, B, D)."""
        return sampled_outputs(self.network, adapted, x, mask)

    def distribution(self, adapted: Sampled, x: Tensor, mask: Tensor | None = None) -> Predictive:
        """Return the mixture of Gaussians around the samples under the learned variance, in regression."""
        return sampled_distribution(self.network, adapted, x, mask)

    def loss(self, params: Params, state: State, episode: Episode, key: Tensor, step: Tensor) -> tuple[Tensor, Aux]:
        """Return the negative bound per query example, with one sample of q."""
        support, query = episode
        classes, held = present_classes(support, self.objective), held_part(self.network, params)
        q = self._gaussian(params, GAMMA_Q, POSTERIOR_STD, state, query, classes, training=True)
        p = self._gaussian(params, GAMMA_P, PRIOR_STD, state, support, classes, training=True)
        weights = {name: value[0] for name, value in draw(q, key, 1).items()}
        for _ in range(self.inner_steps):
            weights = self._descend(weights, held, self.inner_lr, state, support, classes, training=True)
        fitted = self.network.fit({**held, **weights}, state, support, classes, training=True)
        outputs, statistics = self.network.on_query(fitted, query.x, query.mask, collect=True)
        loss = mixture_loss(self.objective, outputs[None], query.y, query.mask, params.get(LOG_NOISE))
        divergence = kl(q, p, classes)
        score = self.objective.score(outputs, query.y, query.mask)
        metrics = {"loss": loss, "kl": divergence, self.objective.metric: score}
        return loss + self.kl_weight * divergence / count_of(query), Aux.of(metrics, statistics)

    def _gaussian(
        self, params: Params, gamma: str, std: str, state: State, examples: Examples, classes: Tensor | None, training: bool
    ) -> Gaussian:
        """Return the Gaussian whose mean is μ after one gradient step on these examples."""
        mean = random_part(self.network, params)
        stepped = self._descend(mean, held_part(self.network, params), params[gamma], state, examples, classes, training)
        return Gaussian(stepped, {name: params[std + name] for name in mean})

    def _descend(
        self, weights: Params, held: Params, lr: Tensor | float, state: State, examples: Examples, classes: Tensor | None, training: bool
    ) -> Params:
        """Return the weights after one gradient step on the mean loss of the examples."""

        def mean_loss(moving: Params) -> Tensor:
            outputs = self.network.on_support({**held, **moving}, state, examples, classes, training=training)
            return self.objective.loss(outputs, examples.y, examples.mask)

        if self.first_order:
            held = constant(held)
            gradients = grad(mean_loss)(constant(weights))
        else:
            gradients = grad(mean_loss)(weights)
        return {name: value - lr * gradients[name] for name, value in weights.items()}

    adapt = last_of_trajectory
    predict = sample_average
    update_state = track_running
