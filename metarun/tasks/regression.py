"""Random functions of ten inputs that share their features and differ in their weights.

    y = w · tanh(U x) + b,    w ~ N(0, I / r),    b ~ N(0, 1/4),    x ~ N(0, I)

U (r x inputs) is drawn once, from `family_seed`, and is the same for every task of every split; w and b are drawn for each task. A
learner that has found the r features from many tasks needs only to find r + 1 numbers for a new one, which a few shots give; a
learner without them has a function of ten inputs before it. The family is our own.
"""

from __future__ import annotations

from dataclasses import dataclass
from functools import cached_property
from typing import Any

import torch
from torch import Tensor

from metarun import draws
from metarun.tasks.functions import Function, FunctionTasks
from metarun.tasks.points import PointSampling, check_whole


@dataclass(frozen=True)
class SharedFeatures:
    """The family y = w · tanh(U x) + b over x of `width` inputs.

    U is drawn from `family_seed`, its rows of expected squared length `sharpness`^2: at 2 the tanh is far from linear.
    """

    width: int
    features: int
    family_seed: int
    sharpness: float = 2.0

    @cached_property
    def directions(self) -> Tensor:
        """U, (features, inputs)."""
        scale = self.sharpness / self.width**0.5
        return scale * draws.normal(draws.key(self.family_seed, "features"), self.features, self.width)

    def draw(self, key: Tensor) -> Function:
        """Draw weights (T, features) and offsets (T,)."""
        weights = draws.normal(draws.fold(key, "weights"), self.features) / self.features**0.5
        return {"weights": weights, "offset": 0.5 * draws.normal(draws.fold(key, "offset"))}

    def inputs(self, key: Tensor, count: int) -> Tensor:
        """Draw x (T, count, inputs)."""
        return draws.normal(key, count, self.width)

    def values(self, function: Function, x: Tensor) -> Tensor:
        """Return w · tanh(U x) + b, (T, B, 1)."""
        features = torch.tanh(x @ self.directions.T)
        return (features * function["weights"][:, None]).sum(dim=-1, keepdim=True) + function["offset"][:, None, None]


def regression(*, inputs: int = 10, features: int = 3, family_seed: int = 0, **sampling: Any) -> FunctionTasks:
    """Return the source of functions of `inputs` inputs over `features` shared features: x (B, inputs), y (B, 1).

    sampling: the keys of `PointSampling`; 20 shots unless given.
    """
    check_whole(inputs=inputs, features=features)
    return FunctionTasks(SharedFeatures(inputs, features, family_seed), PointSampling.of(sampling, shots=20))
