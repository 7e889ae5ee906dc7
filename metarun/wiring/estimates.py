"""Estimates of the memory that a run needs, from the sizes of its parts: what cannot fit is refused before the first step."""

from __future__ import annotations

import math

from torch import Tensor
from torch.utils._pytree import tree_leaves

from metarun.compute.memory import check_fits
from metarun.network import network_of
from metarun.types import Algorithm, Episode, WithTrajectory

STEPS = ("inner_steps", "test_inner_steps", "max_inner_steps")
SAMPLES = ("samples", "train_samples")
"""Fields of an algorithm with a number of networks that one task holds at once: one for each inner step, or one for each sample."""

TRAINED = 4
"""Copies of the parameters in a training with Adam: the parameters, the gradient and two moments."""


def check_step(shown: Episode, tasks: int) -> None:
    """Raise UserError where the episodes of one outer step do not fit into memory. shown: one of them."""
    each = sum(leaf.numel() * leaf.element_size() for leaf in tree_leaves(shown) if isinstance(leaf, Tensor))
    check_fits(float(tasks) * each, f"a step of tasks_per_step={tasks} episodes", "lower tasks_per_step or the sizes of an episode")


def check_copies(algorithm: Algorithm) -> None:
    """Raise UserError where the parameters of a run, or the networks of one task, do not fit into memory."""
    size = _numbers_of(algorithm)
    check_fits(4.0 * TRAINED * size, f"the training of {size:,} parameters", "lower the sizes of the backbone or the algorithm")
    names = (STEPS if isinstance(algorithm, WithTrajectory) else ()) + SAMPLES
    counts = {name: getattr(algorithm, name) for name in names if isinstance(getattr(algorithm, name, None), int)}
    for name, count in counts.items():
        check_fits(4.0 * count * size, f"algo.{name}={count}, each a network of {size:,} parameters,", f"lower algo.{name}")


def _numbers_of(algorithm: Algorithm) -> int:
    """Return the number of the parameters of the network; 0 for an algorithm that makes its own."""
    network = network_of(algorithm)
    return 0 if network is None else sum(math.prod(parameter.shape) for parameter in network.module.parameters())
