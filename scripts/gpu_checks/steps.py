"""The time of an outer step beside the plain loop on the same device, in each precision, with the share of waiting and the memory."""

from __future__ import annotations

import copy
import statistics
from collections.abc import Callable, Sequence
from contextlib import closing
from typing import Any

import torch
from benchmarks.ours import Run
from benchmarks.problem import problem_of
from benchmarks.timing import Contender, alternate
from torch import Tensor, nn

from .agreement import outcome
from .configs import composed, row
from .loops import PLAIN_LOOPS, GradientLoop, ReptileLoop, batches
from .parts import Note, Options
from .waiting import on_device

PRECISIONS = ("float32", "tf32", "bf16")
APART = {"maml": 1e-6, "protonet": 1e-6, "reptile": 1e-6}
"""The largest relative difference of the first gradient from the plain loop's in float64."""


def steps(options: Options, note: Note, name: str) -> list[str]:
    """Time a row in each precision. `beside` checks that both contenders compute the same gradient."""
    overrides = (*row(name, small=options.small), f"device={options.device}", "device.compile=false", "device.kernels=torch")
    problem = problem_of(composed(overrides))
    dealt = batches(problem, options.device)
    for precision in PRECISIONS:
        torch.cuda.empty_cache()
        with closing(Run((*overrides, f"device.precision={precision}"))) as run:
            loop = PLAIN_LOOPS[name](problem, copy.deepcopy(problem.network).to(options.device), dealt, precision, options.device)
            contenders = [contender("plain loop", loop.step, options), contender("metarun", run.step, options, run.settle)]
            alternate(contenders, options.rounds, options.seconds)
            figures = compared(contenders) | {"mode": run.mode, "chunk": run.settings.plan.chunk}
            if options.device == "cuda":
                for each in contenders:
                    figures[each.name] |= on_device(each.step, each.settle, figures[each.name]["median_s"])
                share = figures["metarun"]["waiting"]
                figures["told"] += "" if share is None else f"; the GPU waits {share:.0%} of metarun's step"
            note(precision, figures)
    return []


def beside(options: Options, note: Note) -> list[str]:
    """Compare the first gradient of each row in float64; return a sentence for each that differs from the plain loop's or fails."""
    failures = []
    for name in APART:
        overrides = (*row(name, small=options.small), f"device={options.device}", "device.compile=false", "device.kernels=torch")
        try:
            failures += check(name, problem_of(composed(overrides)), overrides, options, note)
        except Exception as error:
            failures.append(f"{name}: {type(error).__name__}: {error}"[:500])
    return failures


def compiled(options: Options, note: Note) -> list[str]:
    """Time a step of a small network with and without torch's compiler, and a step of MAML on images with the compiler."""
    failures = []
    for name in ("sinusoid", "maml"):
        overrides = (*row(name, small=options.small), f"device={options.device}", "device.kernels=torch")
        with closing(Run((*overrides, "device.compile=false"))) as plain, closing(Run((*overrides, "device.compile=true"))) as fused:
            contenders = [contender("not compiled", plain.step, options), contender("metarun", fused.step, options)]
            alternate(contenders, options.rounds, options.seconds)
            figures = compared(contenders) | {"mode": fused.mode}
            note(name, figures)
            if not all(value.isfinite().all() for value in fused.position.params.values()):
                failures.append(f"{name}: parameters are not finite after compiled steps")
    return failures


def contender(name: str, step: Callable[[], object], options: Options, settle: Callable[[], object] | None = None) -> Contender:
    """Return a contender whose turn ends when the device has done all its work."""

    def settled() -> None:
        if settle is not None:
            settle()
        if options.device == "cuda":
            torch.cuda.synchronize()

    return Contender(name, step, torch.get_num_threads(), settled)


def compared(contenders: Sequence[Contender]) -> dict[str, Any]:
    """Return the times of the two contenders, and how many times as long the first one takes, with the spread over the rounds."""
    other, ours = contenders
    ratios = [a / b for a, b in zip(other.samples, ours.samples, strict=True)]
    medians = [statistics.median(each.samples) for each in contenders]
    times = {
        each.name: {"median_s": median, "samples_s": each.samples, "first_s": each.warm}
        for each, median in zip(contenders, medians, strict=True)
    }
    ratio = {"median": statistics.median(ratios), "least": min(ratios), "most": max(ratios)}
    spread = f"{ratio['median']:.2f} times ({ratio['least']:.2f} to {ratio['most']:.2f}) the time of metarun"
    told = f"{other.name} {medians[0] * 1e3:.2f} ms, metarun {medians[1] * 1e3:.2f} ms: {spread}"
    return {**times, "ratio": ratio, "told": told}


def check(name: str, problem: Any, overrides: Sequence[str], options: Options, note: Note) -> list[str]:
    """Return a sentence if the gradients of the first tasks in float64 differ on this device."""
    config = composed((*overrides, "tasks_per_step=2", "eval_episodes=2"))
    ours = first_gradient(config, options)
    network = copy.deepcopy(problem.network).to(options.device, torch.float64)
    theirs = plain_gradient(name, problem_of(config), network, options)
    size = float(torch.cat([value.flatten() for value in theirs]).norm())
    apart = float(torch.cat([(a - b).flatten() for a, b in zip(ours, theirs, strict=True)]).norm()) / size
    note(f"{name}, gradient beside the plain loop", {"difference": apart, "told": f"{apart:.2g} of its size in float64"})
    return (
        [] if apart <= APART[name] else [f"{name}: the gradient differs from the plain loop's by {apart:.2g}, more than {APART[name]:.0e}"]
    )


def first_gradient(config: dict[str, Any], options: Options) -> list[Tensor]:
    """Return metarun's gradient of the first step in float64, in the order of the parameters."""
    from metarun.wiring.build import build

    return list(outcome(build(config), torch.float64, tasks=2).gradient.values())


def plain_gradient(name: str, problem: Any, network: nn.Module, options: Options) -> list[Tensor]:
    """Return the plain loop's gradient of the first step; of Reptile, φ - φ̃."""
    (batch,) = batches(problem, options.device, torch.float64, count=1)
    loop = PLAIN_LOOPS[name](problem, network, [batch], "float32", options.device)
    if isinstance(loop, ReptileLoop):
        return [value.cpu() for value in loop.displacement(batch)]
    assert isinstance(loop, GradientLoop)
    loop.optimizer.param_groups[0]["lr"] = 0.0
    loop.step()
    return [parameter.grad.cpu() for parameter in network.parameters() if parameter.grad is not None]
