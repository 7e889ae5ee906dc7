"""The peak of memory of a few outer steps, in a process that does nothing else."""

from __future__ import annotations

import resource
import sys
from collections.abc import Callable

import torch

from metarun.episodes import deal

from .loops import Training, loops_for
from .ours import Run
from .outcome import PLAIN, Options, Result
from .problem import problem_of
from .rows import Row
from .variants import composed, offered

CHUNKS = 64
"""Run at least, where several run at once. What is free when one asks for memory depends on how far the others are, so the peak creeps up with
the chunks that have run, in few large steps as in many small ones; for rows to be compared each has to run as many."""


def memory(row: Row, options: Options) -> list[Result]:
    """Take the peak of memory over a few steps of the row's one contender, beyond what this process held after its imports."""
    (name,) = row.contenders
    imported, steps = peak(), 2
    take: Callable[[], object]
    remarks: list[str] = []
    if name == PLAIN:
        problem = problem_of(composed(row.overrides))
        loop = loops_for(problem.config)[0][PLAIN](problem.config, problem.network)
        tasks = problem.tasks("train", 0, problem.config["tasks_per_step"])
        take = Training(loop, problem.network, problem.config["optimizer"]["lr"], [tasks]).step
    else:
        variants, left_out = offered((name,), row.overrides)
        if not variants:
            return [{"contender": name, "unit": "MiB", "samples": [], "facts": {"remarks": left_out}}]
        run = Run(variants[name])
        take, remarks = run.step, [f"{row.name}: {name} runs {run.settings.plan.workers} chunks at once; {held(run)}."]
        steps = steps_of(run)
    built = peak()
    for _ in range(steps):
        take()
    facts = {"remarks": remarks, "imports": imported, "before the first step": built - imported}
    return [{"contender": name, "unit": "MiB", "samples": [peak() - imported], "facts": facts}]


def steps_of(run: Run) -> int:
    """Return how many steps to take: two, or as many as have `CHUNKS` where several chunks run at once."""
    plan, tasks = run.settings.plan, run.settings.tasks_per_step
    return 2 if plan.workers == 1 else max(2, -(-CHUNKS // -(-tasks // plan.chunk)))


def held(run: Run) -> str:
    """Return what the episodes of a step take, beside what else is in the peak; images are bytes before they are numbers of four."""
    batch = deal(run.parts.source, "train", torch.arange(1))
    values = sum(part.x.numel() for part in batch) * run.settings.tasks_per_step
    return f"a step's episodes are {values * 4 / 2**20:.0f} MiB, and up to two steps are held and the bytes of one"


def peak() -> float:
    """Return the most memory that this process has held at once, in MiB."""
    most = resource.getrusage(resource.RUSAGE_SELF).ru_maxrss
    return most / 2**20 if sys.platform == "darwin" else most / 2**10  # bytes there, KiB elsewhere
