"""What is timed side by side must compute the same; nothing that disagrees is timed.

In float64 all contenders agree to 14 digits, which shows that they compute the same function: `EXACT`. In float32 the gradient is not
continuous: an activation that rounds to the other side of a ReLU or of a max-pool's tie changes it by a step, and a plain loop differs
from itself in float64 by up to 1e-3 of the gradient's norm (ProtoNet, 60-way). `ROUNDED` leaves room for a few such steps; a missing
term or layer is off by more. The loss has no steps, so that `ROUNDED_LOSS` would show a lower precision inside; where inner gradients
carry theirs into it, the row says so (`Row.rounding`).
"""

from __future__ import annotations

import copy
from collections.abc import Mapping, Sequence
from typing import Any

import torch
from torch import Tensor, nn

from .loops import Maker, accumulate, loops_for
from .ours import Run
from .outcome import PLAIN
from .problem import Problem, Task

EXACT = 1e-9
ROUNDED = 3e-2
ROUNDED_LOSS = 1e-4

Gradients = tuple[Tensor, Mapping[str, Tensor]]
"""A mean loss and its gradient by parameter."""


class DisagreementError(Exception):
    """Two contenders give different numbers; the argument is the sentence to print."""


def gradients(make: Maker, config: dict[str, Any], network: nn.Module, tasks: Sequence[Task], dtype: torch.dtype) -> Gradients:
    """Return a loop's mean loss and its gradient, on a copy of the network in this precision."""
    network = copy.deepcopy(network).to(dtype)
    cast = [Task(*(tensor.to(dtype) if tensor.is_floating_point() else tensor for tensor in task)) for task in tasks]
    loss = accumulate(make(config, network), cast)
    return loss, {name: param.grad for name, param in network.named_parameters() if param.grad is not None}


def check_gradients(name: str, theirs: Gradients, reference: Gradients, *, rounding: float = 0.0) -> dict[str, float]:
    """Return the differences in loss and gradient from the reference; DisagreementError where they are not those of rounding.

    rounding: how far float32 is from float64 where that is much; three times as much is allowed.
    """
    exact = reference[0].dtype == theirs[0].dtype == torch.float64
    apart = {"loss": loss_difference(theirs, reference), "gradient": gradient_difference(theirs, reference)}
    limits = {name: EXACT if exact else max(limit, 3 * rounding) for name, limit in (("loss", ROUNDED_LOSS), ("gradient", ROUNDED))}
    for what, limit in limits.items():
        if not apart[what] <= limit:
            raise DisagreementError(
                f"the {what} of {name} in {'float64' if exact else 'float32'} differs from the plain loop's by {apart[what]:.2g} of its size, "
                f"more than {limit:.0e}; nothing that computes something else is timed."
            )
    return apart


def check_scores(name: str, score: float, reference: float, metric: str) -> float:
    """Return the difference of two mean scores over the same episodes; DisagreementError where it is not that of rounding.

    An accuracy is a mean of hits, of which a few near the border may fall on its other side.
    """
    apart = abs(score - reference) / (1.0 if metric == "accuracy" else max(abs(reference), 1e-12))
    if not apart <= (5e-3 if metric == "accuracy" else 1e-3):
        raise DisagreementError(f"the {metric} of {name} is {score:.6g}, the plain loop's {reference:.6g} on the same episodes.")
    return apart


def loss_difference(a: Gradients, b: Gradients) -> float:
    """Return the difference of the losses, relative to the second."""
    return abs(float(a[0]) - float(b[0])) / max(abs(float(b[0])), 1e-12)


def gradient_difference(a: Gradients, b: Gradients) -> float:
    """Return the norm of the difference of the gradients, relative to that of the second.

    One norm over all parameters, since a bias in front of a normalisation has no gradient but rounding errors.
    """
    second = {name: gradient.double() for name, gradient in b[1].items()}
    apart = [a[1][name].double() - gradient for name, gradient in second.items()]
    norm = torch.nn.utils.get_total_norm
    return float(norm(apart) / norm(list(second.values())))


def compare_gradients(problem: Problem, runs: dict[str, Run], rounding: float) -> dict[str, dict[str, float]]:
    """Return how far each contender's float32 loss and gradient are from the plain loop's; raises where that is too far, in float64 too."""
    loops, _ = loops_for(problem.config)
    apart: dict[str, dict[str, float]] = {}
    whole: int = problem.config["tasks_per_step"]
    for dtype, count in ((torch.float64, min(2, whole)), (torch.float32, whole)):
        tasks = problem.tasks("train", 0, count)
        found = {name: gradients(make, problem.config, problem.network, tasks, dtype) for name, make in loops.items()}
        found |= {name: run.gradients(dtype, count) for name, run in runs.items()}
        apart = {name: check_gradients(name, each, found[PLAIN], rounding=rounding) for name, each in found.items() if name != PLAIN}
    return apart


def compare_scores(problem: Problem, run: Run, episodes: int) -> dict[str, dict[str, float]]:
    """Return how far each contender's mean score on the first episodes is from the plain loop's; raises where that is too far."""
    loops, _ = loops_for(problem.config)
    report, tasks = run.evaluate(episodes), problem.tasks("val", 0, episodes)
    means = {"metarun": report.mean}
    for name, make in loops.items():
        loop = make(problem.config, copy.deepcopy(problem.network))
        means[name] = float(torch.stack([loop.score(task) for task in tasks]).double().mean())
    return {name: {report.metric: check_scores(name, mean, means[PLAIN], report.metric)} for name, mean in means.items() if name != PLAIN}
