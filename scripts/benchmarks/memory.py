"""The peak memory of a few outer steps, in a process that does nothing else."""

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
"""The least number of chunks that run, if several run at once.

The free memory that a chunk meets depends on the progress of the others, so the peak grows slowly with the number of chunks that have run.
Rows are comparable only if each runs the same number of chunks."""


def memory(row: Row, options: Options) -> list[Result]:
    """Measure the peak memory over a few steps of the row's one contender, beyond the memory after the imports."""
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
    """Return the number of steps: two, or enough steps for `CHUNKS` chunks if several chunks run at once."""
    plan, tasks = run.settings.plan, run.settings.tasks_per_step
    return 2 if plan.workers == 1 else max(2, -(-CHUNKS // -(-tasks // plan.chunk)))


def held(run: Run) -> str:
    """Return a sentence on the memory of the episodes, which is part of the peak. Images are bytes first and float32 later."""
    batch = deal(run.parts.source, "train", torch.arange(1))
    values = sum(part.x.numel() for part in batch) * run.settings.tasks_per_step
    return f"the episodes of a step take {values * 4 / 2**20:.0f} MiB; memory holds up to two steps of them, and the bytes of one"


def peak() -> float:
    """Return the largest memory that this process has held at once, in MiB."""
    largest = resource.getrusage(resource.RUSAGE_SELF).ru_maxrss
    return largest / 2**20 if sys.platform == "darwin" else largest / 2**10  # macOS counts bytes, Linux KiB
