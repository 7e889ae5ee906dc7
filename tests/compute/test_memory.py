"""The memory of the machine: what cannot fit is a sentence with the estimate, and nothing is allocated."""

from __future__ import annotations

import pytest
import torch
from torch import nn

from metarun.compute import memory
from metarun.compute.memory import allocating, check_fits, in_bytes, usable_memory
from metarun.errors import UserError


def test_more_than_the_memory_is_refused_with_both_sizes(monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr(memory, "usable_memory", lambda: 8e9)
    check_fits(8e9, "a step", "lower tasks_per_step")
    with pytest.raises(UserError, match=r"^a step needs about 12 GB of memory, and this machine has 8 GB; lower tasks_per_step\.$"):
        check_fits(12e9, "a step", "lower tasks_per_step")


def test_the_memory_of_a_container_counts_where_it_is_smaller(monkeypatch: pytest.MonkeyPatch, tmp_path) -> None:
    limit = tmp_path / "memory.max"
    monkeypatch.setattr(memory, "_CONTROL_GROUP", limit)
    monkeypatch.setattr(memory, "physical_memory", lambda: 16e9)
    assert usable_memory() == 16e9, "without such a file"
    for text, expected in (("max\n", 16e9), ("2000000000\n", 2e9)):
        limit.write_text(text)
        assert usable_memory() == expected


def test_bytes_are_told_in_a_unit_that_a_person_reads() -> None:
    assert [in_bytes(count) for count in (12, 4.2e6, 25.3e9, 36e12)] == ["12 bytes", "4.2 MB", "25.3 GB", "36 TB"]
    assert in_bytes(4e30) == "4.0e+15 PB"


@pytest.mark.parametrize(
    "make",
    [
        lambda: nn.Linear(1_000_000, 1_000_000),
        lambda: nn.Conv2d(3_000_000_000, 3_000_000_000, 3),  # more numbers than 64 bits count
        lambda: [nn.Linear(20_000, 20_000) for _ in range(1000)],
        lambda: torch.zeros(10**7, 10**7),
        lambda: torch.zeros((10**7, 10**7)),
        lambda: torch.full((10**8, 10**6), 1.0),
        lambda: torch.arange(10**15),
        lambda: torch.eye(10**8),
        lambda: torch.empty(size=(10**8, 10**8)),
    ],
)
def test_tensors_that_do_not_fit_are_refused_before_they_are_made(monkeypatch: pytest.MonkeyPatch, make) -> None:
    monkeypatch.setattr(memory, "usable_memory", lambda: 1e9)
    refused = pytest.raises(UserError, match=r"backbone X needs about .* and this machine has 1 GB; lower backbone\.width=9")
    with refused, allocating("backbone X", "lower backbone.width=9", counted=True):
        make()


def test_a_small_network_is_built_as_without_a_limit() -> None:
    torch.manual_seed(0)
    plain = nn.Linear(3, 2)
    torch.manual_seed(0)
    with allocating("backbone X", "lower it", counted=True):
        limited = nn.Linear(3, 2)
        on_meta = torch.empty(10**9, 10**9, device="meta")
    assert torch.equal(plain.weight, limited.weight)
    assert on_meta.shape == (10**9, 10**9), "a tensor without memory is no allocation"


@pytest.mark.parametrize("fail", [lambda: torch.empty(2**62), lambda: torch.empty(2**40, 2**40), lambda: torch.empty(10**20)])
def test_an_allocation_that_fails_is_a_sentence(fail) -> None:
    with pytest.raises(UserError, match=r"^an episode needs .*; lower task\.shots\.$"), allocating("an episode", "lower task.shots"):
        fail()


def test_the_memory_of_a_gpu_is_told_from_that_of_the_machine() -> None:
    told = (
        "CUDA out of memory. Tried to allocate 20.00 GiB. GPU 0 has a total capacity of 79.11 GiB of which 10.50 GiB is free. "
        "Including non-PyTorch memory, this process has 68.60 GiB memory in use."
    )
    words = r"^a step needs another 20\.00 GiB, and of the 79\.11 GiB of the GPU 10\.50 GiB is free; lower task\.shots\.$"
    with pytest.raises(UserError, match=words), allocating("a step", "lower task.shots"):
        raise torch.OutOfMemoryError(told)
    with pytest.raises(UserError, match="needs more memory than the GPU has free; lower"), allocating("a step", "lower task.shots"):
        raise torch.OutOfMemoryError("CUDA out of memory")


def test_another_error_passes_through() -> None:
    for error in (RuntimeError("shapes do not fit"), TypeError("an integer is required"), ValueError("x")):
        with pytest.raises(type(error), match=str(error)), allocating("an episode", "lower task.shots"):
            raise error
    with pytest.raises(UserError, match="more memory than there is"), allocating("an episode", "lower task.shots"):
        raise MemoryError
