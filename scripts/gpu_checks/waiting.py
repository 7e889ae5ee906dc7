"""How long the device waits in a step, and the memory that a step takes.

torch's profiler notes when each kernel and each copy began and ended on the device. It notes nothing of the CPU here, since that would slow
the step down. The length of the union of these intervals is the time in which the device works. The rest of an unprofiled step's time is
the time in which the device waits.
"""

from __future__ import annotations

import time
from collections import defaultdict
from collections.abc import Callable, Iterable
from typing import Any

import torch
from torch.profiler import ProfilerActivity, profile

STEPS, SECONDS = 10, 0.3
"""The most steps to observe, and about how long to observe slower ones: torch's profiler needs time for each kernel."""
TOP = 8
"""Kernels to name."""


def on_device(step: Callable[[], object], settle: Callable[[], object], seconds: float) -> dict[str, Any]:
    """Return the seconds of a step, the share in which the device waits, the peak memory, and the longest kernels.

    seconds: about how long a step takes.
    """
    steps = max(1, min(STEPS, round(SECONDS / max(seconds, 1e-9))))
    settle()
    torch.cuda.reset_peak_memory_stats()
    begun = time.perf_counter()
    for _ in range(steps):
        step()
    issued = time.perf_counter()
    settle()
    torch.cuda.synchronize()
    whole, issue = (time.perf_counter() - begun) / steps, (issued - begun) / steps
    memory = {"peak_allocated_bytes": torch.cuda.max_memory_allocated(), "peak_reserved_bytes": torch.cuda.max_memory_reserved()}
    with profile(activities=[ProfilerActivity.CUDA]) as profiled:
        for _ in range(steps):
            step()
        torch.cuda.synchronize()
    events = [
        each
        for each in profiled.events() or ()
        if str(each.device_type).endswith("CUDA") and not getattr(each, "is_user_annotation", False)
    ]
    spans = [(each.time_range.start * 1e-6, each.time_range.end * 1e-6) for each in events]
    busy = covered(spans) / steps
    figures = {"step_s": whole, "issue_s": issue, "kernels": len(spans) / steps, **memory}
    if not spans:
        return {**figures, "waiting": None, "remark": "torch's profiler saw no kernel here, so the share of waiting is unknown"}
    longest = totals((each.name, (each.time_range.end - each.time_range.start) * 1e-6) for each in events)
    total = sum(longest.values())
    top = {name[:120]: seconds / total for name, seconds in list(longest.items())[:TOP]}
    return {**figures, "busy_s": busy, "waiting": max(0.0, 1.0 - busy / whole), "share of the longest kernels": top}


def covered(spans: Iterable[tuple[float, float]]) -> float:
    """Return the length of the union of intervals."""
    total, reach = 0.0, float("-inf")
    for start, end in sorted(spans):
        total += max(0.0, end - max(start, reach))
        reach = max(reach, end)
    return total


def totals(timed: Iterable[tuple[str, float]]) -> dict[str, float]:
    """Return the sum of the seconds of each name, the largest first."""
    summed: dict[str, float] = defaultdict(float)
    for name, seconds in timed:
        summed[name] += seconds
    return dict(sorted(summed.items(), key=lambda each: -each[1]))
