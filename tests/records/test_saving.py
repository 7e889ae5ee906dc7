"""Checkpoints written in the background: the same files in the same order, nothing lost quietly, and no waiting where none is needed."""

from __future__ import annotations

import json
import os
import signal
import subprocess
import sys
import textwrap
import threading
import time
from collections.abc import Callable, Iterator
from pathlib import Path
from typing import ClassVar

import pytest
import torch
from torch import Tensor

from metarun.errors import UserError
from metarun.records import saving
from metarun.records.checkpoint import Checkpoint, encode, load, snapshot
from metarun.records.saving import SNAPSHOTS, Saver, remove_others
from metarun.records.tracking import Tracker


def make(step: int, weight: Tensor | None = None) -> Checkpoint:
    return Checkpoint(step=step, params={"w": torch.full((3,), float(step)) if weight is None else weight}, state={})


def step_of(path: Path) -> int | None:
    return load(path).step if path.exists() else None


class Gate:
    """Holds the thread before it writes, until it is opened."""

    def __init__(self) -> None:
        self._open = threading.Event()

    def __call__(self) -> None:
        assert self._open.wait(timeout=60)

    def open(self) -> None:
        self._open.set()


def saver_threads() -> list[threading.Thread]:
    return [thread for thread in threading.enumerate() if thread.name == "saver"]


@pytest.fixture
def free_disk(monkeypatch: pytest.MonkeyPatch) -> Callable[[], None]:
    """Let the disk be full until the returned function is called."""

    def full(_: int) -> None:
        raise OSError(28, "No space left on device")

    monkeypatch.setattr(os, "fsync", full)
    return monkeypatch.undo


def test_the_file_is_the_one_that_checkpoint_save_writes(tmp_path: Path) -> None:
    with Saver() as saver:
        saver.save(tmp_path / "run" / "last.pt", make(3))
    assert (tmp_path / "run" / "last.pt").read_bytes() == bytes(encode(make(3)))
    assert [path.name for path in (tmp_path / "run").iterdir()] == ["last.pt"]


def test_steps_taken_after_a_save_do_not_reach_its_file(tmp_path: Path) -> None:
    """The second save still waits, as tensors, when its weights change in place."""
    gate, weight = Gate(), torch.zeros(3)
    with Saver(before=gate) as saver:
        for step in (1, 2):
            weight.fill_(step)
            saver.save(tmp_path / f"{step}.pt", make(step, weight))
        weight.fill_(9)
        gate.open()
    assert [load(tmp_path / f"{step}.pt").params["w"].tolist() for step in (1, 2)] == [[1.0] * 3, [2.0] * 3]


def test_every_save_is_written_in_the_order_of_the_calls(tmp_path: Path) -> None:
    """Also where a newer save of the same path waits behind it: `previous.pt` is always the save before the last."""
    seen = []

    def look() -> None:
        seen.append(tuple(step_of(tmp_path / f"{name}.pt") for name in ("best", "last", "previous")))

    with Saver(before=look) as saver:
        for step in (1, 2, 3):
            for name in ("best", "last"):
                saver.save(tmp_path / f"{name}.pt", make(step))
    look()
    assert seen == [(None,) * 3, (1, None, None), (1, 1, None), (2, 1, None), (2, 2, 1), (3, 2, 1), (3, 3, 2)]


def test_flush_waits_until_everything_is_on_disk_and_the_saver_goes_on(tmp_path: Path) -> None:
    with Saver() as saver:
        for step in (1, 2, 3):
            saver.save(tmp_path / "last.pt", make(step))
            saver.flush()
            assert step_of(tmp_path / "last.pt") == step


