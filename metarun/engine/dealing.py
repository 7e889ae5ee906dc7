"""The episodes of the coming outer steps, dealt by another thread while a step runs.

What `Dealer.next` hands out is what `metarun.functional.deal` gives for the same numbers, bit for bit, wherever a run begins. Small tasks
are dealt for many steps at once, since a call costs as much for one step as for sixty.
"""

from __future__ import annotations

import threading
import time
from collections import deque
from collections.abc import Iterable, Iterator
from concurrent.futures import Future, ThreadPoolExecutor
from itertools import repeat
from types import TracebackType
from typing import NamedTuple

import torch
from torch import Tensor

from metarun import draws
from metarun.episodes import deal
from metarun.types import Episode, Examples, TaskSource, WithBatches

BLOCK_VALUES = 1_000_000
"""Input values that are dealt at once, where that is more than a step."""
BLOCK_STEPS = 64
"""The most steps that are dealt at once."""
BLOCKS_AHEAD = 2
"""One where a step is a block by itself: what it holds is large, and dealing it takes a small part of the time that it takes to run."""


class Step(NamedTuple):
    """The episodes of an outer step with a leading axis T, their keys (T,) for the algorithm's draws, and their numbers (T,), on the CPU."""

    batch: Episode
    keys: Tensor
    indices: Tensor


class Dealer:
    """Hands out the steps `first_step` … `steps` - 1 of a run, in order; its thread lives from `with` to the end of it.

    Step s has the episodes s * tasks_per_step … (s + 1) * tasks_per_step - 1 of `split`. seed: of the keys, as the run's.
    lock: held while the thread calls the source. Whoever else calls the source meanwhile holds it too, so that a source need not be made for
    several threads; and calls no `next` under it, which might wait for that thread.
    waited: seconds that `next` has waited for the thread, in all.
    """

    def __init__(
        self,
        source: TaskSource,
        split: str,
        *,
        first_step: int,
        steps: int,
        tasks_per_step: int,
        seed: int,
        device: torch.device | str = "cpu",
        block_values: int = BLOCK_VALUES,
    ) -> None:
        self.lock = threading.Lock()
        self.waited = 0.0
        self._source, self._split, self._seed, self._device = source, split, seed, device
        self._tasks, self._next, self._end = tasks_per_step, first_step, steps
        self._block_values = block_values
        self._block_steps: int | None = None  # what fits is known when the first step has been dealt
        self._ready: deque[Step] = deque()
        self._ahead: deque[Future[list[Step]]] = deque()
        self._thread = ThreadPoolExecutor(1, "dealer")

    def __enter__(self) -> Dealer:
        threads = torch.get_num_threads()
        self._thread.submit(_compute_alone).result()
        torch.set_num_threads(threads)  # as it was here; but a new thread begins with the number that was set last anywhere
        self._ahead.extend(self._thread.submit(self._deal) for _ in range(BLOCKS_AHEAD))
        return self

    def __exit__(self, kind: type[BaseException] | None, error: BaseException | None, traceback: TracebackType | None) -> None:
        self.close()

    def close(self) -> None:
        """End the thread, as soon as it has dealt what it is dealing."""
        self._thread.shutdown(wait=True, cancel_futures=True)

    def next(self) -> Step:
        """Return the next step, waiting for it where it is not ready.

        Raises what the source raised when dealing it, and IndexError, with a sentence, after the last step.
        """
        if not self._ready:
            start = time.perf_counter()
            try:
                self._ready.extend(self._ahead.popleft().result())
            finally:
                self.waited += time.perf_counter() - start
                # Not before: only with the first block is it known whether a step is one, and a third large step need not be held for it.
                if len(self._ahead) < (1 if self._block_steps == 1 else BLOCKS_AHEAD):
                    self._ahead.append(self._thread.submit(self._deal))
        if not self._ready:
            raise IndexError(f"the run ends after {self._end} steps, and all of them have been handed out.")
        return self._ready.popleft()

    def _deal(self) -> list[Step]:
        """Deal the next block of steps; of none at the end of the run."""
        steps = min(self._block_steps or 1, self._end - self._next)
        if steps <= 0:
            return []
        indices = torch.arange(self._next * self._tasks, (self._next + steps) * self._tasks)
        with self.lock:
            batch = deal(self._source, self._split, indices, self._device)
        keys = draws.key(self._seed, self._split, indices).to(self._device, non_blocking=True)
        if self._block_steps is None:
            self._block_steps = self._fitting(batch)
        self._next += steps
        if self._block_steps == 1:
            return [Step(batch, keys, indices)]
        return list(map(Step, self._cut(batch), self._parts(keys), indices.split(self._tasks)))

    def _fitting(self, step: Episode) -> int:
        if not isinstance(self._source, WithBatches):
            return 1  # dealt one by one: nothing to gain, and the end of a run would have to wait
        values = sum(part.x.numel() for part in step)
        return max(1, min(BLOCK_STEPS, self._block_values // max(values, 1)))

    def _cut(self, block: Episode) -> Iterator[Episode]:
        def steps(part: Examples) -> Iterator[Examples]:
            masks: Iterable[Tensor | None] = repeat(None) if part.mask is None else self._parts(part.mask)
            return map(Examples, self._parts(part.x), self._parts(part.y), masks)

        return map(Episode, steps(block.support), steps(block.query))

    def _parts(self, block: Tensor) -> Iterator[Tensor]:
        # Copies and not views: products of a matrix and a vector round by where in memory the matrix begins, and a step's place in its
        # block depends on the step at which a run was resumed.
        return (part.clone(memory_format=torch.contiguous_format) for part in block.split(self._tasks))


def _compute_alone() -> None:
    """Have torch use no other thread beside this one, which would get into the way of the step."""
    torch.get_num_threads()  # a thread's first question or operation sets its number to the process's; one set before would be lost
    torch.set_num_threads(1)
