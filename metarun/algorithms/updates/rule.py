"""The interface of `gbml` to an update rule."""

from __future__ import annotations

from typing import Any, Protocol

from torch import Tensor

from metarun.algorithms.parts.inner_loop import Slope
from metarun.types import Params


class UpdateRule(Protocol):
    """An update rule: a frozen dataclass of hyperparameters with pure functions for one task. Imitate this class, do not inherit from it.

    `weights` are the parameters of the network that adapt, by name.
    """

    def init(self, weights: Params, key: Tensor) -> Params:
        """Return the parameters that the outer loop learns with the initialisation, by names of the rule's own; may be empty."""

    def start(self, weights: Params) -> Any:
        """Return the rule's memory before the first inner step: a pytree of tensors, which may be empty."""

    def step(self, learned: Params, weights: Params, slope: Slope, memory: Any, number: int) -> tuple[Params, Any]:
        """Return the weights and the memory after inner step `number` (from 0).

        It must be differentiable by all its tensors wherever they are finite, also where the gradient is zero.
        """
