"""Chunks of tasks run side by side, in the order of the tasks, and change no number."""

from __future__ import annotations

import threading
from typing import Any

import pytest
import torch
from torch import Tensor

from metarun.compute.plan import Plan
from metarun.compute.running import Runner

BATCH = (torch.arange(14.0).reshape(7, 2), None, torch.arange(7))


def double(shared: Tensor, part: Any) -> tuple[Tensor, Tensor]:
    x, nothing, number = part
    assert nothing is None
    return shared * x, number


def results(plan: Plan, *, times: int = 100) -> list[tuple[Tensor, Tensor]]:
    with Runner(plan) as runner:
        return list(runner.map("double", double, torch.tensor(2.0), [BATCH], times=times))


@pytest.mark.parametrize("plan", [Plan(3), Plan(3, workers=2), Plan(1, workers=3), Plan(8)])
@pytest.mark.parametrize("times", [1, 100])
def test_results_come_in_the_order_of_the_tasks(plan: Plan, times: int):
    """Recorded or not, one after the other or side by side; the last chunk may be smaller."""
    found = results(plan, times=times)
    assert [len(number) for _, number in found] == ([3, 3, 1] if plan.chunk == 3 else [1] * 7 if plan.chunk == 1 else [7])
    assert torch.equal(torch.cat([x for x, _ in found]), 2 * BATCH[0])
    assert torch.cat([number for _, number in found]).tolist() == list(range(7))


def test_chunks_run_on_threads_of_their_own_with_the_planned_size_of_teams():
    before = torch.get_num_threads()
    seen = set()

    def look(_: Any, part: Tensor) -> Tensor:
        seen.add((threading.current_thread().name, torch.get_num_threads()))
        return part + 1

    with Runner(Plan(1, workers=2)) as runner:
        runner._recorded["look"] = Unrecorded(look)  # type: ignore[assignment]
        assert len(list(runner.map("look", look, None, [torch.arange(6)], times=100))) == 6
    assert {size for _, size in seen} == {1}
    assert all(name.startswith("metarun-worker") for name, _ in seen)
    assert torch.get_num_threads() == before


class Unrecorded:
    """Stands in for a recorded function, so that the function itself runs on the workers."""

    def __init__(self, function: Any) -> None:
        self.function = function

    def program(self, *_: Any) -> Any:
        class Program:
            concurrent = True
            call = staticmethod(self.function)

        return Program


def test_an_error_in_a_worker_reaches_the_caller_and_its_threads_end():
    def broken(_: Any, part: Tensor) -> Tensor:
        raise ValueError(f"task {int(part)}")

    with Runner(Plan(1, workers=2)) as runner:
        runner._recorded["broken"] = Unrecorded(broken)  # type: ignore[assignment]
        with pytest.raises(ValueError, match="task 0"):
            list(runner.map("broken", broken, None, [torch.arange(6)], times=100))
    assert not [thread for thread in threading.enumerate() if thread.name.startswith("metarun-worker")]


def test_few_chunks_are_ahead_of_what_was_taken():
    """So that the memory of a step does not grow with its tasks."""
    begun = []

    def note(_: Any, part: Tensor) -> Tensor:
        begun.append(int(part))
        return part

    with Runner(Plan(1, workers=2)) as runner:
        runner._recorded["note"] = Unrecorded(note)  # type: ignore[assignment]
        next(iter(runner.map("note", note, None, [torch.arange(50)], times=100)))
        assert len(begun) <= 3


def test_the_next_batch_is_taken_while_the_one_before_still_runs():
    """Each batch has two parts for two workers; the third part has to begin before the second ends, which waits for it."""
    third_began = threading.Event()

    def meet(_: Any, part: Tensor) -> Tensor:
        if int(part) == 1:
            assert third_began.wait(timeout=30)
        if int(part) == 2:
            third_began.set()
        return part

    with Runner(Plan(1, workers=2)) as runner:
        runner._recorded["meet"] = Unrecorded(meet)  # type: ignore[assignment]
        found = runner.map("meet", meet, None, (torch.tensor(pair) for pair in ([0, 1], [2, 3])), times=100)
        assert [int(part) for part in found] == [0, 1, 2, 3]


@pytest.mark.parametrize("plan", [Plan(3), Plan(3, workers=2)])
@pytest.mark.parametrize("times", [1, 100])
def test_batches_of_any_size_come_one_after_the_other(plan: Plan, times: int):
    """A batch of one part runs where the caller is, after those before it have been handed out."""
    batches = [(torch.ones(size, 2), None, torch.arange(size) + start) for size, start in ((7, 0), (2, 7), (6, 9))]
    with Runner(plan) as runner:
        found = list(runner.map("double", double, torch.tensor(2.0), iter(batches), times=times))
    assert [number.tolist() for _, number in found] == [[0, 1, 2], [3, 4, 5], [6], [7, 8], [9, 10, 11], [12, 13, 14]]


@pytest.mark.parametrize("times", [1, 100])
def test_products_are_taken_in_bfloat16_where_the_plan_says_so(times: int):
    """1 + 2^-9 is 1 in bfloat16, which has 8 bits of fraction; in float32 it is itself."""

    def product(shared: Tensor, part: Tensor) -> Tensor:
        return (part @ shared).float()

    found = {}
    for autocast in (None, "cpu"):
        with Runner(Plan(4, autocast=autocast)) as runner:
            found[autocast] = torch.cat(list(runner.map("product", product, torch.eye(2), [torch.full((4, 2), 1 + 2.0**-9)], times=times)))
    assert found[None].unique().tolist() == [1 + 2.0**-9]
    assert found["cpu"].unique().tolist() == [1.0]
