"""The time to follow one trajectory: learn it example by example, and after each class score the held-out examples of all classes so far.

The plain loop is stock torch: a module, `torch.optim.Adam`, one example a step. It computes the features of a fixed backbone once, as
metarun does.
"""

from __future__ import annotations

import copy
from contextlib import closing
from dataclasses import dataclass
from functools import partial

import torch
import torch.nn.functional as F
from torch import Tensor, nn

from metarun.types.streams import Trajectory, WithTrajectories

from .agreement import check_scores
from .ours import Run
from .outcome import PLAIN, PRISTINE, Options, Result
from .problem import Task, problem_of
from .rows import Row
from .timing import Contender, alternate
from .variants import composed

BLOCK = 256
"""Examples whose features the plain loop computes at once."""
ROUNDS = 3
"""The largest number of turns, because one takes many seconds."""


@dataclass(frozen=True)
class StreamLoop:
    """Online learning with Adam. backbone: with its first weights. learns_all: whether it learns too, beside a new output layer of 0."""

    backbone: nn.Module
    sizes: Trajectory
    lr: float
    learns_all: bool

    def follow(self, task: Task) -> Tensor:
        """Return the accuracy on the held-out examples of all classes so far, after each class: (N,)."""
        body, support, query = copy.deepcopy(self.backbone), task.support_x, task.query_x
        if not self.learns_all:
            support, query = (_features(body, x) for x in (support, query))
            body = nn.Identity()
        width = body(support[:1]).shape[1]
        model = nn.Sequential(body, nn.Linear(width, self.sizes.parts))
        for value in model[1].parameters():
            nn.init.zeros_(value)
        optimizer, scores = torch.optim.Adam(model.parameters(), self.lr), []
        for part in range(self.sizes.parts):
            for row in range(part * self.sizes.per_part, (part + 1) * self.sizes.per_part):
                optimizer.zero_grad()
                F.cross_entropy(model(support[row : row + 1]), task.support_y[row : row + 1]).backward()
                optimizer.step()
            known = (part + 1) * self.sizes.held_out
            with torch.no_grad():
                scores.append((model(query[:known]).argmax(dim=1) == task.query_y[:known]).float().mean())
        return torch.stack(scores)


def stream(row: Row, options: Options) -> list[Result]:
    """Time one validation trajectory with its scores. The plain loop gets it dealt; metarun's time includes the dealing."""
    config, threads = composed(row.overrides), torch.get_num_threads()
    problem, algo = problem_of(config), config["algo"]
    assert isinstance(problem.source, WithTrajectories)
    (task,) = problem.tasks("val", 0, 1)
    sizes = problem.source.trajectory("val")
    loop = StreamLoop(problem.network, sizes, algo["test_inner_lrs"][0], algo["learns_all"])
    follow = partial(loop.follow, task)
    reference = follow()
    alternate([pristine := Contender(PRISTINE, follow, threads)], 1, seconds=0)
    with closing(Run(row.overrides)) as run:
        score = partial(run.evaluate, 1, by_step="last")
        check_scores("metarun", score().mean, float(reference[-1]), "accuracy")
        contenders = [Contender(PLAIN, follow, threads), Contender("metarun", score, threads)]
        alternate(contenders, min(options.rounds, ROUNDS), seconds=0)
    said = [f"{row.name}: {sizes.parts} classes, {sizes.parts * sizes.per_part:,} steps; accuracy {float(reference[-1]):.1%} in the end."]
    return [each.result({"remarks": said}) for each in (pristine, *contenders)]


def _features(body: nn.Module, x: Tensor) -> Tensor:
    with torch.no_grad():
        return torch.cat([body(block) for block in x.split(BLOCK)])
