"""iMAML: the meta-gradient of the inner optimum itself, whatever the way to it.

Aravind Rajeswaran, Chelsea Finn, Sham Kakade, Sergey Levine. "Meta-Learning with Implicit Gradients", NeurIPS 2019.
https://arxiv.org/abs/1909.04630

    inner:  φ* = argmin over φ of L(φ, support) + λ/2 |φ - θ|²                                                  (equation 3)
    outer:  dL(φ*, query)/dθ = (I + H/λ)⁻¹ ∇L(φ*, query),   H = ∇²L(φ*, support)                                (lemma 1)

The optimum is approached by gradient descent from θ, the linear system by conjugate gradients, which need only products H v
(algorithm 2). Unlike in MAML no gradient runs through the inner steps, so that memory does not grow with their number; and without the
pull towards θ the optimum would not depend on θ at all. All parameters adapt, those of normalisation included.

The released code (https://github.com/aravindr93/imaml_dev) descends on L alone, adds one step of the pull at the end, and solves with
2 I + H/(λ + 10). Here the pull is part of every inner step, and the system is I + H/(λ + μ): the paper's for μ = 0, and nearer to the plain
query gradient the larger μ is. `algo=imaml` takes the code's 10: far from a minimum H has negative eigenvalues, and those below -λ turn the
gradient of the paper's system around.
"""

from __future__ import annotations

from collections.abc import Callable
from dataclasses import dataclass
from functools import cached_property

import torch
from torch import Tensor
from torch.func import grad, grad_and_value, vjp

from metarun.algorithms.parts.inner_loop import InnerLoop, check_steps, constant
from metarun.errors import UserError
from metarun.layers.norm import Statistics
from metarun.network import Fitted, Network
from metarun.objectives import Objective
from metarun.types import Aux, Episode, Examples, Params, State


