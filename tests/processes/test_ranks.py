"""The processes of a command, as the engine sees them."""

from __future__ import annotations

import subprocess
import sys
import threading

import torch

from metarun.processes.ranks import ONE, OneProcess, here, using


def test_a_command_runs_alone_unless_processes_are_in_use() -> None:
    others = OneProcess()
    with using(others):
        assert here() is others
        found = []
        thread = threading.Thread(target=lambda: found.append(here()))
        thread.start()
        thread.join()
        assert found == [ONE], "a thread must not take part in what the processes do together"
    assert here() is ONE


def test_one_process_keeps_what_it_has() -> None:
    rows, total = {"x": torch.ones(3)}, {"w": torch.ones(2)}
    assert ONE.gather(rows, [3]) is rows
    assert ONE.add_in_order([total], 1) is total
    assert ONE.agree(15) == 15
    assert ONE.tell(lambda: "folder") == "folder"


def test_a_command_that_runs_alone_imports_nothing_for_many() -> None:
    code = "import sys, metarun.commands.train, metarun.cli.jobs; print('metarun.processes.group' in sys.modules)"
    found = subprocess.run([sys.executable, "-c", code], capture_output=True, text=True, check=True)
    assert found.stdout.strip() == "False"
