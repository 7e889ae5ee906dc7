"""Running functions of one chunk of tasks over a whole batch: recorded, on several threads, results in the order of the tasks.

On a processor, chunks run side by side on `workers` threads of one core each, since small tensors leave nothing for two cores to share.
Which thread runs a chunk changes no number, and results are joined in order, so only the size of the chunks and of the kernels' own
thread teams decides the bits.
"""

from __future__ import annotations

from collections import deque
from collections.abc import Callable, Iterator
from concurrent.futures import Future, ThreadPoolExecutor
from types import TracebackType
from typing import Any, Self

import torch
from torch import Tensor
from torch.utils._pytree import tree_flatten, tree_unflatten

from metarun.device import Plan
from metarun.recording import Recorded

WORTH_RECORDING = 8
"""A program that runs fewer times than this is not recorded: recording costs about as much as a few runs."""


class Runner:
    """Maps functions `f(shared, chunk)` over the chunks of a batch, as a plan says.

    Close it, or use it in `with`, to end its threads and to give back the number of threads of torch's kernels.
    """

    def __init__(self, plan: Plan) -> None:
        self.plan = plan
        self._recorded: dict[str, Recorded] = {}
        self._before = torch.get_num_threads()
        self._pool = None
        if plan.workers > 1:
            self._pool = ThreadPoolExecutor(plan.workers, "metarun-worker", _set_threads, (plan.threads,))

    def map(self, name: str, function: Callable[[Any, Any], Any], shared: Any, batch: Any, *, times: int) -> Iterator[Any]:
        """Yield `function(shared, part)` for each part of `chunk` tasks of `batch`, in order.

        name: of the function, one per runner; the function must be the same at each call of a name. shared, batch: pytrees of tensors,
        the latter with a leading axis T. times: how often about the run will do this, by which it is decided whether to record.
        """
        if torch.get_num_threads() != self.plan.threads:
            torch.set_num_threads(self.plan.threads)
        leaves, spec = tree_flatten(batch)
        tasks, chunk = next(leaf.shape[0] for leaf in leaves if isinstance(leaf, Tensor)), self.plan.chunk
        cut = [leaf.split(chunk) if isinstance(leaf, Tensor) else [leaf] * -(-tasks // chunk) for leaf in leaves]
        parts = [tree_unflatten(list(part), spec) for part in zip(*cut, strict=True)]
        function = self._cast(function)
        if times * len(parts) < WORTH_RECORDING:
            return (function(shared, part) for part in parts)
        recorded = self._recorded.setdefault(name, Recorded(function, compile=self.plan.compile))
        calls = [recorded.program(shared, part) for part in parts]
        if self._pool is None or len(parts) == 1 or not all(call.concurrent for call in calls):
            return (call.call(shared, part) for call, part in zip(calls, parts, strict=True))
        return self._side_by_side(self._pool, [(call.call, part) for call, part in zip(calls, parts, strict=True)], shared)

    def _side_by_side(self, pool: ThreadPoolExecutor, calls: list[tuple[Callable[..., Any], Any]], shared: Any) -> Iterator[Any]:
        """Run the calls on the pool, few of them ahead of what was taken, so that memory does not grow with their number."""
        running: deque[Future[Any]] = deque()
        try:
            for call, part in calls:
                running.append(pool.submit(call, shared, part))
                if len(running) > self.plan.workers:
                    yield running.popleft().result()
            while running:
                yield running.popleft().result()
        finally:
            for future in running:
                future.cancel()

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
