"""The dealer: what it hands out, in which thread, and how it ends."""

from __future__ import annotations

import csv
import threading
import traceback
from collections.abc import Callable, Iterator
from concurrent.futures import wait
from dataclasses import dataclass, field
from pathlib import Path
from typing import Any

import pytest
import torch
from small import Double, Lines, few_shot
from torch import Tensor

from metarun import draws
from metarun.engine.dealing import BLOCKS_AHEAD, Dealer, Step
from metarun.episodes import deal
from metarun.errors import UserError
from metarun.tasks.curves import line, quadratic
from metarun.tasks.mixture import mixture
from metarun.tasks.ratings import ratings
from metarun.tasks.regression import regression
from metarun.tasks.sinusoid import sinusoid
from metarun.tasks.table import table
from metarun.testing import assert_same
from metarun.types import Episode, Examples, TaskSource


def a_table(folder: Path) -> TaskSource:
    path = folder / "data.csv"
    with path.open("w", newline="") as file:
        csv.writer(file).writerows([("task", "x", "y"), *((task, row, task * row) for task in range(9) for row in range(12))])
    return table(path=str(path), task_column="task", target="y", shots=3, queries=2)


SOURCES: dict[str, Callable[[Path], TaskSource]] = {
    "images": lambda folder: few_shot(),
    "images of varying ways and shots": lambda folder: few_shot(min_ways=2, min_shots=1),
    "images with class numbers": lambda folder: few_shot().numbered(),
    "sinusoid": lambda folder: sinusoid(queries=10),
    "varying shots": lambda folder: sinusoid(shots=3, min_shots=1, queries=10),
    "line": lambda folder: line(queries=7),
    "quadratic": lambda folder: quadratic(shots=3),
    "regression": lambda folder: regression(),
    "regression on one feature": lambda folder: regression(features=1),
    "mixture": lambda folder: mixture(sources={"sinusoid": sinusoid(), "line": line()}),
    "table": a_table,
    "ratings of users of unequal numbers": lambda folder: ratings(made_users=30, made_items=60, shots="rest", queries=4),
    "a user's own": lambda folder: Lines(),
    "in float64": lambda folder: Double(few_shot(min_ways=2)),
}


@pytest.fixture(params=SOURCES)
def source(request: pytest.FixtureRequest, tmp_path: Path) -> TaskSource:
    return SOURCES[request.param](tmp_path)


@pytest.fixture(autouse=True)
def no_thread_is_left() -> Iterator[None]:
    yield
    assert not [thread for thread in threading.enumerate() if thread.name.startswith("dealer")]


def dealer(source: TaskSource, **options: Any) -> Dealer:
    return Dealer(source, **{"split": "train", "first_step": 0, "steps": 9, "tasks_per_step": 5, "seed": 3, **options})


def dealt(source: TaskSource, **options: Any) -> list[Step]:
    steps = options.get("steps", 9) - options.get("first_step", 0)
    with dealer(source, **options) as open_dealer:
        return [open_dealer.next() for _ in range(steps)]


@pytest.mark.parametrize("values", [1, 3000, 10**9], ids=["steps one by one", "a few steps at once", "all at once"])
@pytest.mark.parametrize("first", [0, 4])
def test_each_step_is_what_dealing_it_directly_gives(source: TaskSource, first: int, values: int) -> None:
    for step, (batch, keys, indices) in enumerate(dealt(source, first_step=first, block_values=values), start=first):
        assert indices.tolist() == list(range(5 * step, 5 * step + 5))
        assert torch.equal(keys, draws.key(3, "train", indices))
        assert_same(batch, deal(source, "train", indices), f"step {step}", tolerance=0.0)


