"""Run a function of one chunk of tasks over whole batches: recorded, on several threads, with results in the order of the tasks.

On a CPU, chunks run on `workers` threads at once. Where there are enough chunks, each thread has one core, since two cores gain nothing on
small tensors. The results do not depend on the thread that runs a chunk. Only the size of the chunks and the number of threads of torch's
kernels decide the bits.
"""

from __future__ import annotations

from collections import deque
from collections.abc import Callable, Iterable, Iterator
from concurrent.futures import Future, ThreadPoolExecutor
from contextlib import nullcontext
from functools import partial
from types import TracebackType
from typing import Any, NamedTuple, Self

import torch
from torch import Tensor
from torch.utils._pytree import tree_leaves, tree_map

from metarun.compute.plan import Plan
from metarun.compute.programs.recording import Recorded
from metarun.functional import derivatives_on_this_thread, split_tensors, without_map
from metarun.processes.ranks import ONE, Ranks
from metarun.processes.shares import chunks_of, shares_of
from metarun.types import Aux, Params

WORTH_RECORDING = 8
"""Chunks below which a function runs as it is written: recording costs about as much as a few runs."""

Function = Callable[[Any, Any], Any]
"""A pure function `f(shared, chunk)` of two pytrees of tensors."""


class BatchGradient(NamedTuple):
    """The result of a batch of T tasks. gradient: of the mean loss, by parameter. losses: (T,). aux: with a leading axis T."""

    gradient: Params
    losses: Tensor
    aux: Aux


