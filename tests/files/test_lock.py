"""One writer for each run folder."""

from __future__ import annotations

import errno
import fcntl
import json
import os
import signal
import subprocess
import sys
import time
from pathlib import Path

import pytest

from metarun.errors import UserError
from metarun.files import lock
from metarun.files.lock import NAME, SILENCE, FolderLock, has_owner, owner_here

HOLD = (
    "import sys, time; from metarun.files.lock import FolderLock\nwith FolderLock(sys.argv[1]): print('locked', flush=True); time.sleep(60)"
)


def a_lock_of_another_process(folder: Path, **owner: object) -> Path:
    """Write what a process leaves that is killed, or that is on another computer whose locks do not reach this one."""
    folder.mkdir(exist_ok=True)
    (folder / NAME).write_text(json.dumps({"pid": 77, "host": "elsewhere", "system": "other", "started": "2026-01-01 00:00:00"} | owner))
    return folder / NAME


def test_a_second_writer_is_refused_with_the_owner_and_may_write_when_the_first_has_ended(tmp_path: Path) -> None:
    with FolderLock(tmp_path / "run"):
        with pytest.raises(UserError, match=rf"another metarun writes into .*run \(process {os.getpid()} on .*, since 20"):
            FolderLock(tmp_path / "run").__enter__()
        assert (tmp_path / "run" / NAME).exists()
    assert list((tmp_path / "run").iterdir()) == []
    with FolderLock(tmp_path / "run"), FolderLock(tmp_path / "other"):
        pass


def test_the_lock_of_a_killed_process_is_taken_over(tmp_path: Path) -> None:
    process = subprocess.Popen([sys.executable, "-c", HOLD, str(tmp_path)], stdout=subprocess.PIPE, text=True)
    assert process.stdout is not None
    assert process.stdout.readline() == "locked\n"
    with pytest.raises(UserError, match=f"process {process.pid} on"):
        FolderLock(tmp_path).__enter__()
    process.send_signal(signal.SIGKILL)
    process.wait()
    process.stdout.close()
    assert (tmp_path / NAME).exists()
    with FolderLock(tmp_path):
        assert json.loads((tmp_path / NAME).read_text())["pid"] == os.getpid()


def test_an_owner_on_another_computer_is_alive_until_it_is_silent(tmp_path: Path) -> None:
    path = a_lock_of_another_process(tmp_path)
    with pytest.raises(UserError, match=r"process 77 on elsewhere.*counts as dead after 120 s without a sign"):
        FolderLock(tmp_path).__enter__()
    os.utime(path, (time.time() - SILENCE - 5,) * 2)
    with FolderLock(tmp_path):
        pass


