"""Random functions of ten inputs that share their features and differ in their weights.

    y = w · tanh(U x) + b,    w ~ N(0, I / r),    b ~ N(0, 1/4),    x ~ N(0, I)

`family_seed` determines U (r x inputs), which is the same for every task of every split. Each task draws its own w and b. A learner
that knows the r features needs only r + 1 numbers for a new task, and a few shots give them. A learner without the features must
learn a function of ten inputs. The family is our own.
"""

from __future__ import annotations

from dataclasses import dataclass
from functools import cached_property

import torch
from torch import Tensor

from metarun import draws
from metarun.compute.memory import check_fits
from metarun.tasks.functions import Function, FunctionTasks
from metarun.tasks.points import Points, PointSampling
from metarun.values import Seed, Size


@dataclass(frozen=True)
class SharedFeatures:
    """The family y = w · tanh(U x) + b over x of `width` inputs.

    `family_seed` determines U. The expected squared length of its rows is `sharpness`^2; at `sharpness` 2 the tanh is far from linear.
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


def regression(*, inputs: Size = 10, features: Size = 3, family_seed: Seed = 0, **sampling: Points) -> FunctionTasks:
    """Return the source of functions of `inputs` inputs over `features` shared features: x (B, inputs), y (B, 1).

    sampling: the keys of `PointSampling`; the default is 20 shots.
    """
    points = PointSampling.of(sampling, shots=20)
    numbers = float(inputs) * max(features, *map(sum, map(points.sizes, ("train", "val"))))
    check_fits(4.0 * numbers, f"an episode of task.inputs={inputs} inputs", "lower task.inputs, task.features or task.shots")
    return FunctionTasks(SharedFeatures(inputs, features, family_seed), points)
