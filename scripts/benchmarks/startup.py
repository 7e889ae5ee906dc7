"""The time of a command from the shell: whole commands, and `metarun train` up to the end of its first step."""

from __future__ import annotations

import subprocess
import sys
import tempfile
import time
from collections.abc import Sequence
from pathlib import Path

from .outcome import Options, Result
from .rows import SINUSOID, images

METARUN = (sys.executable, "-m", "metarun")
PATIENCE = 600.0
"""Seconds to wait for a first step."""


def startup(options: Options) -> list[Result]:
    """Time each command once in every round."""
    whole = {
        "metarun --help": (*METARUN, "--help"),
        "metarun list": (*METARUN, "list"),
        "for comparison: python -c 'import torch'": (sys.executable, "-c", "import torch"),
    }
    trained = {
        "metarun train experiment=sinusoid_maml, first step done": SINUSOID,
        f"metarun train {' '.join(images('omniglot_5w1s_maml'))}, first step done": images("omniglot_5w1s_maml"),
    }
    taken: dict[str, list[float]] = {name: [] for name in (*whole, *trained)}
    for _ in range(options.rounds):
        for name, command in whole.items():
            taken[name].append(run(command))
        for name, overrides in trained.items():
            taken[name].append(first_step(overrides))
    return [{"contender": name, "unit": "s", "samples": samples, "facts": {}} for name, samples in taken.items()]


def run(command: Sequence[str]) -> float:
    """Return the seconds of a command. Raises CalledProcessError if it fails."""
    begun = time.perf_counter()
    subprocess.run(command, check=True, stdout=subprocess.DEVNULL)
    return time.perf_counter() - begun


def first_step(overrides: Sequence[str]) -> float:
    """Return the seconds from the start of `metarun train` to its first logged step, then end the process."""
    with tempfile.TemporaryDirectory() as folder:
        metrics = Path(folder) / "run" / "metrics.jsonl"
        words = ("train", *overrides, "log_every=1", f"hydra.run.dir={metrics.parent}")
        with (Path(folder) / "output").open("w+", encoding="utf-8") as output:
            begun = time.perf_counter()
            process = subprocess.Popen([*METARUN, *words], stdout=output, stderr=output)
            try:
                while not (metrics.exists() and metrics.stat().st_size):
                    if process.poll() is not None or time.perf_counter() - begun > PATIENCE:
                        output.seek(0)
                        raise RuntimeError(f"metarun {' '.join(words)} logged no step:\n{output.read()}")
                    time.sleep(1e-3)
                return time.perf_counter() - begun
            finally:
                process.kill()
                process.wait()
