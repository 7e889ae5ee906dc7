"""Where a run computes and in which portions, chosen from shapes alone."""

from __future__ import annotations

import sys
from collections.abc import Iterator
from typing import Any

import pytest
import torch
from small import few_shot

from metarun.device import choose_device, keep_freed_memory, place
from metarun.errors import UserError
from metarun.types import Episode, Examples


@pytest.fixture(autouse=True)
def same_threads() -> Iterator[None]:
    threads = torch.get_num_threads()
    yield
    torch.set_num_threads(threads)


def episode(values: int) -> Episode:
    """An episode with so many input values, half of them in the support set."""
    part = Examples(torch.zeros(1, values // 2), torch.zeros(1, 2))
    return Episode(part, part)


def chunk_of(values: int, tasks: int) -> int:
    return choose_device({"name": "cpu"}, episode(values), tasks).chunk


def test_small_episodes_are_mapped_all_at_once_and_large_ones_in_chunks():
    assert chunk_of(10, tasks=25) == 25
    assert 1 < chunk_of(5 * 16 * 28 * 28, tasks=32) < 32
    assert chunk_of(10_000_000, tasks=32) == 1


def test_the_chunk_never_grows_with_the_episode():
    chunks = [chunk_of(values, tasks=64) for values in (100, 10_000, 50_000, 200_000, 1_000_000)]
    assert chunks == sorted(chunks, reverse=True)


def test_the_same_shapes_give_the_same_choice():
    """Chosen by rule and never by timing, so that a rerun computes in the same order."""
    first, second = (choose_device({"name": "auto", "threads": 1}, few_shot().episode("train", 0), 16) for _ in range(2))
    assert first == second


def test_what_the_config_says_is_taken():
    device = choose_device({"name": "cpu", "task_chunk": 3, "threads": 2}, episode(10), 16)
    assert (device.name, device.chunk, device.threads) == ("cpu", 3, 2)
    assert torch.get_num_threads() == 2


@pytest.mark.parametrize(
    ("config", "words"),
    [
        ({"name": "gpu"}, "device.name=gpu is unknown; it must be auto, cpu or cuda"),
        ({"name": 3}, "device.name=3 is unknown"),
        ({"name": "cpu", "threads": 0}, "device.threads=0 must be auto or a whole number of at least 1"),
        ({"name": "cpu", "threads": True}, "device.threads=True"),
        ({"name": "cpu", "task_chunk": 1.5}, "device.task_chunk=1.5"),
        ({"name": "cpu", "task_chunk": "all"}, "device.task_chunk=all"),
    ],
)
def test_a_bad_value_is_a_sentence(config: dict[str, Any], words: str):
    with pytest.raises(UserError, match=words):
        choose_device(config, episode(10), 16)


def test_asking_for_cuda_where_there_is_none_is_a_sentence(monkeypatch: pytest.MonkeyPatch):
    monkeypatch.setattr(torch.cuda, "is_available", lambda: False)
    with pytest.raises(UserError, match="torch finds no CUDA device here; use device=cpu"):
        choose_device({"name": "cuda"}, episode(10), 16)


def test_convolution_weights_are_placed_with_their_channels_last_and_keep_their_values():
    tensors = {"conv": torch.randn(4, 3, 3, 3), "linear": torch.randn(4, 3), "scalar": torch.tensor(2.0)}
    placed = place(tensors, "cpu")
    assert placed["conv"].is_contiguous(memory_format=torch.channels_last)
    assert all(torch.equal(placed[name], tensors[name]) for name in tensors)


def test_keeping_freed_memory_does_nothing_on_other_systems(monkeypatch: pytest.MonkeyPatch):
    monkeypatch.setattr(sys, "platform", "darwin")
    monkeypatch.setattr("ctypes.CDLL", lambda name: pytest.fail("glibc was asked for"))
    keep_freed_memory()
