"""Meta-learned prior: tasks teach the prior of the weights, and a task's posterior is a few variational steps away from it.

Sachin Ravi, Alex Beatson. "Amortized Bayesian Meta-Learning", ICLR 2019. https://openreview.net/forum?id=rkgpy3C5tX
Ron Amit, Ron Meir. "Meta-Learning by Adjusting Priors Based on Extended PAC-Bayes Theory", ICML 2018. https://arxiv.org/abs/1711.01244

    p(w)  =  N(μ, σ²)                                                          learned by the outer loop
    inner:  minimise F(q) = E_q[-log p(support | w)] + KL(q ‖ p) over q = N(m, s²), from q = p, by `inner_steps` gradient steps
    outer:  minimise over μ and σ   E_q[-log p(query | w)] + KL(q ‖ p),   q inferred from the support set alone
    test:   w_1 … w_S ~ q; their predictions are averaged

MAML's inner loop moves a point; this one moves a distribution. A weight on which tasks agree has a narrow prior and stays in place. A
weight that the support set determines becomes narrow. A weight that it leaves open stays as wide as the prior. PLATIPUS infers its
distribution in training from the query set, draws from it and then adapts; here the distribution adapts, and the draws come last.

Amit and Meir optimise each task's posterior to the end together with the prior. Ravi and Beatson reach it by a few steps from the prior,
and the outer gradient runs through these steps. They step in m and log s alike; a step here is in units of the prior,

    m ← m - α σ² ∂F/∂m,    log s ← log s - tanh(η ∂F/∂(log s)),

since the curvature of the KL in m is 1/σ², and no single rate suits both narrow and wide weights. The outer loop learns α and η with the
prior. A step changes s by a factor of e at most; without this limit a steep slope makes s overflow. There is no hyper-prior on μ and σ:
its weight is one over the number of tasks, and a stream of tasks has no end.
The outer likelihood is that of the queries; the one of Ravi and Beatson is that of support and queries.

F and the outer loss are divided by the number of examples, and `kl_weight=1` is the exact bound. In regression the likelihood is a
Gaussian, and the outer loop learns its variance.
"""

from __future__ import annotations

import math
from dataclasses import dataclass
from typing import Literal

import torch
from torch import Tensor
from torch.func import grad

from metarun import draws
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
from metarun.algorithms.parts.members import (
    check_least,
    check_not_negative,
    check_positive,
    check_steps,
    last_of_trajectory,
    sample_average,
    steps_of,
    track_running,
)
from metarun.functional import map_tasks
from metarun.network import Network, present_classes
from metarun.objectives import Objective
from metarun.predictive import Predictive, averaged
from metarun.types import Aux, Episode, Examples, Params, State, constant, part_of, prefixed
from metarun.values import Few, FewOrZero, NotNegative, Positive

PRIOR_STD = "log_sigma."
LOG_MEAN_RATE, LOG_STD_RATE = "log_alpha", "log_eta"


