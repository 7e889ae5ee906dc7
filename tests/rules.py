"""Weights, slopes and paths in float64 for the tests of update rules."""

from __future__ import annotations

from collections.abc import Callable, Iterable
from typing import Any

import torch
from torch import Tensor

from metarun import testing
from metarun.algorithms.parts.inner_loop import Slope
from metarun.algorithms.updates.rule import UpdateRule
from metarun.types import Params

KEY = torch.tensor(1)


def weights() -> Params:
    shapes: dict[str, tuple[int, ...]] = {"conv": (4, 2, 3, 3), "linear": (3, 5), "bias": (4,)}
    return {name: torch.randn(*shape, dtype=torch.float64) for name, shape in shapes.items()}


def slopes(count: int) -> list[Slope]:
    return [Slope(weights(), torch.rand((), dtype=torch.float64), {}) for _ in range(count)]


def walk(rule: UpdateRule, start: Params, learned: Params, path: list[Slope]) -> Params:
    memory = rule.start(start)
    for number, slope in enumerate(path):
        start, memory = rule.step(learned, start, slope, memory, number)
    return start


def check_steps_of_torch(rule: UpdateRule, make: Callable[[Iterable[Tensor]], torch.optim.Optimizer], tolerance: float = 1e-12) -> None:
    """Compare four steps of a rule with four steps of one of torch's optimizers."""
    start, path = weights(), slopes(4)
    leaves = {name: value.clone().requires_grad_() for name, value in start.items()}
    optimizer: Any = make(leaves.values())
    for slope in path:
        for name, leaf in leaves.items():
            leaf.grad = slope.gradients[name]
        optimizer.step()
    testing.assert_same(walk(rule, start, {}, path), leaves, "the weights", tolerance=tolerance)