@dataclass(frozen=True)
class Imaml:
    """iMAML.

    inner_lr: of the gradient descent. inner_steps: in training; test_inner_steps: at validation and test, None for as many. strength: λ.
    cg_steps: of conjugate gradients; 0 takes ∇L(φ*, query) as it stands. damping: μ.
    """

    network: Network
    objective: Objective
    inner_lr: float = 0.1
    inner_steps: int = 16
    test_inner_steps: int | None = None
    strength: float = 0.5
    cg_steps: int = 5
    damping: float = 0.0

    def __post_init__(self) -> None:
        check_steps(self.inner_steps, self.test_inner_steps)
        if self.strength <= 0.0 or self.cg_steps < 0:
            raise UserError(f"algo.strength={self.strength} must be above 0 and algo.cg_steps={self.cg_steps} not negative.")
        if not self.damping >= 0.0:
            raise UserError(f"algo.damping={self.damping} must not be negative.")

    @cached_property
    def inner(self) -> InnerLoop:
        """The support loss and its gradient."""
        return InnerLoop(self.network, self.objective, adapt_norm=True)

    def init(self, key: Tensor) -> tuple[Params, State]:
        """Return the network's initial parameters and running statistics."""
        return self.network.init()

    def adapt(self, params: Params, state: State, support: Examples, key: Tensor, *, training: bool = False) -> Fitted:
        """Return the network at φ*; no gradient runs through it."""
        return self.trajectory(params, state, support, key, training=training)[-1]

    def trajectory(self, params: Params, state: State, support: Examples, key: Tensor, *, training: bool = False) -> list[Fitted]:
        """Return the network before adaptation and after each inner step."""
        path, classes = self._descend(params, state, support, training), self.inner.classes(support)
        return [self.network.fit(fast, state, support, classes, training=training) for fast in path]

    def predict(self, adapted: Fitted, x: Tensor, mask: Tensor | None = None) -> Tensor:
        """Return the adapted network's outputs."""
        return self.network.on_query(adapted, x, mask)[0]

    def loss(self, params: Params, state: State, episode: Episode, key: Tensor, step: Tensor) -> tuple[Tensor, Aux]:
        """Return the query loss at φ*, whose gradient by θ is the implicit one where `damping` is 0."""
        support, query = episode

        def query_loss(phi: Params) -> tuple[Tensor, tuple[Tensor, Statistics]]:
            fitted = self.network.fit(phi, state, support, self.inner.classes(support), training=True)
            outputs, statistics = self.network.on_query(fitted, query.x, query.mask, collect=True)
            return self.objective.loss(outputs, query.y, query.mask), (self.objective.score(outputs, query.y, query.mask), statistics)

        phi = self._descend(params, state, support, training=True)[-1]
        slope, (loss, (score, statistics)) = grad_and_value(query_loss, has_aux=True)(phi)
        implicit = self._implicit(phi, slope, state, support)
        # Zero, with the gradient that we want: nothing is differentiated here, and the engine knows no other way in.
        carrier = torch.stack([((value - value.detach()) * implicit[name]).sum() for name, value in params.items()]).sum()
        return loss.detach() + carrier, Aux({"loss": loss.detach(), self.objective.metric: score.detach()}, statistics)

    def update_state(self, state: State, aux: dict[str, Tensor]) -> State:
        """Track the running statistics of the query passes."""
        return self.network.update_running(state, aux)

    def _descend(self, params: Params, state: State, support: Examples, training: bool) -> list[Params]:
        """Return θ and what each step of gradient descent on the regularised support loss leads to, as constants."""
        steps = self.inner_steps if training or self.test_inner_steps is None else self.test_inner_steps
        theta = constant(params)
        path = [theta]
        for _ in range(steps):
            slope = self.inner.slope(path[-1], state, support, training=training).gradients
            path.append({n: phi - self.inner_lr * (slope[n] + self.strength * (phi - theta[n])) for n, phi in path[-1].items()})
        return path

    def _implicit(self, phi: Params, slope: Params, state: State, support: Examples) -> Params:
        """Return (I + H/(λ + μ))⁻¹ times the gradient `slope` of the query loss."""
        if self.cg_steps == 0:
            return constant(slope)

        def support_loss(point: Params) -> Tensor:
            return self.inner.loss(point, state, support, training=True)[0]

        # The Hessian is symmetric, so the product with it from the left is the one that is wanted.
        times_hessian = vjp(grad(support_loss), phi)[1]
        sizes = [value.numel() for value in phi.values()]

        def flat(values: Params) -> Tensor:
            return torch.cat([values[name].reshape(-1) for name in phi])

        def shaped(vector: Tensor) -> Params:
            return {name: part.reshape(phi[name].shape) for name, part in zip(phi, vector.split(sizes), strict=True)}

        def matrix(vector: Tensor) -> Tensor:
            return vector + flat(times_hessian(shaped(vector))[0]) / (self.strength + self.damping)

        return constant(shaped(conjugate_gradients(matrix, flat(slope), self.cg_steps)))


def conjugate_gradients(matrix: Callable[[Tensor], Tensor], b: Tensor, steps: int) -> Tensor:
    """Return x (P,) with A x ≈ b after so many steps from 0, for a symmetric positive definite A given by its products `matrix(v)`.

    Exact after P steps but for rounding (Hestenes and Stiefel 1952). Once the residual is zero, x stays as it is.
    """
    x, residual = torch.zeros_like(b), b
    direction, size = b, b @ b
    for _ in range(steps):
        product = matrix(direction)
        step = _ratio(size, direction @ product)
        x, residual = x + step * direction, residual - step * product
        size, before = residual @ residual, size
        direction = residual + _ratio(size, before) * direction
    return x


def _ratio(a: Tensor, b: Tensor) -> Tensor:
    """Return a / b, and 0 where b is 0."""
    return torch.where(b == 0, 0.0, a / torch.where(b == 0, 1.0, b))
