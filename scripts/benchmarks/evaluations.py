"""The time to score many episodes, for metarun and for the plain loops."""

from __future__ import annotations

import copy
from contextlib import closing
from functools import partial

import torch

from metarun.types import WithTrajectory

from .agreement import compare_scores
from .loops import loops_for
from .ours import Run
from .outcome import PLAIN, PRISTINE, Options, Result
from .problem import problem_of
from .rows import Row
from .timing import Contender, alternate
from .variants import composed

SCORED = 64
"""Episodes of the comparison of scores, which is the warm-up too."""
ROUNDS = 2
"""The largest number of turns, because one takes half a minute."""


def evaluation(row: Row, options: Options) -> list[Result]:
    """Time the scoring of all episodes. The plain loops get dealt episodes; metarun's time includes the dealing."""
    config, threads = composed(row.overrides), torch.get_num_threads()
    problem = problem_of(config)
    loops, absent = loops_for(config)
    tasks = problem.tasks("val", 0, row.episodes)

    def scoring(name: str, label: str) -> Contender:
        loop = loops[name](config, copy.deepcopy(problem.network))
        loop.score(tasks[0])
        return Contender(label, lambda: [loop.score(task) for task in tasks], threads)

    alternate([pristine := scoring(PLAIN, PRISTINE)], 1, seconds=0)
    with closing(Run(row.overrides)) as run:
        apart = compare_scores(problem, run, min(SCORED, row.episodes))
        variants = {"metarun": "last"}
        if isinstance(run.parts.algorithm, WithTrajectory):
            variants |= {f"metarun, by_step={each}": each for each in ("all", "thin")}
        ours = [Contender(name, partial(run.evaluate, row.episodes, by_step=each), threads) for name, each in variants.items()]
        contenders = [*(scoring(name, name) for name in loops), *ours]
        alternate(contenders, min(options.rounds, ROUNDS), seconds=0)
    facts = {"remarks": absent, "episodes": row.episodes}
    return [each.result(facts | {"difference": apart.get(each.name)}) for each in (pristine, *contenders)]