class Runner:
    """Maps functions `f(shared, chunk)` over the chunks of batches, as a plan says.

    ranks: the processes that divide the tasks (`metarun.processes.shares`). A runner records a function once and knows it again by its
    identity, or by its own `__eq__`: give the same object at every call.
    Close the runner, or use it in `with`, to end its threads and to restore torch's number of threads.
    """

    def __init__(self, plan: Plan, ranks: Ranks = ONE) -> None:
        self.plan, self.ranks = plan, ranks
        self.workers = -(-plan.workers // ranks.size)  # of this process
        self._recorded: dict[Function, Recorded] = {}
        self._threads_before = torch.get_num_threads()
        self._pool = None
        if self.workers > 1:
            self._pool = ThreadPoolExecutor(self.workers, "metarun-worker", _set_threads, (plan.threads,))

    def map(self, function: Function, shared: Any, batches: Iterable[Any], *, runs: int = 1, chunks: int | None = None) -> Iterator[Any]:
        """Yield `function(shared, chunk)` for each chunk of `plan.chunk` tasks of each batch of this process, in order.

        The runner takes the next batch while chunks of the batches before it still run, so that no core waits between two batches.
        shared, and each batch: pytrees of tensors; those of a batch have a leading axis T. runs: about how many batches the runner gets
        with this function in all. chunks: the same for chunks, of all processes, where batches differ. Few are not worth a recording.
        """
        if torch.get_num_threads() != self.plan.threads:
            torch.set_num_threads(self.plan.threads)
        return self._in_order(self._calls(function, shared, batches, runs, chunks))

    def shares(self, tasks: int) -> list[range]:
        """Return the tasks of each process, as positions in a batch of `tasks` tasks."""
        return shares_of(tasks, self.plan.chunk, self.ranks.size)

    def mean_gradient(self, function: Function, shared: Any, batch: Any, *, runs: int, tasks: int | None = None) -> BatchGradient:
        """Return the gradient of the mean loss over the tasks of a batch, with the losses and the aux of every task in order.

        function: returns the gradient of the SUM of the losses of a chunk, the losses, and the aux. runs: as in `map`. tasks: the number of
        tasks of all processes, where several divide them; the batch then holds the share of this process, and is None without one.
        """
        whole = _tasks(batch) if tasks is None else tasks
        counts = [len(share) for share in self.shares(whole)]
        parts: list[Params] = []
        outputs: Any = None
        done = 0
        mine = [batch] if counts[self.ranks.rank] else []
        for gradient, *chunk_outputs in self.map(function, shared, mine, chunks=runs * chunks_of(whole, self.plan.chunk)):
            # Results go into memory of their final size: small tensors that outlive their chunk would leave gaps between large blocks.
            if outputs is None:
                outputs = tree_map(lambda leaf: leaf.new_empty(counts[self.ranks.rank], *leaf.shape[1:]), chunk_outputs)
            self._add(parts, gradient)
            for of_batch, of_chunk in zip(tree_leaves(outputs), tree_leaves(chunk_outputs), strict=True):
                of_batch[done : done + len(of_chunk)] = of_chunk
            done += len(chunk_outputs[0])
        outputs = self.ranks.gather(outputs, counts)
        total = self.ranks.add_in_order(parts, sum(count > 0 for count in counts))
        return BatchGradient({name: value / whole for name, value in total.items()}, *outputs)

    def _add(self, parts: list[Params], gradient: Params) -> None:
        """Add the gradient of a chunk to the parts of this process.

        A sum of floats depends on its order. So only the first process, which has the first chunks, adds at once. The others keep the
        gradient of each chunk until they know the sum of the processes before them.
        """
        if not self.ranks.first and all(self.ranks.in_order(value.device.type) for value in gradient.values()):
            parts.append(gradient)
            return
        if not parts:
            parts.append({name: torch.zeros_like(value) for name, value in gradient.items()})
        for name, value in gradient.items():
            parts[0][name] += value

    @property
    def kernels(self) -> str:
        """The kernels that have computed: "c" where a recorded program was allowed to use the C kernels, else "torch"."""
        return "c" if any(recorded.c_kernels and recorded.whole for recorded in self._recorded.values()) else "torch"

    def recorded(self, function: Function) -> Recorded | None:
        """Return the recording of a function, or None where the function has run only as it is written."""
        return self._recorded.get(function)

    def _calls(
        self, function: Function, shared: Any, batches: Iterable[Any], runs: int, known: int | None
    ) -> Iterator[tuple[Callable[[], Any], bool]]:
        """Yield a call for each chunk, and whether it may run on a thread of the pool."""
        for batch in batches:
            chunks = self._cut(batch)
            if (runs * len(chunks) if known is None else known) < WORTH_RECORDING:
                yield from ((partial(self._cast(function), shared, chunk), False) for chunk in chunks)
                continue
            if function not in self._recorded:
                self._recorded[function] = Recorded(self._cast(function), self.plan.compile, self.plan.kernels == "c")
            programs = [self._recorded[function].program(shared, chunk) for chunk in chunks]
            concurrent = len(chunks) > 1 and all(program.concurrent for program in programs)
            yield from ((partial(program.call, shared, chunk), concurrent) for program, chunk in zip(programs, chunks, strict=True))

    def _in_order(self, calls: Iterable[tuple[Callable[[], Any], bool]]) -> Iterator[Any]:
        """Yield the results of the calls. Only a few calls run ahead of the caller, so that memory does not grow with their number."""
        running: deque[Future[Any]] = deque()
        try:
            for call, concurrent in calls:
                if concurrent and self._pool is not None:
                    running.append(self._pool.submit(call))
                    if len(running) > self.workers:
                        yield running.popleft().result()
                    continue
                while running:
                    yield running.popleft().result()
                yield call()
            while running:
                yield running.popleft().result()
        finally:
            for future in running:
                future.cancel()

    def _cut(self, batch: Any) -> list[Any]:
        """Return the chunks of a batch."""
        tensors, refill = split_tensors(batch)
        return [refill(parts) for parts in zip(*(tensor.split(self.plan.chunk) for tensor in tensors), strict=True)]

    def _cast(self, function: Function) -> Function:
        """Return the function with products in bfloat16, and with loops in the place of maps, where the plan says so."""
        device, loop = self.plan.autocast, self.plan.loop

        def cast(shared: Any, chunk: Any) -> Any:
            precision = nullcontext() if device is None else torch.autocast(device, torch.bfloat16)
            with derivatives_on_this_thread(), precision, without_map(loop):
                return function(shared, chunk)

        for name in ("what", "breakable"):
            if hasattr(function, name):
                setattr(cast, name, getattr(function, name))
        return cast

    def close(self) -> None:
        """End the threads; a second call does nothing."""
        if self._pool is not None:
            self._pool.shutdown(cancel_futures=True)
        torch.set_num_threads(self._threads_before)

    def __enter__(self) -> Self:
        return self

    def __exit__(self, kind: type[BaseException] | None, error: BaseException | None, trace: TracebackType | None) -> None:
        self.close()


def _tasks(batch: Any) -> int:
    """Return T, the length of the leading axis."""
    return len(split_tensors(batch)[0][0])


def _set_threads(count: int) -> None:
    """Set the number of kernel threads of a thread of the pool."""
    torch.get_num_threads()  # a thread's first call sets its number to the process's, and would overwrite a number set before
    torch.set_num_threads(count)
