"""Run the parts of the check, each in a process of its own, and write one JSON file, anew after every part.

A part that fails, or that the time does not suffice for, never hides another. The exit code is 1 if a part failed.
"""

from __future__ import annotations

import argparse
import json
import os
import signal
import subprocess
import sys
import tempfile
import time
from collections.abc import Iterator, Sequence
from concurrent.futures import ThreadPoolExecutor
from dataclasses import asdict
from pathlib import Path
from typing import Any

from .part import write
from .parts import PARTS, Options, Part

DESCRIPTION = """Check metarun on a GPU and time it there: the CUDA tests, loss and gradient of every algorithm beside the CPU's, the
time of a step beside the plain loop in each precision, the share of time in which the GPU waits, and the memory. Writes one JSON file.

parts:
"""
LEAST = 0.3
"""A part starts where this share of the time that it needs is left; it is ended when the time is over."""


def main(arguments: Sequence[str] | None = None) -> int:
    """Run the chosen parts; return 1 if one of them failed."""
    asked = parse(arguments)
    begun, device = time.monotonic(), found(asked.device)
    small = device == "cpu"
    options = Options(device, small, rounds=2 if small else 3, seconds=0.05 if small else 0.2)
    whole: dict[str, Any] = {
        "device": device,
        "minutes": asked.minutes,
        "options": asdict(options),
        "parts": {},
        "failures": [],
        "skipped": [],
    }
    say(begun, f"device {device}, {asked.minutes:g} minutes, {', '.join(part.name for part in PARTS if chosen(part, asked.only))}")
    for group in groups([part for part in PARTS if chosen(part, asked.only)], together=not small):
        with ThreadPoolExecutor(len(group)) as pool:
            for part, outcome in zip(group, pool.map(lambda part: run(part, options, begun, asked.minutes * 60), group), strict=True):
                whole["parts"][part.name] = outcome
                whole["failures"] += [f"{part.name}: {failure}" for failure in outcome["failures"]]
                whole["skipped"] += [f"{part.name}: {outcome['skipped']}"] if "skipped" in outcome else []
        whole["seconds"] = time.monotonic() - begun
        write(asked.out, whole)
    for line in [*(f"SKIPPED {each}" for each in whole["skipped"]), *(f"FAILED {each[:500]}" for each in whole["failures"])]:
        print(line, flush=True)
    say(begun, f"{len(whole['failures'])} failures, {len(whole['skipped'])} parts left out; written to {asked.out}")
    return int(bool(whole["failures"]))


def parse(arguments: Sequence[str] | None) -> argparse.Namespace:
    """Read the command line."""
    listed = "\n".join(f"  {part.name:<11} {part.title} (about {part.needs:.0f} s)" for part in PARTS)
    how = argparse.RawDescriptionHelpFormatter
    parser = argparse.ArgumentParser(prog="scripts/gpu_check", description=DESCRIPTION + listed, formatter_class=how)
    parser.add_argument("--device", choices=("auto", "cuda", "cpu"), default="auto", help="auto: cuda where torch finds a device")
    parser.add_argument("--minutes", type=float, default=5.0, help="the time for everything; the last parts are left out first (default 5)")
    parser.add_argument("--out", type=Path, default=Path("gpu_check.json"), metavar="FILE", help="the JSON file (default gpu_check.json)")
    parser.add_argument("--only", type=lambda text: text.split(","), metavar="a,b", help="these parts instead of all")
    asked = parser.parse_args(arguments)
    known = {part.name for part in PARTS} | {part.name.rstrip("0123456789") for part in PARTS}
    if unknown := set(asked.only or ()) - known:
        parser.error(f"there is no part '{min(unknown)}'; there are {', '.join(part.name for part in PARTS)}.")
    return asked


def chosen(part: Part, only: Sequence[str] | None) -> bool:
    """Return whether to run a part; a name without its number stands for all parts of that name."""
    return not only or part.name in only or part.name.rstrip("0123456789") in only


def groups(parts: Sequence[Part], *, together: bool) -> Iterator[list[Part]]:
    """Yield the parts that run at once: neighbours that measure no time, on a GPU; else one after the other."""
    group: list[Part] = []
    for part in parts:
        if group and not (together and part.together and group[-1].together):
            yield group
            group = []
        group.append(part)
    if group:
        yield group


def run(part: Part, options: Options, begun: float, whole: float) -> dict[str, Any]:
    """Run a part in a process of its own, and return its results. It is ended when the time is over."""
    left = whole - (time.monotonic() - begun)
    if left < LEAST * part.needs:
        say(begun, f"{part.name}: left out")
        return {"results": {}, "failures": [], "skipped": f"{max(left, 0):.0f} s are left, and it needs about {part.needs:.0f}"}
    say(begun, f"{part.name}: {part.title}")
    start = time.monotonic()
    with tempfile.TemporaryDirectory() as folder:
        file = Path(folder) / "part.json"
        command = [sys.executable, "-u", "-m", "gpu_checks.part", part.name, json.dumps(asdict(options)), str(file)]
        code = within(left, command)
        outcome: dict[str, Any] = {}
        outcome |= json.loads(file.read_text(encoding="utf-8")) if file.exists() else {"results": {}, "failures": [], "finished": False}
    outcome["seconds"] = time.monotonic() - start
    if code is None:
        outcome["skipped"] = f"ended after {outcome['seconds']:.0f} s, when the time was over; its results so far are kept"
    elif not outcome["failures"] and (code or not outcome["finished"]):
        outcome["failures"] = [f"its process ended with code {code}"]
    say(begun, f"{part.name}: {outcome['seconds']:.0f} s, {len(outcome['failures'])} failures")
    return outcome


def within(seconds: float, command: Sequence[str]) -> int | None:
    """Return the exit code of a command; None where the time was over, and the command with all that it started was ended."""
    with subprocess.Popen(command, process_group=0) as process:
        try:
            return process.wait(seconds)
        except subprocess.TimeoutExpired:
            os.killpg(process.pid, signal.SIGKILL)
            return None
        except BaseException:
            os.killpg(process.pid, signal.SIGKILL)
            raise


def found(device: str) -> str:
    """Return the device to check: as asked, or the CUDA device where there is one."""
    if device != "auto":
        return device
    words = "import torch; print('cuda' if torch.cuda.is_available() else 'cpu')"
    return subprocess.run([sys.executable, "-c", words], check=True, stdout=subprocess.PIPE, text=True).stdout.strip()


def say(begun: float, text: str) -> None:
    """Print a line of progress at once."""
    print(f"[{time.monotonic() - begun:4.0f} s] {text}", flush=True)


if __name__ == "__main__":
    sys.exit(main())
