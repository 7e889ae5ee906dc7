"""iMAML: the meta-gradient of the inner optimum itself, whatever the way to it.

Aravind Rajeswaran, Chelsea Finn, Sham Kakade, Sergey Levine. "Meta-Learning with Implicit Gradients", NeurIPS 2019.
https://arxiv.org/abs/1909.04630

    inner:  φ* = argmin over φ of L(φ, support) + λ/2 |φ - θ|²                                                  (equation 3)
    outer:  dL(φ*, query)/dθ = (I + H/λ)⁻¹ ∇L(φ*, query),   H = ∇²L(φ*, support)                                (lemma 1)

Gradient descent from θ approaches the optimum, and conjugate gradients solve the linear system; they need only products H v
(algorithm 2). Unlike in MAML, no gradient runs through the inner steps, so memory does not grow with their number. The pull towards θ is
essential: without it the optimum does not depend on θ. All parameters adapt, scales and shifts of normalisation too.

The released code (https://github.com/aravindr93/imaml_dev, the 5-way 1-shot command of examples/README.md) differs as follows:

- It descends on L alone and adds one step of the pull, with λ = 2, at the end; its test has no pull. Here the pull is part of every inner
  step, as in the paper, at test too, and `algo=imaml` has λ = 0.5: with 2 in every step φ hardly leaves θ.
- It solves with 2 I + H/(λ + 10), here with I + H/(λ + μ). With μ = 0 this is the paper's system; a larger μ brings it nearer to the plain
  query gradient. `algo=imaml` takes the code's 10: far from a minimum H has negative eigenvalues, and an eigenvalue below -λ reverses the
  gradient of the paper's system.
- It trains 20,000 steps of 32 tasks from 200,000 fixed ones, with as many queries as shots and without inverting Omniglot (`task.ink=0`).
- Its convolutions and its head are Glorot uniform times 1.73 with biases from U[0, 0.05], and its outer Adam has eps 1e-3.
"""

from __future__ import annotations

from collections.abc import Callable
from dataclasses import dataclass
from functools import cached_property

import torch
from torch import Tensor
from torch.func import grad, grad_and_value, vjp

from metarun.algorithms.parts.inner_loop import InnerLoop
from metarun.algorithms.parts.members import (
    check_not_negative,
    check_steps,
    fitted_outputs,
    last_of_trajectory,
    steps_of,
    track_running,
)
from metarun.errors import UserError
from metarun.layers.norm import Statistics
from metarun.layers.precision import full_precision
from metarun.network import Fitted, Network, present_classes
from metarun.objectives import Objective
from metarun.types import Aux, Episode, Examples, Params, State, constant
from metarun.values import FewOrZero, NotNegative, Positive


