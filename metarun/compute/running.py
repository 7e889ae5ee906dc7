"""Running functions of one chunk of tasks over whole batches: recorded, on several threads, results in the order of the tasks.

On a processor, chunks run side by side on `workers` threads of one core each, since small tensors leave nothing for two cores to share.
Which thread runs a chunk changes no number, and results are joined in order, so only the size of the chunks and of the kernels' own
thread teams decides the bits.
"""

from __future__ import annotations

from collections import deque
from collections.abc import Callable, Iterable, Iterator
from concurrent.futures import Future, ThreadPoolExecutor
from functools import partial
from types import TracebackType
from typing import Any, Self

import torch
from torch import Tensor
from torch.utils._pytree import tree_flatten, tree_unflatten

from metarun.compute.plan import Plan
from metarun.compute.programs.recording import Recorded

WORTH_RECORDING = 8
"""A program that runs fewer times than this is not recorded: recording costs about as much as a few runs."""


class Runner:
    """Maps functions `f(shared, chunk)` over the chunks of batches, as a plan says.

    Close it, or use it in `with`, to end its threads and to give back the number of threads of torch's kernels.
    """

    def __init__(self, plan: Plan) -> None:
        self.plan = plan
        self._recorded: dict[str, Recorded] = {}
        self._before = torch.get_num_threads()
        self._pool = None
        if plan.workers > 1:
            self._pool = ThreadPoolExecutor(plan.workers, "metarun-worker", _set_threads, (plan.threads,))

    def map(self, name: str, function: Callable[[Any, Any], Any], shared: Any, batches: Iterable[Any], *, times: int) -> Iterator[Any]:
        """Yield `function(shared, part)` for each part of `chunk` tasks of each batch, in order.

        A batch is taken from `batches` while parts of those before it still run, so that no core waits between two batches.
        name: of the function, one per runner; the function must be the same at each call of a name. shared, and each batch: pytrees of
        tensors, the latter with a leading axis T. times: how often about the run will do this with a batch, by which it is decided
        whether to record.
        """
        if torch.get_num_threads() != self.plan.threads:
            torch.set_num_threads(self.plan.threads)
        return self._in_order(self._calls(name, self._cast(function), shared, batches, times))

    @property
    def kernels(self) -> str:
        """Whose kernels have computed: "c" where a recorded program was allowed to use those of `metarun.compute.kernels.rewrite`, else "torch"."""
        return "c" if any(recorded.c_kernels and recorded.whole for recorded in self._recorded.values()) else "torch"

    def _calls(
        self, name: str, function: Callable[[Any, Any], Any], shared: Any, batches: Iterable[Any], times: int
    ) -> Iterator[tuple[Callable[[], Any], bool]]:
        """Yield what to call for each part, and whether on a thread of the pool."""
        for batch in batches:
            parts = self._cut(batch)
            if times * len(parts) < WORTH_RECORDING:
                yield from ((partial(function, shared, part), False) for part in parts)
                continue
            recorded = self._recorded.setdefault(name, Recorded(function, self.plan.compile, self.plan.kernels == "c"))
            programs = [recorded.program(shared, part) for part in parts]
            aside = len(parts) > 1 and all(program.concurrent for program in programs)
            yield from ((partial(program.call, shared, part), aside) for program, part in zip(programs, parts, strict=True))

    def _in_order(self, calls: Iterable[tuple[Callable[[], Any], bool]]) -> Iterator[Any]:
        """Yield the results of the calls, few of them ahead of what was taken, so that memory does not grow with their number."""
        running: deque[Future[Any]] = deque()
        try:
            for call, aside in calls:
                if aside and self._pool is not None:
                    running.append(self._pool.submit(call))
                    if len(running) > self.plan.workers:
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
        leaves, spec = tree_flatten(batch)
        tasks, chunk = next(leaf.shape[0] for leaf in leaves if isinstance(leaf, Tensor)), self.plan.chunk
        cut = [leaf.split(chunk) if isinstance(leaf, Tensor) else [leaf] * -(-tasks // chunk) for leaf in leaves]
        return [tree_unflatten(list(part), spec) for part in zip(*cut, strict=True)]

    def _cast(self, function: Callable[[Any, Any], Any]) -> Callable[[Any, Any], Any]:
        device = self.plan.autocast
        if device is None:
            return function

        def cast(shared: Any, part: Any) -> Any:
            with torch.autocast(device, torch.bfloat16):
                return function(shared, part)

        return cast

    def close(self) -> None:
        """End the threads; a second call does nothing."""
        if self._pool is not None:
            self._pool.shutdown(cancel_futures=True)
        torch.set_num_threads(self._before)

    def __enter__(self) -> Self:
        return self

    def __exit__(self, kind: type[BaseException] | None, error: BaseException | None, trace: TracebackType | None) -> None:
        self.close()


def _set_threads(count: int) -> None:
    torch.get_num_threads()  # what is set before a thread has looked once is lost
    torch.set_num_threads(count)
