"""MAML: learn an initialisation from which a few gradient steps suffice.

Chelsea Finn, Pieter Abbeel, Sergey Levine. "Model-Agnostic Meta-Learning for Fast Adaptation of Deep Networks", ICML 2017.
https://arxiv.org/abs/1703.03400

    inner:  θ' = θ - α ∇_θ L(θ, support)            repeated `inner_steps` times           (section 2.2)
    outer:  minimise over θ the mean over tasks of L(θ', query)                            (equation 1)

The outer gradient runs through the inner steps: (I - α H) ∇L(θ', query) for one step. First-order MAML (section 5.2 of the paper)
takes ∇L(θ', query) alone: it treats the inner gradients as constants, so the derivative of θ' by θ is the identity.

ANIL (`adapts=["head.*"]`, Raghu et al. 2020) and BOIL (`adapts=["body.*"]`, Oh et al. 2021) are options of this file. MeLU is an option
too (`adapts=["body.layers.*", "head.*"]` with `backbone=embeddings`). Its paper is: Hoyeop Lee, Jinbae Im, Seongwon Jang, Hyunsouk Cho,
Sehee Chung. "MeLU: Meta-Learned User Preference Estimator for Cold-Start Recommendation", KDD 2019, https://arxiv.org/abs/1908.00413. In
algorithm 1 of this paper, θ₁ are the embeddings and θ₂ the decision layers:

    inner:  θ₂' = θ₂ - α ∇_θ₂ L(θ₁, θ₂, support)       outer:  Adam on θ₁ and θ₂ for the mean over users of L(θ₁, θ₂', query)

In `algo=melu` the outer gradient runs through the inner step, into θ₁ too. The released code (https://github.com/hoyeoplee/MeLU, MeLU.py)
asks for this gradient with `create_graph=True`, but copies the adapted values into the network with `load_state_dict`, which cuts the
graph. So that code is first order at best (`first_order=true`). It also restores θ₂ in-place before `backward`; torch 2 refuses this.
"""

from __future__ import annotations

from dataclasses import dataclass
from functools import cached_property

from torch import Tensor

from metarun.algorithms.parts.inner_loop import InnerLoop, InnerLoss
from metarun.algorithms.parts.members import check_steps, fitted_outputs, last_of_trajectory, steps_of, track_running
from metarun.functional import recomputed
from metarun.network import Fitted, Network, query_loss
from metarun.objectives import Objective
from metarun.types import Aux, Episode, Examples, Params, State
from metarun.values import FewOrZero, Names, NotNegative


@dataclass(frozen=True)
class Maml:
    """MAML, ANIL, BOIL and MeLU.

    inner_lr: α, per inner step. inner_steps: in training. test_inner_steps: at validation and test; None for as many as in training.
    first_order: drop the second derivatives. inner_loss: "mean" over the support examples, or the released code's "sum_over_shot",
        the sum divided by the shots. At N ways, this loss is N times the mean. So at 5 ways, α = 0.4 in the released code equals α = 2.0
        on a mean.
    adapts: name patterns of the parameters that the inner loop changes. adapt_norm: whether the inner loop changes scales and shifts of
        normalisation too. The released code has only shifts, and only the outer loop learns them; metarun has scales too.
        BOIL's released code (https://github.com/HJ-Yoo/BOIL) adapts scales and shifts in the inner loop, and so does `algo=boil`.
    recompute: run each inner step again for the outer gradient. Memory holds one step instead of all, and time grows by a third.
    """

    network: Network
    objective: Objective
    inner_lr: NotNegative = 0.4
    inner_steps: FewOrZero = 1
    test_inner_steps: FewOrZero | None = None
    first_order: bool = False
    inner_loss: InnerLoss = "mean"
    adapts: Names = ("*",)
    adapt_norm: bool = False
    recompute: bool = False

    def __post_init__(self) -> None:
        check_steps(self)
        self.inner.check()

    @cached_property
    def inner(self) -> InnerLoop:
        """The support loss and its gradient."""
        return InnerLoop(self.network, self.objective, self.inner_loss, self.adapts, self.adapt_norm)

    def init(self, key: Tensor) -> tuple[Params, State]:
        """Return the network's initial parameters and running statistics."""
        return self.network.init()

    def trajectory(self, params: Params, state: State, support: Examples, key: Tensor, *, training: bool = False) -> list[Fitted]:
        """Return the network before adaptation and after each inner step; in training, only the network after the last inner step."""
        inner_step = recomputed(self._inner_step) if self.recompute and training else self._inner_step
        path = self.inner.start(params)
        for _ in range(steps_of(self, training=training)):
            path.append({**path[-1], **inner_step(path[-1], state, support, training)})
        return self.inner.fit(path, state, support, training=training)

    def loss(self, params: Params, state: State, episode: Episode, key: Tensor, step: Tensor) -> tuple[Tensor, Aux]:
        """Return L(θ', query)."""
        support, query = episode
        adapted = self.adapt(params, state, support, key, training=True)
        return query_loss(self.objective, *self.network.on_query(adapted, query.x, query.mask, collect=True), query)

    def _inner_step(self, theta: Params, state: State, support: Examples, training: bool) -> Params:
        """Return the parameters of θ' that differ from θ."""
        slope = self.inner.slope(theta, state, support, training=training, first_order=self.first_order)
        return {name: theta[name] - self.inner_lr * gradient for name, gradient in slope.gradients.items()}

    adapt = last_of_trajectory
    predict = fitted_outputs
    update_state = track_running
