"""What `gbml` asks of an update rule."""

from __future__ import annotations

from typing import Any, Protocol

from torch import Tensor

from metarun.algorithms.parts.inner_loop import Slope
from metarun.types import Params


class UpdateRule(Protocol):
    """An update rule: a frozen dataclass of hyperparameters with pure functions for one task. Imitate, do not inherit.

    `weights` are those of the network's parameters that adapt, by name.
    """

    def init(self, weights: Params, key: Tensor) -> Params:
        """Return what the rule learns with the initialisation, by names of its own; empty where it learns nothing."""

    def start(self, weights: Params) -> Any:
        """Return the rule's memory before the first inner step: a pytree of tensors, empty where it keeps nothing."""

    def step(self, learned: Params, weights: Params, slope: Slope, memory: Any, number: int) -> tuple[Params, Any]:
        """Return the weights and the memory after inner step `number` (from 0).

        Must be differentiable by all its tensors wherever these are finite, a gradient of zero included.
        """
