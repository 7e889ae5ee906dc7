"""Loss, gradient and validation score of each algorithm on the device, beside those of the CPU in float64.

Two comparisons. In float64 both devices must agree to `EXACT`: nothing but an error explains a larger difference. In float32, without
TF32, the device's recorded programs must be as near to the CPU's float64 as float32 allows: within `ROUNDED`, or within `TIMES` the
distance of the CPU's own float32.
"""

from __future__ import annotations

import traceback
from dataclasses import dataclass
from pathlib import Path
from typing import Any

import torch
from torch import Tensor
from torch.utils._pytree import tree_map_only

from metarun import draws
from metarun.compute.running import Runner
from metarun.engine.evaluation import TaskScores
from metarun.engine.training import TaskGradients
from metarun.episodes import deal
from metarun.errors import UserError
from metarun.wiring.build import Parts, build, build_settings, start

from .configs import TASKS, algorithms, does, short
from .parts import SHARDS, Note, Options

EXACT, ROUNDED, TIMES = 1e-6, 1e-3, 10.0
COUNT = 4
"""Tasks of a step."""
RECORDED = 1000
"""A number of steps from which a runner records."""


class LeftOutError(Exception):
    """The algorithm does not do this task; the argument says why."""


@dataclass
class Outcome:
    """losses: (T,). gradient: of the mean loss, by parameter. scores: (T, S), of validation episodes after each scored inner step."""

    losses: Tensor
    gradient: dict[str, Tensor]
    scores: Tensor
    recorded: bool


def agreement(options: Options, note: Note, shard: str) -> list[str]:
    """Compare the algorithms number shard, shard + SHARDS, …; return a sentence for each that differs or fails."""
    torch.set_num_threads(1)
    failures = []
    for option in algorithms()[int(shard) :: SHARDS]:
        for kind in TASKS:
            name = f"{option}, {kind}"
            try:
                if not does(option, kind):
                    continue
                figures = compare(option, kind, options.device)
                note(name, figures)
                failures += [f"{name}: {sentence}" for sentence in figures["failures"]]
            except LeftOutError as reason:
                note(name, {"left_out": str(reason)})
            except Exception as error:
                sentence = f"{type(error).__name__}: {next(iter(str(error).splitlines()), '')}"
                frames = [f"{Path(frame.filename).name}:{frame.lineno}" for frame in traceback.extract_tb(error.__traceback__)]
                note(name, {"error": sentence, "trace": frames[-12:]})
                failures.append(f"{name}: {sentence} ({', '.join(frames[-6:])})")
    return failures


def compare(option: str, kind: str, device: str) -> dict[str, Any]:
    """Return the relative differences of an algorithm on the device, and a sentence for each that is too large."""
    try:
        on_cpu = build(short(option, kind, "cpu"))
    except UserError as error:
        raise LeftOutError(str(error)) from error
    reference, rounded = outcome(on_cpu, torch.float64), outcome(on_cpu, torch.float32)
    parts = build(short(option, kind, device))
    exact = differences(outcome(parts, torch.float64), reference)
    found = outcome(parts, torch.float32, runs=RECORDED)
    found_apart, cpu_apart = differences(found, reference), differences(rounded, reference)
    failures = []
    for what, apart in exact.items():
        if not apart <= EXACT:
            failures.append(f"the {what} in float64 differs from the CPU's by {apart:.2g} of its size, more than {EXACT:.0e}")
    limits = {what: max(ROUNDED, TIMES * apart) for what, apart in cpu_apart.items()}
    for what, apart in found_apart.items():
        if not apart <= limits[what]:
            failures.append(f"the {what} in float32 differs from float64 by {apart:.2g} of its size, more than {limits[what]:.2g}")
    figures = {"float64": exact, "float32": found_apart, "float32 on the CPU": cpu_apart, "limits of float32": limits}
    return {**figures, "largest": max(found_apart.values()), "recorded": found.recorded, "failures": failures}


def outcome(parts: Parts, dtype: torch.dtype, *, runs: int = 1, tasks: int = COUNT) -> Outcome:
    """Return what the first step and the first validation episodes give. runs: `RECORDED` for the programs that a run records."""
    settings, device = build_settings(parts), parts.device.name
    position, _ = start(parts, settings)

    def dealt(split: str) -> Any:
        indices = torch.arange(tasks)
        return deal(parts.source, split, indices, device), draws.key(0, split, indices).to(device)

    def cast(tree: Any) -> Any:
        return tree_map_only(Tensor, lambda leaf: leaf.to(dtype) if leaf.is_floating_point() else leaf, tree)

    params, state = cast((position.params, position.state))
    function, score = TaskGradients(parts.algorithm), TaskScores(parts.algorithm, "all")
    step = torch.zeros((), dtype=torch.int64, device=device)
    with Runner(settings.plan) as runner:
        result = runner.mean_gradient(function, (params, state, step), cast(dealt("train")), runs=runs)
        recorded = runner.recorded(function)
    with Runner(settings.eval_plan) as runner, torch.no_grad():
        chunks = list(runner.map(score, (params, state, None), [cast(dealt("val"))], runs=runs))
    scores = torch.cat([chunk["nll"][:, None] if "nll" in chunk else chunk["by_step"] for chunk in chunks])
    gradient = {name: value.cpu() for name, value in result.gradient.items()}
    return Outcome(result.losses.cpu(), gradient, scores.cpu(), recorded is not None and recorded.whole)


def differences(a: Outcome, b: Outcome) -> dict[str, float]:
    """Return the norms of the differences of a from b, relative to the norms of b.

    One norm covers the gradients of all parameters, since the gradient of a bias in front of a normalisation is rounding error only.
    """
    gradients = [(a.gradient[name], value) for name, value in b.gradient.items()]
    pairs = {"losses": [(a.losses, b.losses)], "gradient": gradients, "score": [(a.scores, b.scores)]}
    return {name: _apart(each) for name, each in pairs.items() if each}


def _apart(pairs: list[tuple[Tensor, Tensor]]) -> float:
    first, second = (torch.cat([pair[place].double().flatten() for pair in pairs]) for place in (0, 1))
    size = float(second.norm())
    return float((first - second).norm()) / size if size > 0 else float(first.norm())
