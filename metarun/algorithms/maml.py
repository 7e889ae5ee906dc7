"""MAML: learn an initialisation from which a few gradient steps suffice.

Chelsea Finn, Pieter Abbeel, Sergey Levine. "Model-Agnostic Meta-Learning for Fast Adaptation of Deep Networks", ICML 2017.
https://arxiv.org/abs/1703.03400

    inner:  θ' = θ - α ∇_θ L(θ, support)            repeated `inner_steps` times           (section 2.2)
    outer:  minimise over θ the mean over tasks of L(θ', query)                            (equation 1)

The outer gradient runs through the inner steps, (I - α H) ∇L(θ', query) for one step. First-order MAML (section 5.2 of the paper)
takes ∇L(θ', query) as it stands: the inner gradients are constants, while θ' still depends on θ by the identity.
"""

from __future__ import annotations

from collections.abc import Sequence
from dataclasses import dataclass
from fnmatch import fnmatchcase

from torch import Tensor
from torch.func import grad

from metarun.errors import UserError
from metarun.functional import recomputed
from metarun.network import Fitted, Network, present_classes
from metarun.objectives import Objective
from metarun.types import Aux, Episode, Examples, Params, State

INNER_LOSSES = ("mean", "sum_over_shot")


@dataclass(frozen=True)
class Maml:
    """MAML and its relatives.

    inner_lr: α, per inner step. inner_steps: in training; test_inner_steps: at validation and test, None for as many.
    first_order: drop the second derivatives. inner_loss: "mean" over the support examples, or "sum_over_shot", the sum divided by
        the shots, which the released code uses: N times the mean, so that its α of 0.4 at 5 ways is 2.0 on a mean.
    adapts: patterns of the parameters that the inner loop changes ("head.*" is ANIL, "body.*" is BOIL).
    adapt_norm: whether scales and shifts of normalisation are among them; the released code and this default leave them
        to the outer loop. (Its normalisation has a shift only; here, as in every PyTorch port, it has a scale too.)
    recompute: forget the inside of each inner step and compute it again for the outer gradient: the memory of one step instead of all,
        for about a third more time.
    """

    network: Network
    objective: Objective
    inner_lr: float = 0.4
    inner_steps: int = 1
    test_inner_steps: int | None = None
    first_order: bool = False
    inner_loss: str = "mean"
    adapts: Sequence[str] = ("*",)
    adapt_norm: bool = False
    recompute: bool = False

    def __post_init__(self) -> None:
        if self.inner_steps < 0 or (self.test_inner_steps or 0) < 0:
            raise UserError(f"algo.inner_steps={self.inner_steps} and algo.test_inner_steps={self.test_inner_steps} must not be negative.")
        if self.inner_loss not in INNER_LOSSES:
            raise UserError(f"algo.inner_loss={self.inner_loss} is unknown; it must be one of {', '.join(INNER_LOSSES)}.")
        params, _ = self.network.init()
        if not self._chosen(params):
            raise UserError(f"algo.adapts={list(self.adapts)} matches none of the parameters {', '.join(params)}.")

    def init(self, key: Tensor) -> tuple[Params, State]:
        """Return the network's initial parameters and running statistics."""
        return self.network.init()

    def adapt(self, params: Params, state: State, support: Examples, key: Tensor, *, training: bool = False) -> Fitted:
        """Return θ' after the inner loop; at test the second derivatives are never needed."""
        return self.trajectory(params, state, support, key, training=training)[-1]

    def trajectory(self, params: Params, state: State, support: Examples, key: Tensor, *, training: bool = False) -> list[Fitted]:
        """Return the network before adaptation and after each inner step."""
        steps = self.inner_steps if training or self.test_inner_steps is None else self.test_inner_steps
        classes = present_classes(support) if self.objective.kind == "classification" else None
        inner_step = recomputed(self._inner_step) if self.recompute and training else self._inner_step
        path = [params]
        for _ in range(steps):
            path.append({**path[-1], **inner_step(path[-1], state, support, classes, training)})
        return [self.network.fit(fast, state, support, classes, training=training) for fast in (path[-1:] if training else path)]

    def predict(self, adapted: Fitted, x: Tensor, mask: Tensor | None = None) -> Tensor:
        """Return the adapted network's outputs."""
        return self.network.on_query(adapted, x, mask)[0]

    def loss(self, params: Params, state: State, episode: Episode, key: Tensor, step: Tensor) -> tuple[Tensor, Aux]:
        """Return the query loss after adaptation."""
        query = episode.query
        adapted = self.adapt(params, state, episode.support, key, training=True)
        outputs, statistics = self.network.on_query(adapted, query.x, query.mask, collect=True)
        loss = self.objective.loss(outputs, query.y, query.mask)
        score = self.objective.score(outputs, query.y, query.mask)
        return loss, Aux({"loss": loss.detach(), self.objective.metric: score.detach()}, statistics)

    def update_state(self, state: State, aux: dict[str, Tensor]) -> State:
        """Track the running statistics of the query passes."""
        return self.network.update_running(state, aux)

    def _inner_step(self, params: Params, state: State, support: Examples, classes: Tensor | None, training: bool) -> Params:
        """Return those parameters that change."""

        def inner_loss(chosen: Params) -> Tensor:
            outputs = self.network.on_support({**rest, **chosen}, state, support, classes, training=training)
            loss = self.objective.loss(outputs, support.y, support.mask)
            return loss * self.objective.shot_scale(support.y, support.mask) if self.inner_loss == "sum_over_shot" else loss

        chosen = self._chosen(params)
        rest = {name: value for name, value in params.items() if name not in chosen}
        if self.first_order:
            rest = {name: value.detach() for name, value in rest.items()}
            gradients = grad(inner_loss)({name: value.detach() for name, value in chosen.items()})
        else:
            gradients = grad(inner_loss)(chosen)
        return {name: value - self.inner_lr * gradients[name] for name, value in chosen.items()}

    def _chosen(self, params: Params) -> Params:
        """Return the parameters that the inner loop changes."""
        held = set() if self.adapt_norm else self.network.norm_params
        return {
            name: value for name, value in params.items() if name not in held and any(fnmatchcase(name, pattern) for pattern in self.adapts)
        }
