"""Hand-made training episodes of a stream, and the proof of a gradient by central differences."""

from __future__ import annotations

from collections.abc import Callable

import torch
from torch import Tensor
from torch.func import grad

from metarun import testing
from metarun.algorithms.parts.online import new_head
from metarun.types import Episode, Examples, Params

CLASSES = 5
"""Training classes, which the columns of y count."""
KEY = torch.tensor(5)


def random_head(outputs: int = CLASSES, width: int = 4) -> Params:
    """Return an output layer with random weights and biases that differ."""
    head: Params = testing.double(new_head(KEY, outputs, width))
    return head | {"bias": torch.linspace(-1.0, 1.0, outputs, dtype=torch.float64)}


def trajectory(classes: tuple[int, ...] = (1, 3), each: int = 2, remember: int = 6, seed: int = 0) -> Episode:
    """Return a training episode: examples of these classes in order; as queries the same examples, and one of each kind to remember."""
    generator = torch.Generator().manual_seed(seed)
    labels = torch.tensor([label for label in classes for _ in range(each)])
    others = torch.arange(remember) % CLASSES
    x = torch.rand(len(labels) + remember, 1, 8, 8, generator=generator, dtype=torch.float64)
    y = torch.nn.functional.one_hot(torch.cat([labels, others]), CLASSES).double()
    return Episode(Examples(x[: len(labels)], y[: len(labels)]), Examples(x, y))


def differences(loss: Callable[[Params], Tensor], params: Params, seed: int = 0, step: float = 1e-5) -> dict[str, tuple[float, float]]:
    """Return by parameter the slope of the loss in a random direction: of the gradient, and of central differences."""
    generator = torch.Generator().manual_seed(seed)
    slopes, found = grad(loss)(params), {}
    for name, value in params.items():
        direction = torch.randn(value.shape, generator=generator, dtype=value.dtype)
        above, below = (loss({**params, name: value + sign * step * direction}) for sign in (1.0, -1.0))
        found[name] = float((slopes[name] * direction).sum()), float((above - below) / (2.0 * step))
    return found


def largest_error(found: dict[str, tuple[float, float]]) -> float:
    """Return the largest difference of the two slopes, as a share of the largest slope of all."""
    size = max(abs(difference) for _, difference in found.values())
    return max(abs(slope - difference) for slope, difference in found.values()) / size
