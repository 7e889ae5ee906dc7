"""The check that all contenders compute the same function. The benchmark times no contender that disagrees.

- `EXACT`: in float64 all contenders agree to 14 digits.
- `ROUNDED`: in float32 the gradient is not continuous. An activation that rounds to the other side of a ReLU, or of a tie in a max-pool,
  changes the gradient by a step. A plain loop in float32 differs from itself in float64 by up to 1e-3 of the gradient's norm (ProtoNet,
  60-way). The limit leaves room for a few of these steps. A missing term or layer makes a larger difference.
- `ROUNDED_LOSS`: the loss has no steps, so a smaller limit holds and reveals a lower precision inside. Inner gradients can carry their
  steps into the loss; `Row.rounding` says for which rows.
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
    """Return the differences in loss and gradient from the reference.

    rounding: the difference of float32 from float64 for rows where it is large; the limit is then three times this value.

    Raises DisagreementError if a difference is larger than rounding explains.
    """
    exact = reference[0].dtype == theirs[0].dtype == torch.float64
    apart = {"loss": loss_difference(theirs, reference), "gradient": gradient_difference(theirs, reference)}
    limits = {name: EXACT if exact else max(limit, 3 * rounding) for name, limit in (("loss", ROUNDED_LOSS), ("gradient", ROUNDED))}
    for what, limit in limits.items():
        if not apart[what] <= limit:
            raise DisagreementError(
                f"the {what} of {name} in {'float64' if exact else 'float32'} differs from the plain loop's by {apart[what]:.2g} "
                f"of its size, more than {limit:.0e}; the benchmark times only contenders that compute the same function."
            )
    return apart


def check_scores(name: str, score: float, reference: float, metric: str) -> float:
    """Return the difference of two mean scores over the same episodes.

    An accuracy is a mean of hits. Rounding may turn a few queries near the decision border into hits or misses.

    Raises DisagreementError if the difference is larger than rounding explains.
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

    One norm covers all parameters, because the gradient of a bias in front of a normalisation is rounding error only.
    """
    second = {name: gradient.double() for name, gradient in b[1].items()}
    apart = [a[1][name].double() - gradient for name, gradient in second.items()]
    norm = torch.nn.utils.get_total_norm
    return float(norm(apart) / norm(list(second.values())))


def compare_gradients(problem: Problem, runs: dict[str, Run], rounding: float) -> dict[str, dict[str, float]]:
    """Return the distance of each contender's float32 loss and gradient from the plain loop's.

    Raises DisagreementError if float32 or float64 differs too much.
    """
    loops, _ = loops_for(problem.config)
    apart: dict[str, dict[str, float]] = {}
    whole: int = problem.config["tasks_per_step"]
    for dtype, count in ((torch.float64, min(2, whole)), (torch.float32, whole)):
        tasks = problem.tasks("train", 0, count)
        results = {name: gradients(make, problem.config, problem.network, tasks, dtype) for name, make in loops.items()}
        results |= {name: run.gradients(dtype, count) for name, run in runs.items()}
        apart = {name: check_gradients(name, each, results[PLAIN], rounding=rounding) for name, each in results.items() if name != PLAIN}
    return apart


def compare_scores(problem: Problem, run: Run, episodes: int) -> dict[str, dict[str, float]]:
    """Return the distance of each contender's mean score on the first episodes from the plain loop's.

    Raises DisagreementError if a score differs too much.
    """
    loops, _ = loops_for(problem.config)
    report, tasks = run.evaluate(episodes), problem.tasks("val", 0, episodes)
    means = {"metarun": report.mean}
    for name, make in loops.items():
        loop = make(problem.config, copy.deepcopy(problem.network))
        means[name] = float(torch.stack([loop.score(task) for task in tasks]).double().mean())
    return {name: {report.metric: check_scores(name, mean, means[PLAIN], report.metric)} for name, mean in means.items() if name != PLAIN}
