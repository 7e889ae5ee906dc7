"""The speed of dealing episodes, and the time that an outer step waits for them."""

from __future__ import annotations

from contextlib import closing

import torch
from torch import Tensor

from metarun.episodes import deal
from metarun.types import Episode, TaskSource
from metarun.wiring.build import build_source

from .ours import Run
from .outcome import Options, Result
from .rows import Row
from .timing import Contender, alternate
from .variants import composed

BATCH = 32


def dealing(row: Row, options: Options) -> list[Result]:
    """Time the dealing of batches of 32, and a step with and without dealing. A negative share is noise around 0."""
    source, threads, first = build_source(composed(row.overrides)), torch.get_num_threads(), 0

    def next_batch() -> None:
        nonlocal first
        deal(source, "train", torch.arange(first, first + BATCH))
        first += BATCH

    alternate([dealer := Contender("dealing alone", next_batch, threads)], options.rounds, options.seconds)
    with closing(Run(row.overrides)) as run, closing(Run(row.overrides, wrap=Dealt)) as dealt:
        whole = Contender("step", run.step, threads, run.settle)
        without = Contender("step on dealt episodes", dealt.step, threads, dealt.settle)
        for each in (whole, without):
            each.warm_up(options.seconds)
        waited = []
        for _ in range(options.rounds):
            before = run.waited
            whole.turn()
            waited.append(100 * (run.waited - before) / (whole.count * whole.samples[-1]))
            without.turn()
    shares = [100 * (1 - b / a) for a, b in zip(whole.samples, without.samples, strict=True)]
    return [
        {"contender": dealer.name, "unit": "episodes/s", "samples": [BATCH / each for each in dealer.samples], "facts": {}},
        whole.result({}),
        without.result({}),
        {"contender": "share of a step that waits for episodes", "unit": "%", "samples": waited, "facts": {}},
        {"contender": "share of a step saved by dealing in advance", "unit": "%", "samples": shares, "facts": {}},
    ]


class Dealt:
    """A source whose episodes cost nothing: it returns the first batch of each length again and again."""

    def __init__(self, source: TaskSource) -> None:
        self.source, self.objective = source, source.objective
        self.kept: dict[tuple[str, int], Episode] = {}

    def episode(self, split: str, index: int) -> Episode:
        """Deal as the source does."""
        return self.source.episode(split, index)

    def batch(self, split: str, indices: Tensor) -> Episode:
        """Return the batch that was dealt for the first call of this length."""
        key = (split, len(indices))
        if key not in self.kept:
            self.kept[key] = deal(self.source, split, indices)
        return self.kept[key]
