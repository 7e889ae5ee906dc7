"""Contenders take turns (A B A B), so other load on the machine affects all of them alike."""

from __future__ import annotations

import time
from collections.abc import Callable, Sequence
from dataclasses import dataclass, field
from typing import Any

import torch

from .outcome import Result

MAX_STEPS = 1000


def nothing() -> None:
    """Do nothing."""


@dataclass
class Contender:
    """Something to time.

    name: for the report. step: the timed function. settle: ends a turn and counts towards it: it waits for work on other threads.
    threads: torch's threads during a turn; `warm_up` keeps the number that the first step sets.
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
        """Take a few steps, then choose the number of steps for a turn of about `seconds`."""
        torch.set_num_threads(self.threads)
        self.warm = self._take(1)
        self.count = max(1, min(MAX_STEPS, round(seconds / max(self._take(2) / 2, 1e-9))))
        self.threads = torch.get_num_threads()

    def turn(self) -> None:
        """Take one turn and record the mean time of its steps: work done ahead for many steps falls into one of them."""
        torch.set_num_threads(self.threads)
        self.samples.append(self._take(self.count) / self.count)

    def result(self, facts: dict[str, Any]) -> Result:
        """Return the times of the turns."""
        facts = facts | {"threads": self.threads, "first step": self.warm, "steps a turn": self.count}
        return {"contender": self.name, "unit": "s", "samples": self.samples, "facts": facts}

    def _take(self, steps: int) -> float:
        def take() -> None:
            for _ in range(steps):
                self.step()
            self.settle()

        return duration(take)


def alternate(contenders: Sequence[Contender], rounds: int, seconds: float) -> None:
    """Warm up all contenders unless `seconds` is 0, then let each take a turn in every round."""
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
