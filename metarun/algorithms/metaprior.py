"""Meta-learned prior: the weights' prior is learned from tasks, and a task's posterior is a few variational steps away from it.

Sachin Ravi, Alex Beatson. "Amortized Bayesian Meta-Learning", ICLR 2019. https://openreview.net/forum?id=rkgpy3C5tX
Ron Amit, Ron Meir. "Meta-Learning by Adjusting Priors Based on Extended PAC-Bayes Theory", ICML 2018. https://arxiv.org/abs/1711.01244

    p(w)  =  N(μ, σ²)                                                          learned by the outer loop
    inner:  minimise F(q) = E_q[-log p(support | w)] + KL(q ‖ p) over q = N(m, s²), from q = p, by `inner_steps` gradient steps
    outer:  minimise over μ and σ   E_q[-log p(query | w)] + KL(q ‖ p),   q as inferred from the support set alone
    test:   w_1 … w_S ~ q; their predictions are averaged

MAML's inner loop moves a point, this one a distribution: a weight on which tasks agree has a narrow prior and stays where it is, one that
the support set tells becomes narrow, and one that it leaves open stays as wide as the prior. PLATIPUS infers its distribution in training
from the query set, and draws first and adapts then; here the distribution itself is adapted, and draws are made from the result.

Amit and Meir optimise each task's posterior to the end together with the prior; that it is reached by a few steps from the prior, through
which the outer gradient runs, is Ravi and Beatson's. Where they step in m and log s alike, a step here is in units of the prior,

    m ← m - α σ² ∂F/∂m,    log s ← log s - tanh(η ∂F/∂(log s)),

since the curvature of the KL in m is 1/σ² and no one rate suits narrow and wide weights at once; α and η are learned with the prior. A step
changes s by a factor of e at most, for a steep slope would make it grow beyond all numbers. Their
hyper-prior on μ and σ is left out: its weight is one over the number of tasks, of which a stream has no end.

F and the outer loss are divided by the number of examples; `kl_weight` of 1 is the exact bound. In regression the likelihood is a Gaussian
whose variance is learned with the rest.
"""

from __future__ import annotations

import math
from dataclasses import dataclass
from typing import Literal

import torch
from torch import Tensor
from torch.func import grad

from metarun import draws
from metarun.algorithms.parts.gaussians import LOG_NOISE, Gaussian, Sampled, draw, kl, mixture_loss, sampled_outputs
from metarun.errors import UserError
from metarun.functional import map_tasks
from metarun.network import Network, present_classes
from metarun.objectives import Objective
from metarun.predictive import averaged
from metarun.types import Aux, Episode, Examples, Params, State

PRIOR_STD = "log_sigma."
LOG_MEAN_RATE, LOG_STD_RATE = "log_alpha", "log_eta"