def test_a_job_that_slurm_queued_again_takes_the_lock_of_its_earlier_start_on_another_computer(
    tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    a_lock_of_another_process(tmp_path, job={"id": ":7", "restarts": 0})
    monkeypatch.delenv("SLURM_CLUSTER_NAME", raising=False)
    for job, restarts in (("8", "1"), ("7", "0")):
        monkeypatch.setenv("SLURM_JOB_ID", job)
        monkeypatch.setenv("SLURM_RESTART_COUNT", restarts)
        with pytest.raises(UserError, match=rf"process 77 on elsewhere.*if it has ended, delete .*{NAME}"):
            FolderLock(tmp_path).__enter__()
    monkeypatch.setenv("SLURM_RESTART_COUNT", "1")
    with FolderLock(tmp_path):
        assert json.loads((tmp_path / NAME).read_text())["job"] == {"id": ":7", "restarts": 1}


def test_a_restart_does_not_wait_for_the_file_server_to_forget_a_computer_that_is_gone(
    tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    path = a_lock_of_another_process(tmp_path, job={"id": ":7", "restarts": 0})
    monkeypatch.delenv("SLURM_CLUSTER_NAME", raising=False)
    monkeypatch.setenv("SLURM_JOB_ID", "7")
    monkeypatch.setenv("SLURM_RESTART_COUNT", "2")
    with path.open("rb") as held:
        fcntl.flock(held, fcntl.LOCK_EX)
        with FolderLock(tmp_path):
            assert json.loads(path.read_text())["pid"] == os.getpid()


def test_a_number_that_another_process_got_since_is_no_owner(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    def refuse(*_: object) -> None:
        raise OSError(errno.ENOLCK, "No locks available")

    monkeypatch.setattr(fcntl, "flock", refuse)
    a_lock_of_another_process(tmp_path, system=lock._system(), pid=os.getppid(), begun=1)
    with FolderLock(tmp_path):
        pass


def test_the_owner_on_this_computer_is_known_by_its_number(tmp_path: Path) -> None:
    assert owner_here(tmp_path) is None
    path = a_lock_of_another_process(tmp_path, system=lock._system(), pid=os.getppid())
    assert owner_here(tmp_path) is None, "nobody holds the lock"
    with path.open("rb") as held:
        fcntl.flock(held, fcntl.LOCK_EX)
        assert owner_here(tmp_path) == os.getppid()
        a_lock_of_another_process(tmp_path, pid=os.getppid())
        assert owner_here(tmp_path) is None, "the owner is on another computer"


def test_the_owner_on_this_computer_is_known_on_nfs_too(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    """NFS refuses an exclusive lock of a file that is open for reading only."""
    take = fcntl.flock

    def on_nfs(descriptor: int, kind: int) -> None:
        if kind & fcntl.LOCK_EX and fcntl.fcntl(descriptor, fcntl.F_GETFL) & os.O_ACCMODE == os.O_RDONLY:
            raise OSError(errno.EBADF, "Bad file descriptor")
        take(descriptor, kind)

    path = a_lock_of_another_process(tmp_path, system=lock._system(), pid=os.getppid())
    monkeypatch.setattr(fcntl, "flock", on_nfs)
    with path.open("r+b") as held:
        fcntl.flock(held.fileno(), fcntl.LOCK_EX)
        assert owner_here(tmp_path) == os.getppid()
    path.unlink()
    path.mkdir()
    assert owner_here(tmp_path) is None


def test_the_owner_gives_signs_of_life(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr(lock, "BEAT", 0.01)
    with FolderLock(tmp_path):
        os.utime(tmp_path / NAME, (0, 0))
        end = time.monotonic() + 10
        while (tmp_path / NAME).stat().st_mtime < 1000 and time.monotonic() < end:
            time.sleep(0.01)
        assert (tmp_path / NAME).stat().st_mtime > 1000


@pytest.mark.parametrize(("pid", "alive"), [(os.getppid(), True), (2**22 + 1, False), (-1, False), ("x", False), (10**30, True)])
def test_on_a_file_system_without_locks_the_process_counts(
    tmp_path: Path, monkeypatch: pytest.MonkeyPatch, pid: object, alive: bool
) -> None:
    def refuse(*_: object) -> None:
        raise OSError(errno.ENOLCK, "No locks available")

    monkeypatch.setattr(fcntl, "flock", refuse)
    a_lock_of_another_process(tmp_path, system=lock._system(), pid=pid)
    if alive:
        with pytest.raises(UserError, match="another metarun writes"):
            FolderLock(tmp_path).__enter__()
    else:
        with FolderLock(tmp_path):
            pass


@pytest.mark.parametrize("content", ["", "{", "[1]", "\x00\xff", '{"pid": 1}' * 1000])
def test_a_file_that_says_nothing_names_no_owner(tmp_path: Path, content: str) -> None:
    (tmp_path / NAME).write_text(content)
    with FolderLock(tmp_path):
        pass


def test_the_names_of_an_owner_are_printed_without_control_characters(tmp_path: Path) -> None:
    a_lock_of_another_process(tmp_path, host="\x1b[2Jevil" + "x" * 1000)
    with pytest.raises(UserError) as caught:
        FolderLock(tmp_path).__enter__()
    assert "\x1b" not in str(caught.value)
    assert len(str(caught.value)) < 500


def test_a_link_in_the_place_of_the_file_is_not_followed(tmp_path: Path) -> None:
    (tmp_path / "diary").write_text("mine")
    (tmp_path / "run").mkdir()
    (tmp_path / "run" / NAME).symlink_to(tmp_path / "diary")
    with pytest.raises(UserError, match="cannot write into the run folder"):
        FolderLock(tmp_path / "run").__enter__()
    assert (tmp_path / "diary").read_text() == "mine"


def test_a_file_that_its_owner_removed_meanwhile_is_not_the_lock(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    """Between opening and locking: else two processes would each lock a file of their own."""
    flock, calls = fcntl.flock, []

    def removing(descriptor: int, operation: int) -> None:
        flock(descriptor, operation)
        calls.append(descriptor)
        if len(calls) == 1:
            (tmp_path / NAME).unlink()

    monkeypatch.setattr(fcntl, "flock", removing)
    with FolderLock(tmp_path):
        assert len(calls) == 2
        assert (tmp_path / NAME).exists()


def test_asking_for_an_owner_takes_no_lock(tmp_path: Path) -> None:
    assert not has_owner(tmp_path)
    with FolderLock(tmp_path):
        before = (tmp_path / NAME).read_bytes()
        has_owner(tmp_path)
        assert (tmp_path / NAME).read_bytes() == before
    (tmp_path / NAME).write_text("{half")
    assert not has_owner(tmp_path)
