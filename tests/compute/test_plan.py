"""The plan of a run, chosen from shapes alone."""

from __future__ import annotations

import os
from collections.abc import Iterator
from typing import Any

import pytest
import torch
from torch import nn

from metarun.compute.device import choose_device
from metarun.compute.plan import Device, Plan, Work, work_of, work_of_pass
from metarun.types import Episode, Examples


@pytest.fixture(autouse=True)
def same_threads() -> Iterator[None]:
    threads = torch.get_num_threads()
    yield
    torch.set_num_threads(threads)


def work(flops: float, values: float = 1.0) -> Work:
    return Work(flops, values)


def on_cpu(**config: Any) -> Device:
    return choose_device({"name": "cpu", "threads": 2, **config})


def test_small_tasks_are_mapped_all_at_once_and_large_ones_few_by_few_side_by_side():
    assert on_cpu().plan(work(7e4), 25) == Plan(25, workers=1, threads=1)
    assert on_cpu().plan(work(4e8), 32) == Plan(8, workers=2, threads=1)
    assert on_cpu().plan(work(6e8), 32) == on_cpu().plan(work(3e9), 32) == Plan(1, workers=2, threads=1)


def test_one_large_task_gets_every_thread():
    assert on_cpu().plan(work(4e9), 1) == Plan(1, workers=1, threads=2)


def test_tasks_that_are_read_example_by_example_are_mapped_many_at_once_on_every_thread():
    assert on_cpu().plan(Work(6e8, 1.0, sequential=True), 64) == Plan(32, workers=2, threads=1)
    assert on_cpu(threads=1).plan(Work(6e8, 1.0, sequential=True), 64) == Plan(64, workers=1, threads=1)
    assert on_cpu().plan(Work(6e8, 1.0, sequential=True), 600).chunk == 60, "ten equal chunks of at most 64"


def test_large_tasks_without_an_inner_loop_are_scored_few_at_once_and_trained_on_one_by_one():
    large = Work(1.5e9, 1.0, shared=True)
    assert on_cpu().plan(large, 600) == Plan(2, workers=2, threads=1)
    assert on_cpu().plan(large, 600, steps=1000) == Plan(1, workers=2, threads=1)
    assert on_cpu().plan(Work(5e9, 1.0, shared=True), 600).chunk == 1


@pytest.mark.parametrize("shared", [False, True])
def test_the_chunk_never_grows_with_the_work(shared: bool):
    chunks = [on_cpu().plan(Work(10.0**power, 1.0, shared=shared), 64).chunk for power in range(3, 11)]
    assert chunks == sorted(chunks, reverse=True)


def test_what_does_not_fit_into_half_the_memory_is_cut_into_chunks():
    memory = os.sysconf("SC_PHYS_PAGES") * os.sysconf("SC_PAGE_SIZE") / 2
    assert on_cpu().plan(work(1.0, values=memory / 2 / 4 / 3), 8).chunk == 2  # at most 3 fit, and two threads share four chunks evenly


def test_a_validation_maps_no_more_tasks_at_once_than_training():
    assert on_cpu().plan(work(7e4), 200, largest=25).chunk == 25


def test_only_small_steps_of_long_runs_are_compiled_unless_the_config_decides():
    small, large = work(7e4), work(4e8)
    assert [on_cpu().plan(small, 25, steps=steps).compile for steps in (100, 70_000)] == [False, True]
    assert not on_cpu().plan(large, 25, steps=70_000).compile
    assert on_cpu(compile=True).plan(large, 25, steps=1).compile
    assert not on_cpu(compile=False).plan(small, 25, steps=70_000).compile


def test_long_runs_on_images_take_c_kernels_where_each_worker_has_one_thread():
    """4e8 operations a task: 32 tasks a step come to 1.28e10, so 1e13 are 781 steps."""
    images = Work(4e8, 1.0, images=True)
    assert [on_cpu().plan(images, 32, steps=steps).kernels for steps in (700, 800)] == ["torch", "c"]
    assert on_cpu().plan(images, 1, steps=10**6).kernels == "torch"  # one task a step: both threads compute it
    assert on_cpu().plan(Work(4e8, 1.0), 32, steps=10**6).kernels == "torch"
    assert on_cpu(precision="bf16").plan(images, 32, steps=10**6).kernels == "torch"
    assert on_cpu(compile=True).plan(images, 32, steps=10**6).kernels == "torch"


def test_c_kernels_have_a_chunk_for_each_thread():
    images = Work(2e8, 1.0, images=True)
    plan = on_cpu().plan(images, 16, steps=10**6)
    assert (plan.chunk, plan.workers, plan.threads, plan.kernels) == (8, 2, 1, "c")
    plan = on_cpu(kernels="torch").plan(images, 16, steps=10**6)
    assert (plan.chunk, plan.workers, plan.threads) == (16, 1, 2)
    uneven = on_cpu().plan(images, 5, steps=10**6)
    assert (uneven.chunk, uneven.threads, uneven.kernels) == (5, 2, "torch")


def test_the_config_decides_about_kernels():
    images = Work(4e8, 1.0, images=True)
    assert on_cpu(kernels="c").plan(images, 32, steps=1).kernels == "c"
    assert on_cpu(kernels="c").plan(Work(7e4, 1.0, images=True), 25, steps=70_000).kernels == "c"  # by itself it would be compiled
    one = on_cpu(kernels="c").plan(images, 1, steps=1)
    assert (one.threads, one.kernels) == (1, "c")
    odd = on_cpu(kernels="c").plan(images, 5, steps=1)
    assert (odd.chunk, odd.workers, odd.threads, odd.kernels) == (3, 2, 1, "c")
    assert on_cpu(kernels="torch").plan(images, 32, steps=10**6).kernels == "torch"
    assert on_cpu(kernels="c").plan(images, 2).kernels == "c"
    assert on_cpu(kernels="torch").plan(images, 10**6).kernels == "torch"


