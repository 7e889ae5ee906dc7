"""A B A B: contenders take turns, so that what the machine does meanwhile meets all of them alike."""

from __future__ import annotations

import time
from collections.abc import Callable, Sequence
from dataclasses import dataclass, field
from typing import Any

import torch

from .outcome import Result

MOST_STEPS = 1000


def nothing() -> None:
    """Do nothing."""


@dataclass
class Contender:
    """Something to time.

    name: for the report. step: what is timed. settle: ends a turn, as part of it: waits for what steps left to other threads.
    threads: of torch while it is its turn; what the first step makes of them is kept.
    count: steps of a turn. samples: seconds per step of each turn. warm: seconds of the first step.
    """

    name: str
    step: Callable[[], object]
    threads: int
    settle: Callable[[], object] = nothing
    count: int = 1
    samples: list[float] = field(default_factory=list)
    warm: float = 0.0

    def warm_up(self, seconds: float) -> None:
        """Take a few steps, and choose how many make a turn of about so many seconds."""
        torch.set_num_threads(self.threads)
        self.warm = self._take(1)
        self.count = max(1, min(MOST_STEPS, round(seconds / max(self._take(2) / 2, 1e-9))))
        self.threads = torch.get_num_threads()

    def turn(self) -> None:
        """Take one turn. A mean over its steps, since what is done ahead for many steps costs one of them its time."""
        torch.set_num_threads(self.threads)
        self.samples.append(self._take(self.count) / self.count)

    def result(self, facts: dict[str, Any]) -> Result:
        """Return what the turns took."""
        facts = facts | {"threads": self.threads, "first step": self.warm, "steps a turn": self.count}
        return {"contender": self.name, "unit": "s", "samples": self.samples, "facts": facts}

    def _take(self, steps: int) -> float:
        def take() -> None:
            for _ in range(steps):
                self.step()
            self.settle()

        return duration(take)


def alternate(contenders: Sequence[Contender], rounds: int, seconds: float) -> None:
    """Warm up all contenders, where a turn has a length to be chosen, then let each take a turn in every round."""
    for contender in contenders if seconds else ():
        contender.warm_up(seconds)
    for _ in range(rounds):
        for contender in contenders:
            contender.turn()


def duration(call: Callable[[], object]) -> float:
    """Return the seconds that a call takes."""
    begun = time.perf_counter()
    call()
    return time.perf_counter() - begun