def test_a_step_lies_in_memory_as_if_it_were_dealt_alone_wherever_a_run_begins(source: TaskSource) -> None:
    """A product may round by the strides and the alignment of its operands, so a resumed run needs those too."""

    def layout(batch: Episode) -> list[Any]:
        tensors = [tensor for part in batch for tensor in part if tensor is not None]
        return [(tensor.stride(), tensor.data_ptr() % 64) for tensor in tensors]

    for first in (0, 30, 69):
        for batch, _, indices in dealt(source, first_step=first, steps=70, tasks_per_step=2):
            assert layout(batch) == layout(deal(source, "train", indices))


@dataclass
class Watched:
    """Sinusoids that note how they are called, and fail at the episode `broken`."""

    broken: int = -1
    objective: str = "regression"
    calls: list[int] = field(default_factory=list)
    before: Callable[[], None] = lambda: None

    def episode(self, split: str, index: int) -> Episode:
        return sinusoid().episode(split, index)

    def batch(self, split: str, indices: Tensor) -> Episode:
        self.before()
        if self.broken in indices.tolist():
            raise UserError(f"episode {self.broken} cannot be dealt")
        self.calls.append(len(indices))
        return sinusoid(queries=10).batch(split, indices)


def test_small_steps_are_dealt_many_at_once_and_large_ones_singly() -> None:
    """A step of 5 tasks with 20 points has 100 input values."""
    for values, calls in ((100, [5] * 9), (299, [5, 10, 10, 10, 10]), (10**9, [5, 40])):
        watched = Watched()
        dealt(watched, block_values=values)
        assert watched.calls == calls


def test_no_more_than_64_steps_are_dealt_at_once() -> None:
    watched = Watched()
    dealt(watched, steps=140, block_values=10**9)
    assert watched.calls == [5, 5 * 64, 5 * 64, 5 * 11]


def test_the_thread_stays_two_blocks_ahead() -> None:
    watched, far_enough = Watched(), threading.Event()
    watched.before = lambda: far_enough.set() if len(watched.calls) == BLOCKS_AHEAD else None
    with dealer(watched, steps=10**6, block_values=10**9) as open_dealer:
        open_dealer.next()
        assert far_enough.wait(60)
    assert len(watched.calls) == 1 + BLOCKS_AHEAD


@pytest.mark.parametrize("taken", [1, 4])
def test_of_steps_that_are_a_block_by_themselves_one_is_ahead(taken: int) -> None:
    """The first time, too: what large steps hold decides the peak of a run's memory."""
    watched = Watched()
    with dealer(watched, steps=10**6, block_values=1) as open_dealer:
        for _ in range(taken):
            open_dealer.next()
        wait(open_dealer._ahead)
    assert len(watched.calls) == taken + 1


def test_an_error_of_the_source_is_raised_where_the_step_is_asked_for_with_its_traceback() -> None:
    with dealer(Watched(broken=12), block_values=1) as open_dealer:
        assert [open_dealer.next().indices[0].item() for _ in range(2)] == [0, 5]
        for _ in range(4):
            with pytest.raises(UserError, match="episode 12 cannot be dealt") as caught:
                open_dealer.next()
            assert "in batch" in "".join(traceback.format_exception(caught.value))


def test_after_the_last_step_there_is_none() -> None:
    with dealer(Watched(), steps=2) as open_dealer:
        open_dealer.next()
        open_dealer.next()
        for _ in range(2):
            with pytest.raises(IndexError, match="the run ends after 2 steps, and all of them have been dealt"):
                open_dealer.next()


def test_a_run_without_steps_deals_nothing() -> None:
    watched = Watched()
    with dealer(watched, first_step=4, steps=4):
        pass
    assert watched.calls == []


def test_leaving_early_by_an_exception_ends_the_thread_without_dealing_on() -> None:
    watched = Watched()

    def interrupted() -> None:
        with dealer(watched, steps=10**6, block_values=1) as open_dealer:
            open_dealer.next()
            raise KeyboardInterrupt

    with pytest.raises(KeyboardInterrupt):
        interrupted()
    assert len(watched.calls) <= 1 + BLOCKS_AHEAD


