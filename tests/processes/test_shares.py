"""The division of tasks among processes, and the places of tensors in memory."""

from __future__ import annotations

import pytest
import torch

from metarun.processes.shares import chunks_of, placed, shares_of


def test_processes_get_whole_chunks_that_follow_each_other() -> None:
    """Five tasks in chunks of two are three chunks: 0-1, 2-3 and 4."""
    assert shares_of(5, 2, 1) == [range(5)]
    assert shares_of(5, 2, 2) == [range(4), range(4, 5)]
    assert shares_of(5, 2, 3) == [range(2), range(2, 4), range(4, 5)]


def test_processes_without_a_chunk_are_the_last_ones() -> None:
    assert [list(share) for share in shares_of(5, 2, 5)] == [[0, 1], [2, 3], [4], [], []]


@pytest.mark.parametrize("tasks", [1, 5, 8, 32])
@pytest.mark.parametrize("chunk", [1, 2, 3, 8])
@pytest.mark.parametrize("size", [1, 2, 3, 7])
def test_the_shares_join_to_all_tasks_cut_as_in_one_process_and_differ_by_one_chunk(tasks: int, chunk: int, size: int) -> None:
    shares = shares_of(tasks, chunk, size)
    assert [task for share in shares for task in share] == list(range(tasks))
    assert all(share.start % chunk == 0 for share in shares if share)
    counts = [chunks_of(len(share), chunk) for share in shares]
    assert sum(counts) == chunks_of(tasks, chunk)
    assert max(counts) - min(counts) <= 1


@pytest.mark.parametrize("kind", [torch.float32, torch.float64, torch.int64, torch.bool])
@pytest.mark.parametrize("first", [0, 1, 3])
def test_rows_lie_at_the_addresses_that_they_have_in_the_whole_batch(kind: torch.dtype, first: int) -> None:
    whole = torch.arange(5 * 7).reshape(5, 7).to(kind)
    rows = placed({"x": whole[first:].clone()}, first)["x"]
    assert torch.equal(rows, whole[first:])
    assert rows.data_ptr() % 64 == whole[first:].data_ptr() % 64
    assert rows.stride() == whole.stride()


def test_placed_rows_keep_the_layout_of_images() -> None:
    whole = torch.rand(4, 3, 2, 5, 5).transpose(2, 4)
    rows = placed(whole[1:].clone(memory_format=torch.preserve_format), 1)
    assert torch.equal(rows, whole[1:])
    assert rows.stride() == whole.stride()
    assert rows.data_ptr() % 64 == whole[1:].data_ptr() % 64
