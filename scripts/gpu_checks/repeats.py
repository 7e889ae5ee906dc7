"""Whether two equal runs, and a stopped run that goes on, end in equal bits on this device. metarun promises this on the CPU only."""

from __future__ import annotations

import tempfile
from pathlib import Path
from typing import Any

from torch import Tensor

from metarun.commands.train import train
from metarun.records import checkpoint

from .configs import GLYPHS, composed
from .parts import Note, Options

ALGORITHMS = ("maml", "protonet", "reptile")
STEPS = 12
NEAR = 1e-2
"""The largest relative difference of the weights that kernels without a fixed order explain after these few steps."""


def repeats(options: Options, note: Note) -> list[str]:
    """Compare the weights at the end of two equal runs and of a resumed run; return a sentence for each that is far off."""
    failures = []
    for name in ALGORITHMS:
        sizes = ("tasks_per_step=4", "eval_episodes=4", "eval_every=0", "save_every=0", "logger=jsonl", f"device={options.device}")
        config = composed((f"algo={name}", *GLYPHS, *sizes, f"steps={STEPS}"))
        with tempfile.TemporaryDirectory() as folder:
            ends = [Path(folder) / each for each in ("one", "two", "resumed")]
            train(config, ends[0])
            train(config, ends[1])
            train({**config, "steps": STEPS // 2}, ends[2])
            train({"resume": str(ends[2]), "overrides": {"steps": STEPS}, "groups": {}}, ends[2])
            first, *others = (weights(each) for each in ends)
        figures: dict[str, Any] = {}
        for kind, other in zip(("repeated", "resumed"), others, strict=True):
            apart = max(float((first[key] - other[key]).norm() / first[key].norm().clamp(min=1e-12)) for key in first)
            figures[kind] = {"equal_bits": all(first[key].equal(other[key]) for key in first), "difference": apart}
            if not apart <= NEAR:
                failures.append(f"{name}: the weights of a {kind} run differ by {apart:.2g} of their size, more than {NEAR:.0e}")
        told = [
            f"{kind} run: {'equal bits' if each['equal_bits'] else format(each['difference'], '.2g')}" for kind, each in figures.items()
        ]
        note(name, {**figures, "told": "; ".join(told)})
    return failures


def weights(folder: Path) -> dict[str, Tensor]:
    """Return the parameters in the last checkpoint of a run."""
    return checkpoint.load(folder / "checkpoints" / checkpoint.LAST).params
