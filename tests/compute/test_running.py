"""Chunks of tasks run side by side, in the order of the tasks, and change no number."""

from __future__ import annotations

import threading
from typing import Any

import pytest
import torch
from torch import Tensor

from metarun.compute.plan import Plan
from metarun.compute.running import Runner
from metarun.processes.ranks import OneProcess
from metarun.types import Aux

BATCH = (torch.arange(14.0).reshape(7, 2), None, torch.arange(7))


def double(shared: Tensor, part: Any) -> tuple[Tensor, Tensor]:
    x, nothing, number = part
    assert nothing is None
    return shared * x, number


def results(plan: Plan, *, runs: int = 100) -> list[tuple[Tensor, Tensor]]:
    with Runner(plan) as runner:
        return list(runner.map(double, torch.tensor(2.0), [BATCH], runs=runs))


@pytest.mark.parametrize("plan", [Plan(3), Plan(3, workers=2), Plan(1, workers=3), Plan(8)])
@pytest.mark.parametrize("runs", [1, 100])
def test_results_come_in_the_order_of_the_tasks(plan: Plan, runs: int):
    """Recorded or not, one after the other or side by side; the last chunk may be smaller."""
    found = results(plan, runs=runs)
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
        runner._recorded[look] = Unrecorded(look)  # type: ignore[assignment]
        assert len(list(runner.map(look, None, [torch.arange(6)], runs=100))) == 6
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
        runner._recorded[broken] = Unrecorded(broken)  # type: ignore[assignment]
        with pytest.raises(ValueError, match="task 0"):
            list(runner.map(broken, None, [torch.arange(6)], runs=100))
    assert not [thread for thread in threading.enumerate() if thread.name.startswith("metarun-worker")]


def test_few_chunks_are_ahead_of_what_was_taken():
    """So that the memory of a step does not grow with its tasks."""
    begun = []

    def note(_: Any, part: Tensor) -> Tensor:
        begun.append(int(part))
        return part

    with Runner(Plan(1, workers=2)) as runner:
        runner._recorded[note] = Unrecorded(note)  # type: ignore[assignment]
        next(iter(runner.map(note, None, [torch.arange(50)], runs=100)))
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
        runner._recorded[meet] = Unrecorded(meet)  # type: ignore[assignment]
        found = runner.map(meet, None, (torch.tensor(pair) for pair in ([0, 1], [2, 3])), runs=100)
        assert [int(part) for part in found] == [0, 1, 2, 3]


@pytest.mark.parametrize("plan", [Plan(3), Plan(3, workers=2)])
@pytest.mark.parametrize("runs", [1, 100])
def test_batches_of_any_size_come_one_after_the_other(plan: Plan, runs: int):
    """A batch of one part runs where the caller is, after those before it have been handed out."""
    batches = [(torch.ones(size, 2), None, torch.arange(size) + start) for size, start in ((7, 0), (2, 7), (6, 9))]
    with Runner(plan) as runner:
        found = list(runner.map(double, torch.tensor(2.0), iter(batches), runs=runs))
    assert [number.tolist() for _, number in found] == [[0, 1, 2], [3, 4, 5], [6], [7, 8], [9, 10, 11], [12, 13, 14]]


@pytest.mark.parametrize("runs", [1, 100])
def test_products_are_taken_in_bfloat16_where_the_plan_says_so(runs: int):
    """1 + 2^-9 is 1 in bfloat16, which has 8 bits of fraction; in float32 it is itself."""

    def product(shared: Tensor, part: Tensor) -> Tensor:
        return (part @ shared).float()

    found = {}
    for autocast in (None, "cpu"):
        with Runner(Plan(4, autocast=autocast)) as runner:
            found[autocast] = torch.cat(list(runner.map(product, torch.eye(2), [torch.full((4, 2), 1 + 2.0**-9)], runs=runs)))
    assert found[None].unique().tolist() == [1 + 2.0**-9]
    assert found["cpu"].unique().tolist() == [1.0]


def sums(shared: Tensor, chunk: tuple[Tensor]) -> tuple[dict[str, Tensor], Tensor, Aux]:
    """Return the gradient by w of the sum of the losses w * x, the losses, and x as the aux."""
    (x,) = chunk
    return {"w": x.sum(), "idle": torch.zeros(2)}, shared * x, Aux({"loss": shared * x}, {"x": x})


@pytest.mark.parametrize("plan", [Plan(3), Plan(3, workers=2), Plan(8)])
@pytest.mark.parametrize("runs", [1, 100])
def test_a_mean_gradient_is_over_all_tasks_and_comes_with_what_each_gave_in_order(plan: Plan, runs: int):
    """d/dw of the mean of w * x is the mean of x, here 3."""
    x = torch.arange(7.0)
    with Runner(plan) as runner:
        gradient, losses, aux = runner.mean_gradient(sums, torch.tensor(2.0), (x,), runs=runs)
    assert float(gradient["w"]) == 3.0
    assert gradient["idle"].tolist() == [0.0, 0.0]
    assert torch.equal(losses, 2 * x)
    assert torch.equal(aux.metrics["loss"], 2 * x)
    assert torch.equal(aux.state["x"], x)


def test_a_function_is_recorded_once_and_another_with_the_same_code_is_recorded_anew():
    traced: list[str] = []

    class Named:
        def __init__(self, name: str) -> None:
            self.name = name

        def __call__(self, shared: Tensor, part: Any) -> Tensor:
            traced.append(self.name)
            return shared * part[0]

    one, other = Named("one"), Named("other")
    with Runner(Plan(8)) as runner:
        for function in (one, one, other, one):
            list(runner.map(function, torch.tensor(2.0), [BATCH], runs=100))
        assert runner.recorded(sums) is None
    assert traced == ["one", "other"]


class Half(OneProcess):
    """The second of two processes, whose peer has sent the rows and the sum `before`."""

    rank, size, first = 1, 2, False

    def __init__(self, *, ordered: bool = True) -> None:
        self.ordered, self.counts, self.parts = ordered, [0], list[Any]()

    def in_order(self, device: str) -> bool:
        return self.ordered

    def gather(self, rows: Any, counts: Any) -> Any:
        self.counts = list(counts)
        return rows

    def add_in_order(self, parts: list[Any], owners: int) -> Any:
        self.parts = [dict(part) for part in parts]
        return parts[0]


def test_a_later_process_keeps_the_gradient_of_each_chunk_where_their_order_counts() -> None:
    """Of 10 tasks in chunks of 2, the second of two processes has the last two chunks: tasks 6 to 9."""

    def sums(shared: Tensor, chunk: tuple[Tensor]) -> tuple[dict[str, Tensor], Tensor, Tensor]:
        (x,) = chunk
        return {"w": x.sum()[None]}, x, x

    for ordered, kept in ((True, [[13.0], [17.0]]), (False, [[30.0]])):
        ranks = Half(ordered=ordered)
        with Runner(Plan(2), ranks) as runner:
            gradient, losses, _ = runner.mean_gradient(sums, torch.tensor(0.0), (torch.arange(6.0, 10.0),), runs=1, tasks=10)
        assert [part["w"].tolist() for part in ranks.parts] == kept
        assert ranks.counts == [6, 4]
        assert losses.tolist() == [6, 7, 8, 9]
        assert gradient["w"].item() == pytest.approx(kept[0][0] / 10)


def test_several_processes_share_the_workers_of_a_plan() -> None:
    for workers, own in ((1, 1), (2, 1), (3, 2)):
        with Runner(Plan(2, workers), Half()) as runner:
            assert runner.workers == own