def test_the_source_is_only_called_under_the_lock() -> None:
    watched, held = Watched(), []
    with dealer(watched, block_values=1) as open_dealer:
        watched.before = lambda: held.append(open_dealer.lock.locked())
        for _ in range(9):
            open_dealer.next()
    assert held
    assert all(held)


def test_whoever_holds_the_lock_has_the_source_alone() -> None:
    watched = Watched()
    with dealer(watched, steps=99, block_values=1) as open_dealer:
        with open_dealer.lock:
            before = len(watched.calls)
            for _ in range(20):
                deal(watched, "val", torch.arange(5))
            assert len(watched.calls) == before + 20
        assert open_dealer.next().indices[0] == 0


def test_the_dealing_thread_computes_with_one_thread_and_changes_no_other() -> None:
    in_dealing: list[int] = []
    elsewhere: list[int] = []
    torch.set_num_threads(2)
    try:
        with dealer(Watched(before=lambda: in_dealing.append(torch.get_num_threads()))) as open_dealer:
            open_dealer.next()
            elsewhere.append(torch.get_num_threads())
            other = threading.Thread(target=lambda: elsewhere.append(torch.get_num_threads()))
            other.start()
            other.join()
    finally:
        torch.set_num_threads(1)
    assert set(in_dealing) == {1}
    assert elsewhere == [2, 2]


def test_waiting_is_measured_and_taking_what_is_ready_is_no_waiting() -> None:
    with dealer(Watched(), steps=4) as open_dealer:
        assert open_dealer.waited == 0.0
        open_dealer.next()
        open_dealer.next()
        waited = open_dealer.waited
        assert waited > 0.0
        open_dealer.next()
        assert open_dealer.waited == waited


@pytest.mark.skipif(not torch.cuda.is_available(), reason="torch finds no CUDA device")
def test_steps_come_on_the_device_whether_the_images_are_there_or_not() -> None:
    plain = few_shot(min_ways=2)
    for source in (plain, plain.to("cuda")):
        for step in dealt(source, device="cuda"):
            assert step.keys.is_cuda
            assert_same(step.batch, deal(plain, "train", step.indices, "cuda"), "a step", tolerance=0.0)


def test_a_mask_stays_with_its_step() -> None:
    @dataclass(frozen=True)
    class Masked:
        objective: str = "regression"

        def episode(self, split: str, index: int) -> Episode:
            part = Examples(torch.full((3, 1), float(index)), torch.zeros(3, 1), torch.arange(3) <= index % 3)
            return Episode(part, part._replace(mask=None))

    for batch, _, indices in dealt(Masked()):
        assert batch.support.mask is not None
        assert batch.support.mask.sum(dim=1).tolist() == (indices % 3 + 1).tolist()
        assert batch.query.mask is None


@pytest.mark.parametrize("values", [1, 3000], ids=["steps one by one", "a few steps at once"])
def test_a_process_deals_its_share_of_each_step_where_it_lies_in_the_whole_step(source: TaskSource, values: int) -> None:
    """The bits of a product depend on the alignment of its operands, so several processes need that of one process."""
    for share in (range(3), range(3, 5), range(4, 5)):
        for step, (batch, keys, indices) in enumerate(dealt(source, share=share, block_values=values)):
            whole = torch.arange(5 * step, 5 * step + 5)
            rows = slice(share.start, share.stop)
            assert indices.tolist() == whole[rows].tolist()
            assert torch.equal(keys, draws.key(3, "train", indices))
            expected = deal(source, "train", whole)
            for part, of_whole in zip(batch, expected, strict=True):
                for tensor, all_rows in zip(part, of_whole, strict=True):
                    if tensor is not None:
                        assert torch.equal(tensor, all_rows[rows])
                        assert tensor.data_ptr() % 64 == all_rows[rows].data_ptr() % 64


def test_a_process_without_a_task_deals_nothing() -> None:
    watched = Watched()
    with dealer(watched, share=range(5, 5)):
        pass
    assert not watched.calls
