"""Whether two equal runs, and a stopped run that goes on, end in equal bits on this device. metarun promises this on the CPU only.

Where the bits differ, one norm over all weights says how far apart the runs are. The outer optimizer is gradient descent with momentum. A
bias in front of a normalisation has a gradient of rounding error only, and Adam would make full steps of it, with signs that differ from
run to run.
"""

from __future__ import annotations

import tempfile
from pathlib import Path
from typing import Any

import torch
from torch import Tensor

from metarun.commands.train import train
from metarun.records import checkpoint
from metarun.wiring.build import build, build_settings, start

from .configs import GLYPHS, composed
from .parts import Note, Options

ALGORITHMS = ("maml", "protonet", "reptile")
STEPS = 12
NEAR = 0.1
"""The largest distance of two runs, relative to the way from the initial weights to the final ones.

On a CPU, runs that sum in another order (`device.task_chunk` of 1 and of 4) ended 5e-6 (MAML), 0.017 (ProtoNet) and 0.025 (Reptile, whose
inner optimizer is Adam) of the way apart. Runs on other episodes (`task.seed=7`) ended 0.5 to 1.5 of it apart.
"""


def repeats(options: Options, note: Note) -> list[str]:
    """Compare the weights at the end of two equal runs and of a resumed run; return a sentence for each that is far off."""
    failures = []
    for name in ALGORITHMS:
        sizes = ("tasks_per_step=4", "eval_episodes=4", "eval_every=0", "save_every=0", "logger=jsonl", f"device={options.device}")
        # Another schedule than `constant` ends at `steps`, which differ before and after the resume.
        outer = ("optimizer=sgd", "optimizer.lr=0.05", "optimizer.schedule=constant")
        config = composed((f"algo={name}", *GLYPHS, *sizes, *outer, f"steps={STEPS}"))
        with tempfile.TemporaryDirectory() as folder:
            ends = [Path(folder) / each for each in ("one", "two", "resumed")]
            train(config, ends[0])
            train(config, ends[1])
            train({**config, "steps": STEPS // 2}, ends[2])
            train({"resume": str(ends[2]), "overrides": {"steps": STEPS}, "groups": {}}, ends[2])
            first, *others = (weights(each) for each in ends)
        initial = initial_weights(config)
        figures = {kind: apart(initial, first, other) for kind, other in zip(("repeated", "resumed"), others, strict=True)}
        failures += [f"{name}: the weights of a {kind} run {words}" for kind, each in figures.items() if (words := too_far(each))]
        told = [f"{kind} run: {'equal bits' if each['equal_bits'] else format(each['of_way'], '.2g')}" for kind, each in figures.items()]
        note(name, {**figures, "told": "; ".join(told)})
    return failures


def apart(initial: dict[str, Tensor], first: dict[str, Tensor], other: dict[str, Tensor]) -> dict[str, Any]:
    """Return how far apart the weights of two runs are, by one norm over all tensors.

    `of_way` is relative to the distance of the first run from the initial weights, and `of_size` to the norm of its weights.
    """
    begun, one, two = (torch.cat([tensors[name].double().flatten().cpu() for name in first]) for tensors in (initial, first, other))
    distance = float((one - two).norm())
    if distance == 0.0:
        return {"equal_bits": True, "of_way": 0.0, "of_size": 0.0}
    way, size = (max(float(vector.norm()), 1e-12) for vector in (one - begun, one))
    return {"equal_bits": False, "of_way": distance / way, "of_size": distance / size}


def too_far(figures: dict[str, Any]) -> str:
    """Return the end of a sentence that says how far apart two runs are, or "" where they are near."""
    return "" if figures["of_way"] <= NEAR else f"differ by {figures['of_way']:.2g} of the way from the initial weights, more than {NEAR}"


def weights(folder: Path) -> dict[str, Tensor]:
    """Return the parameters in the last checkpoint of a run."""
    return checkpoint.load(folder / "checkpoints" / checkpoint.LAST).params


def initial_weights(config: dict[str, Any]) -> dict[str, Tensor]:
    """Return the parameters before the first step of a run."""
    parts = build(config)
    return start(parts, build_settings(parts))[0].params
