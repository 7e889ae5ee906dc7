"""Trainings and evaluations that several processes divide, and their results.

The processes are forks of the test, which has torch loaded. Each writes its results into FOLDER/RANK.pt.
"""

from __future__ import annotations

import socket
import sys
from functools import partial
from pathlib import Path
from typing import Any

import torch
from forks import forked
from small_runs import IMAGES, evaluate, image_config, shortened
from torch.utils._pytree import tree_map_only

from metarun.commands.train import train
from metarun.processes.joining import run_together
from metarun.processes.launch import Place
from metarun.processes.ranks import Ranks, here
from metarun.processes.shares import shares_of
from metarun.records.checkpoint import LAST, load
from metarun.records.tracking import TIME_KEYS, parse_entry

DIVIDED = ("maml", "reptile", "protonet", "pmaml", "memory", "finetune")
IN_THREE = ("maml", "protonet", "memory")
"""Those that three processes divide: second derivatives, recorded programs, and a state."""
TASKS = 5
"""Tasks of a step, in chunks of 2, so that 2 and 3 processes get unequal shares."""


def config_of(name: str, *overrides: str) -> dict[str, Any]:
    """Return the config of a short training. name: of the algorithm. Only that of ProtoNet is long enough for recorded programs."""
    length = ("steps=3", "eval_episodes=7") if name == "protonet" else ("steps=2", "eval_episodes=5")
    sizes = (*length, "eval_every=2", "log_every=1", f"tasks_per_step={TASKS}", "device.task_chunk=2")
    config = shortened(image_config(f"algo={name}", *sizes, *overrides))
    labels = config["algo"].get("recipe", {}).get("train_labels")
    return {**config, "task": {**IMAGES, "train_labels": labels}} if labels else config


def results(configs: dict[str, Any], folder: Path) -> dict[str, Any]:
    """Train and evaluate by each config in this process, as one of `here()`; return their metrics, weights and scores by name."""
    return {name: result(config, folder / name) for name, config in configs.items()}


def result(config: dict[str, Any], folder: Path) -> dict[str, Any]:
    error = train(config, folder)
    here().agree(0)  # the first process has written
    stored = load(folder / "checkpoints" / LAST)
    report = evaluate(folder, folder / "eval", seed=1)
    scores = {key: value for key, value in report.items() if key not in ("checkpoint", "config")}
    lines = [parse_entry(line) or {} for line in (folder / "metrics.jsonl").read_bytes().splitlines(keepends=True)]
    metrics = [{key: value for key, value in line.items() if key not in TIME_KEYS} for line in lines]
    return {"error": error, "params": stored.params, "state": stored.state, "scores": repr(scores), "metrics": repr(metrics)}


def joined(ranks: Ranks) -> dict[str, Any]:
    """Return what the methods of `ranks` give; the same in every process, and for each number of processes."""
    rows = torch.arange(7)
    tree = {"flag": rows % 2 == 0, "sum": (rows.double() / 3)[:, None] * torch.ones(2).double(), "key": rows * 2**40, "none": None}
    shares = shares_of(7, 4, ranks.size)  # 4 and 3 rows, so that a third process has none
    mine = shares[ranks.rank]
    own = tree_map_only(torch.Tensor, lambda leaf: leaf[mine.start : mine.stop], tree) if mine else None
    gathered = ranks.gather(own, [len(share) for share in shares])
    parts = [addend(number) for number in range(5)]
    owned = shares_of(5, 3, ranks.size)
    if ranks.size == 1:
        return {"gathered": gathered, "sum": in_order(parts)}
    kept = [parts[number] for number in owned[ranks.rank]]
    total = ranks.add_in_order([in_order(kept)] if ranks.first else kept, sum(len(share) > 0 for share in owned))
    assert ranks.agree(ranks.rank) == ranks.size - 1
    assert ranks.tell(lambda: ["told", ranks.rank]) == ["told", 0]
    return {"gathered": gathered, "sum": total}


def addend(number: int) -> dict[str, torch.Tensor]:
    """Return numbers of very different sizes, so that each order of a sum gives another result; more than travel at once."""
    generator = torch.Generator().manual_seed(number)
    wide = torch.rand(1025, 1025, generator=generator) * 10.0 ** (3 * (number % 3))
    image = (torch.rand(2, 3, 4, 5, generator=generator) * 10**number).contiguous(memory_format=torch.channels_last)
    return {"wide": wide, "double": torch.rand(3, generator=generator).double(), "image": image}


def in_order(parts: list[dict[str, torch.Tensor]]) -> dict[str, torch.Tensor]:
    total = {name: torch.zeros_like(value) for name, value in parts[0].items()}
    for part in parts:
        for name, value in part.items():
            total[name] += value
    return total


def start(size: int, folder: Path, configs: dict[str, Any]) -> list[int]:
    """Start the processes; return their ids. configs: by name."""
    folder.mkdir(parents=True, exist_ok=True)
    with socket.socket() as free:
        free.bind(("127.0.0.1", 0))
        port = free.getsockname()[1]
    return [forked(partial(process, Place(rank, size, rank, size, "127.0.0.1", port), folder, configs)) for rank in range(size)]


def process(place: Place, folder: Path, configs: dict[str, Any]) -> None:
    """Be one of the processes."""

    def work() -> int:
        torch.save({"joined": joined(here()), **results(configs, folder)}, folder / f"{place.rank}.pt")
        return 0

    def told(error: BaseException) -> int:
        sys.excepthook(type(error), error, error.__traceback__)
        return 1

    if code := run_together(place, work, told):
        sys.exit(code)