def test_evaluations_of_many_images_take_c_kernels():
    """4e8 operations an episode: 5e11 are 1250 episodes."""
    images = Work(4e8, 1.0, images=True, shared=True)
    assert [on_cpu().plan(images, episodes).kernels for episodes in (1240, 1260)] == ["torch", "c"]
    assert on_cpu().plan(Work(4e8, 1.0, shared=True), 1260).kernels == "torch"


def test_work_knows_a_convolution_that_c_kernels_may_take():
    part = [Examples(torch.zeros(2, 1, 4, 4), torch.zeros(2, 2))] * 2
    assert work_of(nn.Sequential(nn.Conv2d(1, 16, 3), nn.Flatten()), Episode(*part), inner_steps=1).images
    assert not work_of(nn.Sequential(nn.Conv2d(1, 2, 3), nn.Flatten()), Episode(*part), inner_steps=1).images


def test_bfloat16_is_a_matter_of_the_plan():
    assert on_cpu(precision="bf16").plan(work(7e4), 25).autocast == "cpu"
    assert on_cpu(precision="tf32").plan(work(7e4), 25).autocast is None


def test_the_work_of_an_algorithm_with_a_network_of_its_own_is_that_of_the_pass():
    """5 rows times a (3, 4) matrix: 2 * 5 * 3 * 4 operations. All tasks share the weights."""
    work = work_of_pass(lambda: torch.zeros(5, 3) @ torch.zeros(3, 4))
    assert work == Work(flops=120.0, values=120.0 / 32, shared=True)


def test_what_the_config_says_is_taken():
    device = choose_device({"name": "cpu", "task_chunk": 3, "threads": 2})
    assert (device.name, device.threads, device.plan(work(1.0), 16).chunk) == ("cpu", 2, 3)


def test_work_counts_the_operations_of_a_forward_pass_over_all_examples():
    """A linear layer from 4 to 3: 2 * 4 * 3 operations for each of 2 + 3 examples, and 3 values for each example of each pass."""
    part = [Examples(torch.zeros(rows, 4), torch.zeros(rows, 2)) for rows in (2, 3)]
    found = work_of(nn.Linear(4, 3), Episode(*part), inner_steps=1)
    assert found == Work(flops=24.0 * 5, values=3.0 * (2 * 4 + 2 * 3))


IMAGES = {"images": True}
PLANS = [
    # threads, config, flops of a task, kind, tasks, steps: the plan
    (2, {}, 7e4, {}, 25, 1000, Plan(25)),  # too small for a second thread
    (2, {}, 7e4, {}, 25, 70_000, Plan(25, compile=True)),
    (4, {}, 4e8, {}, 32, 100, Plan(8, workers=4)),  # 10 fit; four threads share four chunks
    (4, {}, 4e8, {}, 6, 100, Plan(6, workers=1, threads=4)),  # all fit at once
    (3, {}, 6e8, {}, 4, 100, Plan(1, workers=3)),  # each task fills a thread
    (4, {}, 6e8, {}, 2, 100, Plan(1, workers=2, threads=2)),
    (2, {"chunk": 5}, 4e8, {}, 32, 100, Plan(5, workers=2)),
    (2, {}, 2e8, IMAGES, 16, 10**6, Plan(8, workers=2, kernels="c")),
    (2, {}, 2e8, IMAGES, 5, 10**6, Plan(5, threads=2)),  # uneven: torch's kernels on both threads
    (2, {"kernels": "c"}, 2e8, IMAGES, 5, 10**6, Plan(3, workers=2, kernels="c")),
    (2, {"kernels": "c", "chunk": 16}, 2e8, IMAGES, 16, 10, Plan(16, kernels="c")),  # the config's chunk stays
    (2, {"kernels": "c", "compile": True}, 2e8, IMAGES, 16, 10, Plan(16, threads=2, compile=True)),
    (2, {"precision": "bf16"}, 2e8, IMAGES, 16, 10**6, Plan(16, threads=2, autocast="cpu")),
]


@pytest.mark.parametrize(("threads", "config", "flops", "kind", "tasks", "steps", "plan"), PLANS)
def test_a_device_plans_by_this_table(
    threads: int, config: dict[str, Any], flops: float, kind: dict[str, bool], tasks: int, steps: int, plan: Plan
):
    assert Device("cpu", threads, **config).plan(Work(flops, 1.0, **kind), tasks, steps=steps) == plan


@pytest.mark.parametrize("flops", [7e4, 4e8, 6e8])
def test_on_a_cpu_the_chunk_and_the_threads_do_not_depend_on_the_number_of_processes(flops: float) -> None:
    """They decide the bits of a result. `workers` counts those of all processes."""
    alone = Device("cpu", 4)
    for processes in (2, 3, 8):
        assert Device("cpu", 4, processes=processes).plan(work(flops), 12) == alone.plan(work(flops), 12)


def test_an_operation_gets_no_more_threads_than_one_machine_has() -> None:
    assert Device("cpu", 8).plan(work(4e9), 1).threads == 8
    assert Device("cpu", 8, processes=2, machines=2).plan(work(4e9), 1).threads == 4
