"""The tests that need a CUDA device, in a process of their own."""

from __future__ import annotations

import importlib.util
import subprocess
import sys
import tempfile
import xml.etree.ElementTree as ET
from pathlib import Path
from typing import Any

from .parts import Note, Options

ROOT = Path(__file__).parents[2]
TESTS = (
    "tests/compute/test_cuda.py",
    "tests/engine/test_dealing.py",
    "tests/tasks/test_sampling.py",
    "tests/test_draws.py",
    "tests/compute/test_device.py",
    "tests/compute/test_memory.py",
)
"""The files with tests for CUDA, and small files about what a device changes."""
PROCESSES = 4


def suite(options: Options, note: Note) -> list[str]:
    """Run the tests; return the name and the message of each that fails. Warnings of this machine's packages fail no test."""
    with tempfile.TemporaryDirectory() as folder:
        file = Path(folder) / "report.xml"
        shared = ["-n", str(PROCESSES)] if options.device == "cuda" and importlib.util.find_spec("xdist") else []
        if not shared and importlib.util.find_spec("xdist"):
            shared = ["-n", "0"]
        quiet = ["-q", "-W", "default", "-p", "no:cacheprovider", "--durations=5", f"--junitxml={file}"]
        command = [sys.executable, "-m", "pytest", *quiet, *shared, *(TESTS if options.device == "cuda" else TESTS[:1])]
        done = subprocess.run(command, cwd=ROOT, stdout=subprocess.PIPE, stderr=subprocess.STDOUT, text=True, check=False)
        print(done.stdout[-4000:], flush=True)
        if not file.exists():
            return [f"pytest ended with code {done.returncode} and wrote no report: {done.stdout[-1500:]}"]
        figures = counted(file)
    note("tests", figures | {"told": ", ".join(f"{count} {word}" for word, count in figures["counts"].items())})
    failures = [f"{name}: {message}" for name, message in figures["failed"].items()]
    return failures if failures or done.returncode in (0, 5) else [f"pytest ended with code {done.returncode}"]


def counted(file: Path) -> dict[str, Any]:
    """Return the numbers of passed, failed and skipped tests of a report in JUnit's form, and the messages of those that failed."""
    failed: dict[str, str] = {}
    counts = {"passed": 0, "failed": 0, "skipped": 0}
    for case in ET.parse(file).getroot().iter("testcase"):
        bad = next((each for each in case if each.tag in ("failure", "error")), None)
        word = "failed" if bad is not None else "skipped" if case.find("skipped") is not None else "passed"
        counts[word] += 1
        if bad is not None:
            failed[f"{case.get('classname')}::{case.get('name')}"] = f"{bad.get('message', '')[:300]} … {(bad.text or '')[-900:]}"
    return {"counts": counts, "failed": failed}
