"""Deal the episodes of the next outer steps on another thread while a step runs.

`Dealer.next` returns the same bits as `metarun.episodes.deal` for the same indices, at whichever step a run begins. The dealer deals small
tasks for many steps at once, since a call costs as much for one step as for sixty.
"""

from __future__ import annotations

import threading
import time
from collections import deque
from collections.abc import Iterator
from concurrent.futures import Future, ThreadPoolExecutor
from types import TracebackType
from typing import NamedTuple

import torch
from torch import Tensor

from metarun import draws
from metarun.episodes import deal
from metarun.functional import split_tensors
from metarun.processes.shares import placed
from metarun.types import Episode, TaskSource, WithBatches

BLOCK_VALUES = 1_000_000
"""Input values that the dealer deals at once, where that is more than a step."""
BLOCK_STEPS = 64
"""The largest number of steps in a block."""
BLOCKS_AHEAD = 2
"""Blocks dealt ahead. One is enough where a step is a block: such a step is large, and dealing takes a small part of its time."""


class Step(NamedTuple):
    """An outer step. batch: its episodes, with a leading axis T. keys: (T,), for the algorithm's draws. indices: (T,), on the CPU.

    Where several processes divide the tasks of a step, these are the tasks of this process.
    """

    batch: Episode
    keys: Tensor
    indices: Tensor


class Dealer:
    """Returns the steps `first_step` … `steps` - 1 of a run, in order. Its thread lives as long as the `with` block.

    Step s has the episodes s * tasks_per_step … (s + 1) * tasks_per_step - 1 of `split`. seed: the run's; it determines the keys.
    share: the tasks of a step that this process computes, as positions in the step; None for all. Without a task, never call `next`.
    lock: the thread holds it while it calls the source. Other callers of the source must hold it too, so that a source need not support
    several threads. They must not call `next` under the lock, as `next` may wait for the thread.
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
        share: range | None = None,
    ) -> None:
        self.lock = threading.Lock()
        self.waited = 0.0
        self._source, self._split, self._seed, self._device = source, split, seed, device
        self._tasks, self._next, self._end = tasks_per_step, first_step, steps
        self._share = range(tasks_per_step) if share is None else share
        self._block_values = block_values
        self._block_steps: int | None = None  # the first step that is dealt decides
        self._ready: deque[Step] = deque()
        self._ahead: deque[Future[list[Step]]] = deque()
        self._thread = ThreadPoolExecutor(1, "dealer")

    def __enter__(self) -> Dealer:
        threads = torch.get_num_threads()
        self._thread.submit(_compute_alone).result()
        torch.set_num_threads(threads)  # a new thread begins with the number that any thread set last
        self._ahead.extend(self._thread.submit(self._deal) for _ in range(BLOCKS_AHEAD if self._share else 0))
        return self

    def __exit__(self, kind: type[BaseException] | None, error: BaseException | None, traceback: TracebackType | None) -> None:
        self.close()

    def close(self) -> None:
        """End the thread after the block that it deals."""
        self._thread.shutdown(wait=True, cancel_futures=True)

    def next(self) -> Step:
        """Return the next step; wait where it is not ready.

        Raises the error of the source where dealing the step failed, and IndexError after the last step.
        """
        if not self._ready:
            start = time.perf_counter()
            try:
                self._ready.extend(self._ahead.popleft().result())
            finally:
                self.waited += time.perf_counter() - start
                # Submit only now: the first block decides whether a step is a block, and a third large step in memory would be waste.
                if len(self._ahead) < (1 if self._block_steps == 1 else BLOCKS_AHEAD):
                    self._ahead.append(self._thread.submit(self._deal))
        if not self._ready:
            raise IndexError(f"the run ends after {self._end} steps, and all of them have been dealt.")
        return self._ready.popleft()

    def _deal(self) -> list[Step]:
        """Deal the next block of steps; an empty one at the end of the run."""
        steps = min(self._block_steps or 1, self._end - self._next)
        if steps <= 0:
            return []
        first = torch.arange(self._next, self._next + steps)[:, None] * self._tasks
        indices = (first + torch.tensor(self._share)).flatten()
        with self.lock:
            batch = deal(self._source, self._split, indices, self._device)
        keys = draws.key(self._seed, self._split, indices).to(self._device, non_blocking=True)
        if self._block_steps is None:
            self._block_steps = self._fitting(batch)
        self._next += steps
        if self._block_steps == 1:
            return [Step(placed(batch, self._share.start), placed(keys, self._share.start), indices)]
        return list(map(Step, self._cut(batch), self._parts(keys), indices.split(len(self._share))))

    def _fitting(self, step: Episode) -> int:
        if not isinstance(self._source, WithBatches):
            return 1  # episodes come one by one: a block gains nothing, and delays the end of a run
        values = sum(part.x.numel() for part in step)
        return max(1, min(BLOCK_STEPS, self._block_values // max(values, 1)))

    def _cut(self, block: Episode) -> Iterator[Episode]:
        tensors, refill = split_tensors(block)
        return map(refill, zip(*map(self._parts, tensors), strict=True))

    def _parts(self, block: Tensor) -> Iterator[Tensor]:
        # Copies, not views: the rounding of a product of a matrix and a vector depends on the address of the matrix, and the place of a
        # step in its block depends on the step at which a run was resumed.
        parts = block.split(len(self._share))
        return (placed(part.clone(memory_format=torch.contiguous_format), self._share.start) for part in parts)


def _compute_alone() -> None:
    """Limit torch to one thread here, so that dealing takes no core from the step."""
    torch.get_num_threads()  # a thread's first call sets its number to the process's, and would overwrite a number set before
    torch.set_num_threads(1)
