"""The peak of memory of a few outer steps, in a process that does nothing else."""

from __future__ import annotations

import resource
import sys
from collections.abc import Callable

import torch

from metarun.functional import deal

from .loops import Training, loops_for
from .ours import Run
from .outcome import PLAIN, Options, Result
from .problem import problem_of
from .rows import Row
from .variants import composed, offered


def memory(row: Row, options: Options) -> list[Result]:
    """Take the peak of memory over two steps of the row's one contender, beyond what this process held after its imports."""
    (name,) = row.contenders
    imported = peak()
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
    built = peak()
    take()
    take()
    facts = {"remarks": remarks, "imports": imported, "before the first step": built - imported}
    return [{"contender": name, "unit": "MiB", "samples": [peak() - imported], "facts": facts}]


def held(run: Run) -> str:
    """Return what the episodes of a step take, beside what else is in the peak."""
    batch = deal(run.parts.source, "train", torch.arange(1))
    values = sum(part.x.numel() for part in batch) * run.settings.tasks_per_step
    return f"a step's episodes are {values * 4 / 2**20:.0f} MiB, and up to three steps are held"


def peak() -> float:
    """Return the most memory that this process has held at once, in MiB."""
    most = resource.getrusage(resource.RUSAGE_SELF).ru_maxrss
    return most / 2**20 if sys.platform == "darwin" else most / 2**10  # bytes there, KiB elsewhere
