"""The time of one outer step that two processes of one thread each divide, beside one process with two workers."""

from __future__ import annotations

import json
import os
import socket
import subprocess
import sys
from collections.abc import Iterator, Sequence
from contextlib import closing, contextmanager

import torch

from metarun.processes.joining import connect
from metarun.processes.launch import Place
from metarun.processes.ranks import Ranks, using

from .ours import Run
from .outcome import Options, Result
from .rows import Row
from .timing import Contender, alternate

PROCESSES = 2
ALONE, DIVIDED = "one process, 2 workers", "2 processes, 1 thread each"
END, STEP = 0, 1
"""What the first process agrees with the others on before each step."""


def divided_step(row: Row, options: Options) -> list[Result]:
    """Time an outer step of one process, and of two that divide its tasks. They take turns; a process that has no turn sleeps."""
    with closing(Run(row.overrides)) as alone, peers(row.overrides) as group, using(group), closing(Run(row.overrides)) as run:

        def step() -> None:
            group.agree(STEP)
            run.step()

        threads = torch.get_num_threads()
        contenders = [Contender(ALONE, alone.step, threads, alone.settle), Contender(DIVIDED, step, threads, run.settle)]
        alone.step()
        step()
        same = all(torch.equal(alone.position.params[name], value) for name, value in run.position.params.items())
        alternate(contenders, options.rounds, options.seconds)
        group.agree(END)
    facts = {"remarks": [f"{row.name}: after one step, the weights {'are equal bit for bit' if same else 'DIFFER'}."]}
    return [each.result(facts) for each in contenders]


@contextmanager
def peers(overrides: Sequence[str]) -> Iterator[Ranks]:
    """Start the other processes, and connect this one as the first."""
    with socket.socket() as free:
        free.bind(("127.0.0.1", 0))
        port = free.getsockname()[1]
    places = [Place(rank, PROCESSES, rank, PROCESSES, "127.0.0.1", port) for rank in range(PROCESSES)]
    environment = {**os.environ, "OMP_NUM_THREADS": "1"}
    words = [json.dumps([vars(place), list(overrides)]) for place in places[1:]]
    started = [subprocess.Popen([sys.executable, "-m", "benchmarks.processes", word], env=environment) for word in words]
    group = connect(places[0])
    yield group
    group.close()
    for process in started:
        process.wait()


def follow(place: Place, overrides: Sequence[str]) -> None:
    """Take part in the steps of the first process until it ends."""
    group = connect(place)
    with using(group), closing(Run(overrides)) as run:
        while group.agree(END) == STEP:
            run.step()
    group.close()


if __name__ == "__main__":
    told, overrides = json.loads(sys.argv[1])
    follow(Place(**told), overrides)