@dataclass(frozen=True)
class Imaml:
    """iMAML.

    inner_lr: the rate of the gradient descent. inner_steps: in training. test_inner_steps: at validation and test; None for as many as
    in training. strength: λ. cg_steps: of conjugate gradients; 0 takes ∇L(φ*, query) as it stands. damping: μ.
    """

    network: Network
    objective: Objective
    inner_lr: NotNegative = 0.1
    inner_steps: FewOrZero = 16
    test_inner_steps: FewOrZero | None = None
    strength: Positive = 0.5
    cg_steps: FewOrZero = 5
    damping: NotNegative = 0.0

    def __post_init__(self) -> None:
        check_steps(self)
        if self.strength <= 0.0 or self.cg_steps < 0:
            raise UserError(f"algo.strength={self.strength} must be above 0 and algo.cg_steps={self.cg_steps} not negative.")
        check_not_negative(self, "damping")

    @cached_property
    def inner(self) -> InnerLoop:
        """The support loss and its gradient."""
        return InnerLoop(self.network, self.objective, adapt_norm=True)

    def init(self, key: Tensor) -> tuple[Params, State]:
        """Return the network's initial parameters and running statistics."""
        return self.network.init()

    def trajectory(self, params: Params, state: State, support: Examples, key: Tensor, *, training: bool = False) -> list[Fitted]:
        """Return the network before adaptation and after each inner step, in training after the last alone; no gradient runs through."""
        return self.inner.fit(self._descend(params, state, support, training), state, support, training=training)

    def loss(self, params: Params, state: State, episode: Episode, key: Tensor, step: Tensor) -> tuple[Tensor, Aux]:
        """Return the query loss at φ*. Its gradient by θ is that of lemma 1 where `damping` is 0."""
        support, query = episode

        def query_loss(phi: Params) -> tuple[Tensor, tuple[Tensor, Statistics]]:
            fitted = self.network.fit(phi, state, support, present_classes(support, self.objective), training=True)
            outputs, statistics = self.network.on_query(fitted, query.x, query.mask, collect=True)
            return self.objective.loss(outputs, query.y, query.mask), (self.objective.score(outputs, query.y, query.mask), statistics)

        phi = self._descend(params, state, support, training=True)[-1]
        slope, (loss, (score, statistics)) = grad_and_value(query_loss, has_aux=True)(phi)
        implicit = self._implicit(phi, slope, state, support)
        # Its value is 0 and its gradient is the implicit one: the engine takes gradients only by differentiating the loss.
        carrier = torch.stack([((value - value.detach()) * implicit[name]).sum() for name, value in params.items()]).sum()
        return loss.detach() + carrier, Aux.of({"loss": loss, self.objective.metric: score}, statistics)

    def _descend(self, params: Params, state: State, support: Examples, training: bool) -> list[Params]:
        """Return θ and the parameters after each step of gradient descent on the regularised support loss, as constants."""
        theta = constant(params)
        path = [theta]
        for _ in range(steps_of(self, training=training)):
            slope = self.inner.slope(path[-1], state, support, training=training).gradients
            path.append({n: phi - self.inner_lr * (slope[n] + self.strength * (phi - theta[n])) for n, phi in path[-1].items()})
        return path

    def _implicit(self, phi: Params, slope: Params, state: State, support: Examples) -> Params:
        """Return (I + H/(λ + μ))⁻¹ times the gradient `slope` of the query loss."""
        if self.cg_steps == 0:
            return constant(slope)

        def support_loss(point: Params) -> Tensor:
            return self.inner.loss(point, state, support, training=True)[0]

        # vjp multiplies from the left; H is symmetric, so this is H v.
        hessian_product = vjp(grad(support_loss), phi)[1]
        sizes = [value.numel() for value in phi.values()]

        def flat(values: Params) -> Tensor:
            return torch.cat([values[name].reshape(-1) for name in phi])

        def shaped(vector: Tensor) -> Params:
            return {name: part.reshape(phi[name].shape) for name, part in zip(phi, vector.split(sizes), strict=True)}

        def matrix(vector: Tensor) -> Tensor:
            return vector + flat(hessian_product(shaped(vector))[0]) / (self.strength + self.damping)

        return constant(shaped(conjugate_gradients(matrix, flat(slope), self.cg_steps)))

    adapt = last_of_trajectory
    predict = fitted_outputs
    update_state = track_running


def conjugate_gradients(matrix: Callable[[Tensor], Tensor], b: Tensor, steps: int) -> Tensor:
    """Return x (P,) with A x ≈ b after `steps` steps from 0; A is symmetric and positive definite, and `matrix(v)` returns A v.

    After P steps x is exact up to rounding (Hestenes and Stiefel 1952). Once the residual is zero, x stays as it is.
    """
    x, residual = torch.zeros_like(b), b
    direction, size = b, _dot(b, b)
    for _ in range(steps):
        product = matrix(direction)
        step = _ratio(size, _dot(direction, product))
        x, residual = x + step * direction, residual - step * product
        previous, size = size, _dot(residual, residual)
        direction = residual + _ratio(size, previous) * direction
    return x


def _dot(a: Tensor, b: Tensor) -> Tensor:
    """Return a · b. Autocast would round the residual's length to three digits."""
    with full_precision(a):
        return a @ b


def _ratio(a: Tensor, b: Tensor) -> Tensor:
    """Return a / b, and 0 where b is 0."""
    return torch.where(b == 0, 0.0, a / torch.where(b == 0, 1.0, b))
