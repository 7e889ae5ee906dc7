"""Checkpoints of strangers: nothing in them runs, and they get no more memory than they have bytes."""

from __future__ import annotations

import subprocess
import sys
import textwrap
from pathlib import Path
from typing import Any

import pytest
import torch
from hostile_files import HOSTILE, Claim, Storage, archive, content, pickled

from metarun.errors import UserError
from metarun.records.archive import DamagedError
from metarun.records.checkpoint import load
from metarun.records.untrusted import STORAGES, is_dense, read


@pytest.mark.parametrize("kind", HOSTILE)
def test_a_hostile_file_is_refused_in_a_sentence_and_leaves_nothing(kind: str, tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.chdir(tmp_path)
    HOSTILE[kind](tmp_path / "best.pt")
    with pytest.raises(UserError) as caught:
        load(tmp_path / "best.pt")
    assert "\n" not in str(caught.value)
    assert str(tmp_path / "best.pt") in str(caught.value)
    assert [path.name for path in tmp_path.iterdir()] == ["best.pt"]


@pytest.mark.skipif(sys.platform != "linux", reason="the size of a process is read from /proc")
def test_hostile_files_get_no_memory(tmp_path: Path) -> None:
    """All of them in one process that may not grow by more than 400 MB."""
    quick = [write for kind, write in HOSTILE.items() if not any(word in kind for word in ("million", "thousand", "60,000"))]
    for number, write in enumerate(quick):
        write(tmp_path / f"{number}.pt")
    script = textwrap.dedent("""
        import pathlib, resource, sys
        from metarun.errors import UserError
        from metarun.records.checkpoint import load
        size = int(pathlib.Path("/proc/self/statm").read_text().split()[0]) * resource.getpagesize()
        resource.setrlimit(resource.RLIMIT_AS, (size + 400_000_000, resource.RLIM_INFINITY))
        for path in sorted(pathlib.Path(sys.argv[1]).iterdir()):
            try:
                load(path)
            except UserError as error:
                causes = [error]
                while causes[-1].__cause__ is not None:
                    causes.append(causes[-1].__cause__)
                print(path.stem, any(isinstance(cause, MemoryError) for cause in causes))
    """)
    done = subprocess.run([sys.executable, "-c", script, str(tmp_path)], capture_output=True, text=True, check=False, cwd=tmp_path)
    assert done.stderr == ""
    assert sorted(done.stdout.split("\n")[:-1]) == sorted(f"{number} False" for number in range(len(quick)))
    assert len(list(tmp_path.iterdir())) == len(quick)


@pytest.mark.parametrize("dtype", STORAGES.values())
def test_every_type_that_torch_saves_is_read_as_torch_reads_it(tmp_path: Path, dtype: torch.dtype) -> None:
    values = (torch.arange(24).reshape(2, 3, 2, 2) % 2).to(dtype)
    tensors = [values, values.to(memory_format=torch.channels_last), values[:0].clone(), values[0, 0, 0, 0].clone(), values.mT.clone()]
    torch.save({"tensors": tensors, "rest": [1, 2.5, "ü", None, True, (1, ()), -(2**63)]}, tmp_path / "x.pt")
    ours, theirs = read(tmp_path / "x.pt"), torch.load(tmp_path / "x.pt", weights_only=True)
    assert ours["rest"] == theirs["rest"]
    for one, other in zip(ours["tensors"], theirs["tensors"], strict=True):
        assert torch.equal(one, other)
        assert (one.dtype, one.stride()) == (other.dtype, other.stride())


def test_a_tensor_is_ready_for_fused_kernels(tmp_path: Path) -> None:
    """Memory from torch's own allocator is aligned to 64 bytes."""
    torch.save([torch.zeros(3), torch.zeros(5)], tmp_path / "x.pt")
    assert all(tensor.data_ptr() % 64 == 0 and not tensor.requires_grad for tensor in read(tmp_path / "x.pt"))


def test_a_small_part_may_stand_in_two_places(tmp_path: Path) -> None:
    shared = {"a": 1}
    archive(tmp_path / "x.pt", pickled([shared, shared]))
    first, second = read(tmp_path / "x.pt")
    assert first == second == shared
    assert first is not second


def test_another_byte_order_is_refused(tmp_path: Path) -> None:
    archive(tmp_path / "x.pt", pickled(content()), {"byteorder": b"big"})
    with pytest.raises(UserError, match="another byte order"):
        read(tmp_path / "x.pt")


def test_a_file_that_could_run_code_is_no_damaged_one(tmp_path: Path) -> None:
    """An older file takes the place of a damaged one, but not of this one."""
    HOSTILE["a call of the shell"](tmp_path / "x.pt")
    with pytest.raises(UserError, match="no code in it was run") as caught:
        read(tmp_path / "x.pt")
    assert not isinstance(caught.value, DamagedError)


def test_a_record_that_differs_from_its_checksum_is_damaged(tmp_path: Path) -> None:
    archive(tmp_path / "x.pt", pickled(content(params={"w": Claim(Storage(), (4,), (1,))})), {"data/0": b"numbers of floats"[:16]})
    whole = (tmp_path / "x.pt").read_bytes()
    read(tmp_path / "x.pt")
    (tmp_path / "x.pt").write_bytes(whole.replace(b"numbers of float", b"numbers of flout"))
    with pytest.raises(DamagedError, match="do not match its checksums"):
        read(tmp_path / "x.pt")


@pytest.mark.parametrize(
    ("shape", "strides", "dense"),
    [
        ((), (), True),
        ((3,), (1,), True),
        ((2, 3), (3, 1), True),
        ((2, 3), (1, 2), True),
        ((1, 3), (77, 1), True),
        ((0, 3), (5, 1), True),
        ((3,), (2,), False),
        ((3,), (0,), False),
        ((2, 2), (1, 1), False),
        ((2, 3), (3, 2), False),
        ((2,), (1, 1), False),
        ([2], [1], False),
        ((2.0,), (1,), False),
        ((True,), (1,), False),
    ],
)
def test_dense_strides_reach_each_number_once(shape: Any, strides: Any, dense: bool) -> None:
    assert is_dense(shape, strides) == dense