def test_a_thread_that_cannot_be_started_costs_that_save_alone(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    def refuse(_: threading.Thread) -> None:
        raise RuntimeError("can't start new thread")

    with Saver() as saver:
        for _ in range(SNAPSHOTS + 1):
            with monkeypatch.context() as patch:
                patch.setattr(threading.Thread, "start", refuse)
                with pytest.raises(RuntimeError, match="can't start new thread"):
                    saver.save(tmp_path / "1.pt", make(1))
        saver.flush()
        saver.save(tmp_path / "2.pt", make(2))
    assert [path.name for path in tmp_path.iterdir()] == ["2.pt"]


def test_the_caller_gets_ahead_by_so_many_snapshots_and_no_further(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    """A write begins only when all that may be taken ahead of it are taken; one more taken would be seen."""
    taken, written, total = [0], [0], 10
    changed = threading.Condition()
    snapshot, write = saving.snapshot, saving.write
    ahead = []

    def counting_snapshot(checkpoint: Checkpoint) -> Checkpoint:
        with changed:
            taken[0] += 1
            ahead.append(taken[0] - written[0])
            changed.notify_all()
        return snapshot(checkpoint)

    def waiting_write(path: Path, content: memoryview) -> None:
        with changed:
            assert changed.wait_for(lambda: taken[0] == min(written[0] + SNAPSHOTS, total), timeout=60)
            write(path, content)
            written[0] += 1

    monkeypatch.setattr(saving, "snapshot", counting_snapshot)
    monkeypatch.setattr(saving, "write", waiting_write)
    with Saver() as saver:
        for step in range(total):
            saver.save(tmp_path / "last.pt", make(step))
    assert max(ahead) == SNAPSHOTS
    assert step_of(tmp_path / "last.pt") == total - 1


def test_between_saves_there_is_no_thread(tmp_path: Path) -> None:
    gate = Gate()
    with Saver(before=gate) as saver:
        saver.save(tmp_path / "last.pt", make(1))
        (thread,) = saver_threads()
        gate.open()
        thread.join(timeout=60)
        assert not thread.is_alive()
        saver.save(tmp_path / "last.pt", make(2))
    assert step_of(tmp_path / "last.pt") == 2


def test_what_is_not_plain_is_refused_at_once_and_the_saver_goes_on(tmp_path: Path) -> None:
    with Saver() as saver:
        with pytest.raises(TypeError, match=r"params\.w is not a dense tensor"):
            saver.save(tmp_path / "last.pt", make(1, torch.zeros(2).to_sparse()))
        saver.save(tmp_path / "last.pt", make(2))
    assert step_of(tmp_path / "last.pt") == 2


def test_an_error_comes_up_once_at_a_later_save_in_its_place(tmp_path: Path, free_disk: Callable[[], None]) -> None:
    def save_on(saver: Saver) -> None:
        while True:
            saver.save(tmp_path / "last.pt", make(1))

    with Saver() as saver:
        with pytest.raises(
            UserError, match=r"cannot write the checkpoint .*last\.pt: No space left on device; the files saved before are un"
        ):
            save_on(saver)
        saver.flush()
        assert list(tmp_path.iterdir()) == []
        free_disk()
        saver.save(tmp_path / "last.pt", make(2))
    assert step_of(tmp_path / "last.pt") == 2


def test_a_save_that_is_being_copied_when_an_earlier_one_fails_raises_its_error(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    """It must not be written behind the failed one, nor bring up a second error later."""
    gate = Gate()
    (tmp_path / "file").write_text("")

    def copy(checkpoint: Checkpoint) -> Checkpoint:
        gate.open()
        for thread in saver_threads():
            thread.join()
        return snapshot(checkpoint)

    with Saver(before=gate) as saver:
        saver.save(tmp_path / "file" / "best.pt", make(1))
        monkeypatch.setattr(saving, "snapshot", copy)
        with pytest.raises(UserError, match=r"best\.pt"):
            saver.save(tmp_path / "last.pt", make(1))
        saver.flush()
    assert not (tmp_path / "last.pt").exists()


def test_an_error_comes_up_at_flush(tmp_path: Path) -> None:
    (tmp_path / "file").write_text("")
    with Saver() as saver:
        saver.save(tmp_path / "file" / "last.pt", make(1))
        with pytest.raises(UserError, match="cannot write the checkpoint"):
            saver.flush()


def test_an_error_comes_up_on_leaving(tmp_path: Path) -> None:
    (tmp_path / "file").write_text("")
    with pytest.raises(UserError, match="cannot write the checkpoint"), Saver() as saver:
        saver.save(tmp_path / "file" / "last.pt", make(1))


def test_what_waits_behind_a_save_that_fails_is_dropped(tmp_path: Path) -> None:
    """A `last.pt` that counts on a `best.pt` must not appear without it."""
    gate = Gate()
    (tmp_path / "file").write_text("")
    with Saver(before=gate) as saver:
        saver.save(tmp_path / "file" / "best.pt", make(1))
        saver.save(tmp_path / "last.pt", make(1))
        gate.open()
        with pytest.raises(UserError, match=r"best\.pt"):
            saver.flush()
    assert not (tmp_path / "last.pt").exists()


def test_another_exception_lets_the_pending_saves_finish(tmp_path: Path) -> None:
    gate = Gate()

    def run() -> None:
        with Saver(before=gate) as saver:
            for step in (1, 2, 3):
                saver.save(tmp_path / "last.pt", make(step))
            gate.open()
            raise ZeroDivisionError

    with pytest.raises(ZeroDivisionError):
        run()
    assert (step_of(tmp_path / "last.pt"), step_of(tmp_path / "previous.pt")) == (3, 2)


def test_a_failed_save_does_not_mask_another_exception(tmp_path: Path) -> None:
    (tmp_path / "file").write_text("")

    def run() -> None:
        with Saver() as saver:
            saver.save(tmp_path / "file" / "last.pt", make(1))
            raise ZeroDivisionError

    with pytest.raises(ZeroDivisionError) as caught:
        run()
    assert "cannot write the checkpoint" in caught.value.__notes__[0]


def test_an_error_of_what_comes_before_keeps_the_file_from_being_written(tmp_path: Path) -> None:
    def fail() -> None:
        raise OSError(5, "Input/output error")

    with pytest.raises(OSError, match="Input/output error"), Saver(before=fail) as saver:
        saver.save(tmp_path / "last.pt", make(1))
    assert list(tmp_path.iterdir()) == []


def test_no_checkpoint_is_in_place_before_the_lines_that_it_counts_on_are_on_disk(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    """While the run goes on logging: what is on disk is the file as the last fsync of it found it."""
    synced, missing = [0], []
    fsync, write = os.fsync, saving.write

    def noting_fsync(descriptor: int) -> None:
        if os.path.sameopenfile(descriptor, tracker._file.fileno()):
            synced[0] = len((tmp_path / "metrics.jsonl").read_bytes().splitlines())
        fsync(descriptor)

    def checking_write(path: Path, content: memoryview) -> None:
        missing.append(int(path.stem) - synced[0])
        write(path, content)

    monkeypatch.setattr(os, "fsync", noting_fsync)
    monkeypatch.setattr(saving, "write", checking_write)
    with Tracker(tmp_path) as tracker, Saver(before=tracker.sync) as saver:
        for step in range(1, 101):
            tracker.log(step, {"loss": 0.1})
            if step % 5 == 0:
                saver.save(tmp_path / f"{step}.pt", make(step))
    assert len(missing) == 20
    assert max(missing) <= 0


def test_what_is_to_follow_a_save_happens_when_its_file_is_on_disk_and_before_the_next_save(tmp_path: Path) -> None:
    seen: list[list[int | None]] = []
    gate = Gate()

    def look() -> None:
        seen.append([step_of(tmp_path / "a.pt"), step_of(tmp_path / "b.pt")])

    with Saver(before=gate) as saver:
        saver.save(tmp_path / "a.pt", make(1), look)
        saver.save(tmp_path / "b.pt", make(2), look)
        assert seen == []
        gate.open()
    assert seen == [[1, None], [1, 2]]


def test_nothing_follows_a_save_that_failed(tmp_path: Path, free_disk: Callable[[], None]) -> None:
    seen: list[str] = []
    with pytest.raises(UserError, match="No space left"), Saver() as saver:
        saver.save(tmp_path / "a.pt", make(1), lambda: seen.append("a"))
    assert seen == []


def test_files_of_a_pattern_are_removed_unless_they_are_kept(tmp_path: Path) -> None:
    for name in ("step_1.pt", "step_2.pt", "step_30.pt", "last.pt", "step_4.txt"):
        (tmp_path / name).write_text("")
    (tmp_path / "step_9.pt").mkdir()
    remove_others(tmp_path, "step_*.pt", {"step_2.pt", "step_5.pt"})
    assert sorted(path.name for path in tmp_path.iterdir()) == ["last.pt", "step_2.pt", "step_4.txt", "step_9.pt"]


def test_ctrl_c_brings_to_disk_what_a_working_disk_can_take(tmp_path: Path) -> None:
    def run() -> None:
        with Saver() as saver:
            for step in (1, 2, 3):
                saver.save(tmp_path / "last.pt", make(step))
            raise KeyboardInterrupt

    with pytest.raises(KeyboardInterrupt):
        run()
    assert (step_of(tmp_path / "last.pt"), step_of(tmp_path / "previous.pt")) == (3, 2)


class Slow:
    """A copy that is slow to free; a thread that frees a tensor while the interpreter ends aborts the process."""

    freed: ClassVar[list[str]] = []

    def __del__(self) -> None:
        time.sleep(0.05)
        self.freed.append(threading.current_thread().name)


@pytest.fixture
def slow_copies(monkeypatch: pytest.MonkeyPatch) -> list[str]:
    """Let every copy be a `Slow`; the list grows by the thread that frees one."""
    monkeypatch.setattr(Slow, "freed", [])
    monkeypatch.setattr(saving, "snapshot", lambda _: Slow())
    monkeypatch.setattr(saving, "encode", lambda _: memoryview(b"content"))
    return Slow.freed


@pytest.mark.parametrize("leave", [Saver.flush, lambda saver: saver.__exit__(None, None, None)], ids=["flush", "leaving"])
def test_once_everything_is_on_disk_the_copies_are_freed_and_the_thread_is_gone(
    tmp_path: Path, slow_copies: list[str], leave: Callable[[Saver], None]
) -> None:
    saver = Saver()
    for step in (1, 2):
        saver.save(tmp_path / f"{step}.pt", make(step))
    leave(saver)
    assert (slow_copies, saver_threads()) == (["saver"] * 2, [])


def test_a_copy_is_freed_before_its_file_is_written(tmp_path: Path, slow_copies: list[str]) -> None:
    """So that a process which Ctrl-C ends while its disk hangs has no tensor in the thread that it leaves behind."""
    freed = []
    with Saver(before=lambda: freed.append(len(slow_copies))) as saver:
        for step in (1, 2):
            saver.save(tmp_path / f"{step}.pt", make(step))
            saver.flush()
    assert freed == [1, 2]


@pytest.fixture
def heard_ctrl_c() -> Iterator[None]:
    """Let SIGINT raise KeyboardInterrupt, even where the tests run as a shell's background job, which ignores it."""
    before = signal.signal(signal.SIGINT, signal.default_int_handler)
    yield
    signal.signal(signal.SIGINT, before)


@pytest.mark.usefixtures("heard_ctrl_c")
@pytest.mark.parametrize("where", ["on leaving", "in flush", "in save"])
def test_a_disk_that_hangs_does_not_keep_ctrl_c_from_ending_a_run(tmp_path: Path, monkeypatch: pytest.MonkeyPatch, where: str) -> None:
    """The first save hangs, and of those behind it nothing appears, even if the disk comes back."""
    monkeypatch.setattr(saving, "PATIENCE", 0.01)
    gate = Gate()

    def run() -> None:
        with Saver(before=gate) as saver:
            for step in range(SNAPSHOTS):
                saver.save(tmp_path / f"{step}.pt", make(step))
            threading.Timer(0.05, os.kill, (os.getpid(), signal.SIGINT)).start()
            if where == "in flush":
                saver.flush()
            elif where == "in save":
                saver.save(tmp_path / "more.pt", make(SNAPSHOTS))

    with pytest.raises(KeyboardInterrupt):
        run()
    (thread,) = saver_threads()
    assert list(tmp_path.iterdir()) == []
    gate.open()
    thread.join(timeout=60)
    assert [path.name for path in tmp_path.iterdir()] == ["0.pt"]


def start(script: str, folder: Path) -> subprocess.Popen[str]:
    """Run a script on `folder` in a process of its own."""
    head = """
        import io, itertools, os, pathlib, signal, sys, threading, time, torch
        from metarun.records import saving
        from metarun.records.checkpoint import Checkpoint
        from metarun.records.saving import Saver
        from metarun.records.tracking import Tracker
        folder = pathlib.Path(sys.argv[1])
        signal.signal(signal.SIGINT, signal.default_int_handler)  # a shell's background jobs inherit that it is ignored
    """
    code = textwrap.dedent(head) + textwrap.dedent(script)
    return subprocess.Popen([sys.executable, "-c", code, str(folder)], stdout=subprocess.PIPE, stderr=subprocess.PIPE, text=True)


def test_a_process_killed_while_saving_leaves_a_whole_checkpoint_and_the_lines_before_it(tmp_path: Path) -> None:
    script = """
        with Tracker(folder) as tracker, Saver(before=tracker.sync) as saver:
            for step in itertools.count(1):
                tracker.log(step, {"loss": 0.1})
                saver.save(folder / "last.pt", Checkpoint(step=step, params={"w": torch.zeros(100_000)}, state={}))
                print(step, flush=True)
    """
    with start(script, tmp_path) as process:
        assert process.stdout is not None
        saved = [int(process.stdout.readline()) for _ in range(10)]
        process.kill()
        saved += [int(line) for line in process.stdout.read().split()]
    last = load(tmp_path / "last.pt").step
    assert last >= saved[-1] - SNAPSHOTS
    assert load(tmp_path / "previous.pt").step in (last - 1, last)
    lines = [json.loads(line)["step"] for line in (tmp_path / "metrics.jsonl").read_text().splitlines(keepends=True) if line.endswith("\n")]
    assert lines[:last] == list(range(1, last + 1))


def test_a_process_that_ctrl_c_ends_while_its_disk_hangs_ends(tmp_path: Path) -> None:
    script = """
        saving.PATIENCE = 0.0
        with Saver(before=threading.Event().wait) as saver:
            saver.save(folder / "last.pt", Checkpoint(step=1, params={"w": torch.zeros(3)}, state={}))
            os.kill(os.getpid(), signal.SIGINT)
    """
    assert_ended_by_ctrl_c(script, tmp_path)
    assert list(tmp_path.iterdir()) == []


@pytest.mark.parametrize("times", [1, 2])
def test_a_process_that_ctrl_c_ends_in_the_middle_of_torch_save_does_not_crash(tmp_path: Path, times: int) -> None:
    """Without care it would be aborted: `terminate called without an active exception`. The second time ends the patience with the disk."""
    script = """
        saving.PATIENCE, times = 0.0 if TIMES == 1 else 60.0, TIMES
        inside, writes = threading.Event(), itertools.count()
        class Slow(io.BytesIO):
            def write(self, data):
                if next(writes) == 20:  # well into the tensors
                    inside.set()
                time.sleep(0.005)
                return super().write(data)
        io.BytesIO = Slow
        params = {f"w{number}": torch.zeros(3) for number in range(50)}
        with Saver() as saver:
            saver.save(folder / "last.pt", Checkpoint(step=1, params=params, state={}))
            inside.wait()
            if times == 2:
                threading.Timer(0.2, os.kill, (os.getpid(), signal.SIGINT)).start()
            os.kill(os.getpid(), signal.SIGINT)
    """
    assert_ended_by_ctrl_c(script.replace("TIMES", str(times)), tmp_path)


def assert_ended_by_ctrl_c(script: str, folder: Path) -> None:
    with start(script, folder) as process:
        assert process.stderr is not None
        said = process.stderr.read()
    assert said.rstrip().endswith("KeyboardInterrupt")
    assert process.returncode == -signal.SIGINT
