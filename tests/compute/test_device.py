"""The device that a config names, and what it refuses."""

from __future__ import annotations

import sys
from collections.abc import Iterator
from typing import Any

import pytest
import torch

from metarun.compute.device import choose_device, keep_freed_memory, place
from metarun.errors import UserError
from metarun.processes.ranks import OneProcess, using


@pytest.fixture(autouse=True)
def same_threads() -> Iterator[None]:
    threads = torch.get_num_threads()
    yield
    torch.set_num_threads(threads)


@pytest.mark.parametrize(
    ("config", "words"),
    [
        ({"name": "gpu"}, "device.name=gpu is unknown; it must be auto, cpu or cuda"),
        ({"name": 3}, "device.name=3 is unknown"),
        ({"name": "cpu", "threads": 0}, "device.threads=0 must be auto or a whole number of at least 1"),
        ({"name": "cpu", "threads": True}, "device.threads=True"),
        ({"name": "cpu", "task_chunk": 1.5}, "device.task_chunk=1.5"),
        ({"name": "cpu", "task_chunk": "all"}, "device.task_chunk=all"),
        ({"name": "cpu", "compile": "yes"}, "device.compile=yes must be auto, true or false"),
        ({"name": "cpu", "kernels": True}, "device.kernels=True must be auto, c or torch"),
        ({"name": "cpu", "precision": "float16"}, "device.precision=float16 is unknown; it must be float32, tf32 or bf16"),
    ],
)
def test_a_bad_value_is_a_sentence(config: dict[str, Any], words: str):
    with pytest.raises(UserError, match=words):
        choose_device(config)


def test_asking_for_cuda_where_there_is_none_is_a_sentence(monkeypatch: pytest.MonkeyPatch):
    monkeypatch.setattr(torch.cuda, "is_available", lambda: False)
    with pytest.raises(UserError, match="torch finds no CUDA device here; use device=cpu"):
        choose_device({"name": "cuda"})


def test_a_cuda_device_beyond_the_last_one_is_a_sentence(monkeypatch: pytest.MonkeyPatch):
    monkeypatch.setattr(torch.cuda, "is_available", lambda: True)
    monkeypatch.setattr(torch.cuda, "device_count", lambda: 2)
    with pytest.raises(UserError, match=r"device\.name=cuda:2, but torch finds 2 CUDA devices here; the last one is cuda:1"):
        choose_device({"name": "cuda:2"})
    assert choose_device({"name": "cuda:1"}).name == "cuda:1"


def test_convolution_weights_are_placed_with_their_channels_last_and_keep_their_values():
    tensors = {"conv": torch.randn(4, 3, 3, 3), "linear": torch.randn(4, 3), "scalar": torch.tensor(2.0)}
    placed = place(tensors, "cpu")
    assert placed["conv"].is_contiguous(memory_format=torch.channels_last)
    assert all(torch.equal(placed[name], tensors[name]) for name in tensors)


def test_keeping_freed_memory_does_nothing_on_other_systems(monkeypatch: pytest.MonkeyPatch):
    monkeypatch.setattr(sys, "platform", "darwin")
    monkeypatch.setattr("ctypes.CDLL", lambda name: pytest.fail("glibc was asked for"))
    keep_freed_memory()


class Several(OneProcess):
    """Two processes on each of two machines, with three cores each."""

    size, local_rank, machines, cores = 4, 1, 2, 3


def test_several_processes_divide_the_cores_of_their_machines_or_the_threads_of_the_config() -> None:
    with using(Several()):
        assert choose_device({"name": "cpu"}).threads == 6
        found = choose_device({"name": "cpu", "threads": 2})
    assert (found.threads, found.processes, found.machines) == (4, 4, 2)


def test_each_process_of_a_machine_has_its_own_gpu(monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr(torch.cuda, "is_available", lambda: True)
    monkeypatch.setattr(torch.cuda, "device_count", lambda: 2)
    with using(Several()):
        assert choose_device({"name": "auto"}).name == choose_device({"name": "cuda"}).name == "cuda:1"
        with pytest.raises(UserError, match=r"device.name=cuda:0 names one GPU, and 4 processes need one each; use device=cuda"):
            choose_device({"name": "cuda:0"})
        monkeypatch.setattr(torch.cuda, "device_count", lambda: 1)
        with pytest.raises(UserError, match="process 2 of this machine has no GPU, since torch finds 1 here; start no more"):
            choose_device({"name": "cuda"})
