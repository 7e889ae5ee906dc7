"""Connect the processes that a launcher has started for one command, and end all of them when one fails."""

from __future__ import annotations

import contextlib
import json
import os
import platform
import signal
import sys
import threading
from collections.abc import Callable
from datetime import timedelta
from pathlib import Path
from typing import TYPE_CHECKING, Any

from metarun.errors import Stopped, UserError
from metarun.processes.launch import Place
from metarun.processes.ranks import using

if TYPE_CHECKING:
    from metarun.processes.group import Group

TIMEOUT = timedelta(minutes=10)
"""How long a process waits for the others. A process that ends is noticed at once; this is for a machine or a network that goes silent."""
PATIENCE = 6.0
"""Seconds that a failed process waits for the others: the first one may have a checkpoint to write, and one tells the user."""
_CPUS = Path("/sys/devices/system/cpu")


def run_together(place: Place, command: Callable[[], int], told: Callable[[BaseException], int]) -> int:
    """Run a command in this process as one of several; return its exit code.

    told: tells the user about an error of the command, and returns the exit code. Where processes fail, the first of them to fail calls it.
    """
    os.environ.setdefault("TORCH_CPP_LOG_LEVEL", "ERROR")  # else torch logs a stack of C++ where the store is gone
    with contextlib.ExitStack() as opened:
        if place.rank > 0:  # the first process speaks to the user
            silence = opened.enter_context(open(os.devnull, "w", encoding="utf-8"))
            opened.enter_context(contextlib.redirect_stdout(silence))
            opened.enter_context(contextlib.redirect_stderr(silence))
        group = connect(place)
        try:
            with using(group):
                code = command()
                group.agree(0)  # the first process may serve the store, and leaves last
        except Stopped:
            group.agree(0)  # a launcher ends the first process, which may still write, as soon as another one has ended
            _ignore_signals()
            group.close()
            raise
        except BaseException as error:
            failure = error
        else:
            group.close()
            return code
    return _end(group, failure, told, serves=place.serves)


def _end(group: Group, failure: BaseException, told: Callable[[BaseException], int], *, serves: bool) -> int:
    """End this process after a failure: close the connections, so that the others fail too, and let one process tell the user.

    A launcher ends the other processes when one has ended. So all wait until the first one has saved and the user knows.
    serves: whether this process runs the store, by which the others learn that the user knows. It then ends last.
    """
    _ignore_signals()
    speaks = group.fails_first()
    with contextlib.suppress(RuntimeError):
        group.close()
    code = 1
    if speaks:
        code = told(failure)
        sys.stderr.flush()
        group.note("told")
    if group.first:
        group.note("saved")
    group.await_notes([*([] if group.first else ["saved"]), *([] if speaks else ["told"])], PATIENCE)
    group.note(f"ended/{group.rank}")
    if serves:
        group.await_notes([f"ended/{rank}" for rank in range(1, group.size)], PATIENCE)
    return code


def _ignore_signals() -> None:
    """Ignore the signal by which a launcher ends the other processes: this process is about to end."""
    if threading.current_thread() is threading.main_thread():
        signal.signal(signal.SIGTERM, signal.SIG_IGN)


def connect(place: Place) -> Group:
    """Return the group of all processes; waits until they are there.

    Raises UserError where the store cannot be reached, and where only some of the machines have a GPU.
    """
    import torch
    import torch.distributed as dist

    from metarun.processes.group import Group, await_entries, talking

    try:
        store: Any = dist.TCPStore(  # type: ignore[attr-defined]
            place.address, place.port, None, place.serves, timeout=TIMEOUT, wait_for_workers=False
        )
    except RuntimeError as error:
        where = f"MASTER_ADDR={place.address} and MASTER_PORT={place.port}"
        raise UserError(f"the processes cannot find each other at {where}; start them with torchrun, or name a free port.") from error
    store = dist.PrefixStore(f"metarun/{place.attempt}", store)  # type: ignore[attr-defined]
    nccl = torch.cuda.is_available() and dist.is_nccl_available()
    with talking():
        store.set(f"facts/{place.rank}", json.dumps([platform.node(), cores(), nccl]))
        keys = [f"facts/{rank}" for rank in range(place.size)]
        await_entries(store, keys, TIMEOUT.total_seconds())
        facts = [json.loads(store.get(key)) for key in keys]
        if len({each[2] for each in facts}) > 1:
            if place.rank > 0:
                raise SystemExit(2)
            without = ", ".join(dict.fromkeys(host for host, _, gpus in facts if not gpus))
            raise UserError(f"torch finds GPUs on some of the machines only, and none on {without}; start all processes on machines alike.")
        backend = "cpu:gloo,cuda:nccl" if nccl else "gloo"
        dist.init_process_group(backend, store=store, rank=place.rank, world_size=place.size, timeout=TIMEOUT)
        host: Any = dist.new_group(backend="gloo", timeout=TIMEOUT) if nccl else dist.group.WORLD
    return Group(place, store, host, nccl=nccl, **machines_of(facts, place.rank))


def machines_of(facts: list[Any], rank: int) -> dict[str, int]:
    """Return the number of machines, and of the cores that the processes on this machine may use. facts: host and cores of each process."""
    own = facts[rank][0]
    shared = {core for host, allowed, *_ in facts if host == own for core in allowed}
    return {"machines": len({host for host, *_ in facts}), "cores": len(shared)}


def cores() -> list[str]:
    """Return names of the CPU cores that this process may use. Two hardware threads of a core count once, as torch counts them."""
    allowed = os.sched_getaffinity(0) if hasattr(os, "sched_getaffinity") else range(os.cpu_count() or 1)
    names = set()
    for cpu in allowed:
        name = str(cpu)
        with contextlib.suppress(OSError):
            name = (_CPUS / f"cpu{cpu}" / "topology" / "thread_siblings_list").read_text(encoding="ascii").strip()
        names.add(name)
    return sorted(names)
