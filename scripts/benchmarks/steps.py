"""The time of one outer step, for metarun and for the plain loops."""

from __future__ import annotations

import copy
from collections.abc import Callable
from contextlib import ExitStack, closing
from functools import partial

import torch

from .agreement import compare_gradients
from .loops import Training, loops_for
from .ours import Run
from .outcome import PLAIN, PRISTINE, Options, Result
from .problem import problem_of
from .rows import Row
from .timing import Contender, alternate, duration
from .variants import composed, offered

BATCHES = 4
"""Batches of tasks that a plain loop cycles through."""


def step(row: Row, options: Options) -> list[Result]:
    """Time an outer step with its optimizer. The plain loops get dealt episodes; metarun's time includes the dealing."""
    config, threads = composed(row.overrides), torch.get_num_threads()
    problem = problem_of(config)
    loops, absent = loops_for(config)
    variants, left_out = offered(row.contenders, row.overrides)
    tasks = config["tasks_per_step"]
    batches = [problem.tasks("train", start, tasks) for start in range(0, BATCHES * tasks, tasks)]

    def training(name: str, label: str) -> Contender:
        network = copy.deepcopy(problem.network)
        loop = Training(loops[name](config, network), network, config["optimizer"]["lr"], batches)
        return Contender(label, loop.step, threads)

    pristine = training(PLAIN, PRISTINE)
    alternate([pristine], options.rounds, options.seconds)
    with ExitStack() as stack:
        runs = {}
        for name, overrides in variants.items():
            torch.set_num_threads(threads)
            runs[name] = stack.enter_context(closing(Run(overrides)))
        recording = {name: first_call(partial(run.gradients, torch.float32, tasks)) for name, run in runs.items()}
        torch.set_num_threads(threads)
        apart = compare_gradients(problem, runs, row.rounding)
        contenders = [*(training(name, name) for name in loops), *(Contender(name, r.step, threads, r.settle) for name, r in runs.items())]
        alternate(contenders, options.rounds, options.seconds)
    slow = [
        f"{row.name}: {name} needs {taken:.0f} s before its first step, to record or compile."
        for name, taken in recording.items()
        if taken > 1
    ]
    facts = {"remarks": [*absent, *left_out, *slow], "recording": recording}
    return [each.result(facts | {"difference": apart.get(each.name)}) for each in (pristine, *contenders)]


def first_call(call: Callable[[], object]) -> float:
    """Return the extra seconds of the first of two calls."""
    return duration(call) - duration(call)