@dataclass(frozen=True)
class MetaPrior:
    """A meta-learned prior.

    inner_lr, std_lr: where α and η begin. inner_steps: in training; test_inner_steps: at validation and test, None for as many.
    inner_samples: of q, for the gradient of F. first_order: drop the second derivatives.
    samples: S, at validation and test; train_samples: in training.
    outer_loss: "bound" is the loss above; "predictive" has the likelihood of the samples' mixture in the place of the mean of their
        likelihoods, so that what is trained is what is tested, and samples that differ where the support set leaves it open cost nothing.
    kl_weight: of the KL in both loops. init_std, init_noise: where σ and the standard deviation of regression's observations begin.
    """

    network: Network
    objective: Objective
    inner_lr: float = 1.0
    std_lr: float = 0.1
    inner_steps: int = 5
    test_inner_steps: int | None = None
    inner_samples: int = 2
    first_order: bool = False
    samples: int = 20
    train_samples: int = 5
    outer_loss: Literal["bound", "predictive"] = "bound"
    kl_weight: float = 1.0
    init_std: float = 0.1
    init_noise: float = 1.0

    def __post_init__(self) -> None:
        if self.inner_steps < 0 or (self.test_inner_steps or 0) < 0:
            raise UserError(f"algo.inner_steps={self.inner_steps} and algo.test_inner_steps={self.test_inner_steps} must not be negative.")
        for name in ("inner_samples", "samples", "train_samples"):
            if getattr(self, name) < 1:
                raise UserError(f"algo.{name}={getattr(self, name)} must be at least 1.")
        for name in ("inner_lr", "std_lr", "init_std", "init_noise"):
            if getattr(self, name) <= 0:
                raise UserError(f"algo.{name}={getattr(self, name)} must be above 0.")
        if self.kl_weight < 0:
            raise UserError(f"algo.kl_weight={self.kl_weight} must not be negative.")

    def init(self, key: Tensor) -> tuple[Params, State]:
        """Return μ under the names of the network's parameters, log σ, log α and log η, and the running statistics."""
        params, state = self.network.init()
        own = {PRIOR_STD + name: torch.full_like(params[name], math.log(self.init_std)) for name in self._names()}
        own |= {LOG_MEAN_RATE: torch.tensor(math.log(self.inner_lr)), LOG_STD_RATE: torch.tensor(math.log(self.std_lr))}
        if self.objective.kind == "regression":
            own[LOG_NOISE] = torch.tensor(math.log(self.init_noise))
        return params | own, state

    def adapt(self, params: Params, state: State, support: Examples, key: Tensor, *, training: bool = False) -> Sampled:
        """Return samples of the posterior."""
        return self.trajectory(params, state, support, key, training=training)[-1]

    def trajectory(self, params: Params, state: State, support: Examples, key: Tensor, *, training: bool = False) -> list[Sampled]:
        """Return samples of the prior, and of q after each inner step; the noise in them is the same."""
        steps = self.inner_steps if training or self.test_inner_steps is None else self.test_inner_steps
        held, noise, classes = self._held(params), draws.fold(key, "samples"), self._classes(support)
        path = self._infer(params, state, support, key, steps, training)
        return [Sampled(draw(q, noise, self.samples), held, state, support, classes) for q in path]

    def predict(self, adapted: Sampled, x: Tensor, mask: Tensor | None = None) -> Tensor:
        """Return the average over the samples: of outputs in regression, of probabilities (as their logarithms) in classification."""
        return averaged(self.sampled(adapted, x, mask), self.objective.kind)

    def sampled(self, adapted: Sampled, x: Tensor, mask: Tensor | None = None) -> Tensor:
        """Return the outputs of each sample."""
        return sampled_outputs(self.network, adapted, x, mask)

    def loss(self, params: Params, state: State, episode: Episode, key: Tensor, step: Tensor) -> tuple[Tensor, Aux]:
        """Return the outer loss per query example."""
        support, query = episode
        classes, held = self._classes(support), self._held(params)
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
        metrics = {"loss": loss.detach(), "kl": divergence.detach(), self.objective.metric: score.detach()}
        seen = {name: value.mean(dim=0) for name, value in statistics.items()}
        return loss + self.kl_weight * divergence / _count(query), Aux(metrics, seen)

    def update_state(self, state: State, aux: dict[str, Tensor]) -> State:
        """Track the running statistics of the query passes, their mean over the samples."""
        return self.network.update_running(state, aux)

    def _infer(self, params: Params, state: State, support: Examples, key: Tensor, steps: int, training: bool) -> list[Gaussian]:
        """Return the prior, and q after each inner step."""
        prior, classes = self._prior(params), self._classes(support)

        def free_energy(q: Gaussian, fixed: Params, noise: Tensor) -> Tensor:
            def support_loss(weights: Params) -> Tensor:
                outputs = self.network.on_support({**self._held(fixed), **weights}, state, support, classes, training=training)
                return mixture_loss(self.objective, outputs[None], support.y, support.mask, fixed.get(LOG_NOISE))

            expected = map_tasks(support_loss, draw(q, noise, self.inner_samples)).mean()
            return expected + self.kl_weight * kl(q, self._prior(fixed), classes) / _count(support)

        path = [prior]
        for number in range(steps):
            q, fixed = path[-1], params
            if self.first_order:
                q, fixed = Gaussian(_constant(q.mean), _constant(q.log_std)), _constant(params)
            slope = grad(free_energy)(q, fixed, draws.fold(draws.fold(key, "inner"), number))
            path.append(self._step(path[-1], slope, prior, params))
        return path

    def _step(self, q: Gaussian, slope: Gaussian, prior: Gaussian, params: Params) -> Gaussian:
        """Return q after one step down the slope, in units of the prior."""
        alpha, eta = params[LOG_MEAN_RATE].exp(), params[LOG_STD_RATE].exp()
        mean = {name: value - alpha * (2.0 * prior.log_std[name]).exp() * slope.mean[name] for name, value in q.mean.items()}
        return Gaussian(mean, {name: value - (eta * slope.log_std[name]).tanh() for name, value in q.log_std.items()})

    def _names(self) -> list[str]:
        """Return the names of the weights that have a distribution."""
        return [name for name in self.network.names if name not in self.network.norm_params]

    def _prior(self, params: Params) -> Gaussian:
        return Gaussian({name: params[name] for name in self._names()}, {name: params[PRIOR_STD + name] for name in self._names()})

    def _held(self, params: Params) -> Params:
        return {name: params[name] for name in self.network.norm_params}

    def _classes(self, support: Examples) -> Tensor | None:
        return present_classes(support) if self.objective.kind == "classification" else None


def _count(examples: Examples) -> Tensor | int:
    return len(examples.x) if examples.mask is None else examples.mask.sum()


def _constant(params: Params) -> Params:
    return {name: value.detach() for name, value in params.items()}