@dataclass(frozen=True)
class MetaPrior:
    """A meta-learned prior.

    inner_lr, std_lr: α and η at the start. inner_steps: in training. test_inner_steps: at validation and test; None for as many as in
        training. inner_samples: of q, for the gradient of F. first_order: drop the second derivatives.
    samples: S, at validation and test. train_samples: S in training.
    outer_loss: "bound" is the loss above. "predictive" replaces the mean of the samples' likelihoods by the likelihood of their mixture.
        Training and test then have the same loss, and samples may differ at no cost where the support set leaves them open.
    kl_weight: of the KL in both loops. init_std, init_noise: σ and the standard deviation of a regression's observations at the start.
    """

    network: Network
    objective: Objective
    inner_lr: Positive = 1.0
    std_lr: Positive = 0.1
    inner_steps: FewOrZero = 5
    test_inner_steps: FewOrZero | None = None
    inner_samples: Few = 2
    first_order: bool = False
    samples: Few = 20
    train_samples: Few = 5
    outer_loss: Literal["bound", "predictive"] = "bound"
    kl_weight: NotNegative = 1.0
    init_std: Positive = 0.1
    init_noise: Positive = 1.0

    def __post_init__(self) -> None:
        check_steps(self)
        check_least(self, 1, "inner_samples", "samples", "train_samples")
        check_positive(self, "inner_lr", "std_lr", "init_std", "init_noise")
        check_not_negative(self, "kl_weight")

    def init(self, key: Tensor) -> tuple[Params, State]:
        """Return μ under the names of the network's parameters, log σ, log α and log η, and the running statistics."""
        params, state = self.network.init()
        stds = {name: torch.full_like(mean, math.log(self.init_std)) for name, mean in random_part(self.network, params).items()}
        own = prefixed(PRIOR_STD, stds)
        own |= {LOG_MEAN_RATE: torch.tensor(math.log(self.inner_lr)), LOG_STD_RATE: torch.tensor(math.log(self.std_lr))}
        if self.objective.kind == "regression":
            own[LOG_NOISE] = torch.tensor(math.log(self.init_noise))
        return params | own, state

    def trajectory(self, params: Params, state: State, support: Examples, key: Tensor, *, training: bool = False) -> list[Sampled]:
        """Return samples of the prior, and of q after each inner step, all with the same noise."""
        held, classes = held_part(self.network, params), present_classes(support, self.objective)
        noise = draws.fold(key, "samples")
        path = self._infer(params, state, support, key, steps_of(self, training=training), training)
        return [Sampled(draw(q, noise, self.samples), held, state, support, classes, params.get(LOG_NOISE)) for q in path]

    def sampled(self, adapted: Sampled, x: Tensor, mask: Tensor | None = None) -> Tensor:
        """Return the outputs of each sample, (S, B, N) or (S, B, D)."""
        return sampled_outputs(self.network, adapted, x, mask)

    def distribution(self, adapted: Sampled, x: Tensor, mask: Tensor | None = None) -> Predictive:
        """Return the mixture of Gaussians around the samples under the learned variance, in regression."""
        return sampled_distribution(self.network, adapted, x, mask)

    def loss(self, params: Params, state: State, episode: Episode, key: Tensor, step: Tensor) -> tuple[Tensor, Aux]:
        """Return the outer loss per query example."""
        support, query = episode
        classes, held = present_classes(support, self.objective), held_part(self.network, params)
        q = self._infer(params, state, support, key, self.inner_steps, training=True)[-1]

        def outputs_of(weights: Params) -> tuple[Tensor, State]:
            fitted = self.network.fit({**held, **weights}, state, support, classes, training=True)
            return self.network.on_query(fitted, query.x, query.mask, collect=True)

        outputs, statistics = map_tasks(outputs_of, draw(q, draws.fold(key, "samples"), self.train_samples))
        mixtures = outputs[None] if self.outer_loss == "predictive" else outputs[:, None]
        losses = [mixture_loss(self.objective, mixture, query.y, query.mask, params.get(LOG_NOISE)) for mixture in mixtures]
        loss = torch.stack(losses).mean()
        divergence = kl(q, self._prior(params), classes)
        score = self.objective.score(averaged(outputs, self.objective.kind), query.y, query.mask)
        metrics = {"loss": loss, "kl": divergence, self.objective.metric: score}
        over_samples = {name: value.mean(dim=0) for name, value in statistics.items()}
        return loss + self.kl_weight * divergence / count_of(query), Aux.of(metrics, over_samples)

    def _infer(self, params: Params, state: State, support: Examples, key: Tensor, steps: int, training: bool) -> list[Gaussian]:
        """Return the prior, and q after each inner step."""
        prior, classes = self._prior(params), present_classes(support, self.objective)

        def free_energy(q: Gaussian, fixed: Params, noise: Tensor) -> Tensor:
            def support_loss(weights: Params) -> Tensor:
                outputs = self.network.on_support({**held_part(self.network, fixed), **weights}, state, support, classes, training=training)
                return mixture_loss(self.objective, outputs[None], support.y, support.mask, fixed.get(LOG_NOISE))

            expected = map_tasks(support_loss, draw(q, noise, self.inner_samples)).mean()
            return expected + self.kl_weight * kl(q, self._prior(fixed), classes) / count_of(support)

        path = [prior]
        for number in range(steps):
            q, fixed = path[-1], params
            if self.first_order:
                q, fixed = Gaussian(constant(q.mean), constant(q.log_std)), constant(params)
            slope = grad(free_energy)(q, fixed, draws.fold(draws.fold(key, "inner"), number))
            path.append(self._step(path[-1], slope, prior, params))
        return path

    def _step(self, q: Gaussian, slope: Gaussian, prior: Gaussian, params: Params) -> Gaussian:
        """Return q after one step down the slope, in units of the prior."""
        alpha, eta = params[LOG_MEAN_RATE].exp(), params[LOG_STD_RATE].exp()
        mean = {name: value - alpha * (2.0 * prior.log_std[name]).exp() * slope.mean[name] for name, value in q.mean.items()}
        return Gaussian(mean, {name: value - (eta * slope.log_std[name]).tanh() for name, value in q.log_std.items()})

    def _prior(self, params: Params) -> Gaussian:
        return Gaussian(random_part(self.network, params), part_of(params, PRIOR_STD))

    adapt = last_of_trajectory
    predict = sample_average
    update_state = track_running
