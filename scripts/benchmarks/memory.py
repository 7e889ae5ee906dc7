"""The peak of memory of a few outer steps, in a process that does nothing else."""

from __future__ import annotations

import resource
import sys
from collections.abc import Callable

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
    if name == PLAIN:
        problem = problem_of(composed(row.overrides))
        loop = loops_for(problem.config)[0][PLAIN](problem.config, problem.network)
        tasks = problem.tasks("train", 0, problem.config["tasks_per_step"])
        take = Training(loop, problem.network, problem.config["optimizer"]["lr"], [tasks]).step
    else:
        variants, left_out = offered((name,), row.overrides)
        if not variants:
            return [{"contender": name, "unit": "MiB", "samples": [], "facts": {"remarks": left_out}}]
        take = Run(variants[name]).step
    built = peak()
    take()
    take()
    facts = {"imports": imported, "before the first step": built - imported}
    return [{"contender": name, "unit": "MiB", "samples": [peak() - imported], "facts": facts}]


def peak() -> float:
    """Return the most memory that this process has held at once, in MiB."""
    most = resource.getrusage(resource.RUSAGE_SELF).ru_maxrss
    return most / 2**20 if sys.platform == "darwin" else most / 2**10  # bytes there, KiB elsewhere
