"""The table of measurements. A new line in `rows` is a new row in every report.

This module imports no torch, because the process that starts the measurements must stay small (see `__main__`).
"""

from __future__ import annotations

import os
from dataclasses import dataclass
from pathlib import Path

SINUSOID = ("experiment=sinusoid_maml",)
SINUSOID_VARIANTS = ("metarun, eager", "metarun, compiled")
"""Other rows keep metarun's default: compiling the step of a convolutional network took minutes and made the step no faster."""
CARRIED = 0.02
"""The effect of rounding on the loss after five inner steps with max-pooling. Half of 64 tasks are within 2e-6 of float64, for the plain
loop and for metarun. Single tasks differ by 4e-4 (plain loop) and 2e-2 (metarun), so the mean over 32 differs by 8e-4 and its gradient by
4e-2."""
TASK_COUNTS = (8, 32, 128, 256)
STEP_COUNTS = (1, 5, 10, 20)
FAMILIES = {
    "Meta-SGD": ("algo=metasgd",),
    "MAML++, 2 inner steps": ("algo=mamlpp", "algo.inner_steps=2"),
    "iMAML, 3 inner steps": ("algo=imaml", "algo.inner_steps=3", "algo.cg_steps=2"),
    "GBML, LSTM": ("algo=gbml", "algo/update=lstm"),
    "ANIL": ("algo=anil",),
    "Reptile": ("algo=reptile", "task.train_shots=10", "task.train_queries=1"),
    "Matching Networks": ("algo=matching",),
    "R2-D2": ("algo=r2d2",),
    "memory of past tasks": ("algo=memory",),
    "MANN": ("algo=mann",),
    "PLATIPUS": ("algo=pmaml",),
    "meta-learned prior, 2 inner steps": ("algo=metaprior", "algo.inner_steps=2"),
    "fine-tuning": ("algo=finetune",),
}
"""Overrides by name. The other keys keep the defaults of `configs/algo`, except for fewer inner steps where recording takes long."""
STREAM = (
    "task=stream",
    "task.val_classes=100",
    "backbone=conv3",
    "backbone.filters=64",
    "backbone.strides=[2,2,1]",
    "backbone.pools=[1,1,1]",
)


@dataclass(frozen=True)
class Row:
    """One line of the report.

    section: its letter. name: of the line. measure: a function of `benchmarks.measure`, or "startup". overrides: of `metarun train`.
    contenders: variants of metarun (`benchmarks.variants`), in addition to the loops of the algorithm. A memory row lists all, and each
    runs in its own process.
    episodes: of an evaluation. rounding: as in `benchmarks.agreement.check_gradients`.
    """

    section: str
    name: str
    measure: str
    overrides: tuple[str, ...] = ()
    contenders: tuple[str, ...] = ("metarun",)
    episodes: int = 600
    rounding: float = 0.0


def data_name() -> str:
    """Return the name of the image data: Omniglot if METARUN_DATA has it, else the built-in letters."""
    folder = os.environ.get("METARUN_DATA")
    return "omniglot" if folder and (Path(folder) / "omniglot").is_dir() else "glyphs"


def sections() -> dict[str, str]:
    """Return the headings by letter, in order."""
    images = "Omniglot" if data_name() == "omniglot" else "glyphs (METARUN_DATA has no omniglot/)"
    maml = f"{images}, conv4-64, MAML 5-way 1-shot, 15 queries, 32 tasks a step"
    return {
        "a": "Sinusoid MAML, 25 tasks a step, K=10, second order: one outer step. Plain loop on the reference machine: 14-16 ms",
        "b": f"{maml}, second order: one outer step. Plain loop on the reference machine: 0.64-0.74 s (1 inner step)",
        "c": f"{maml}, first order: one outer step",
        "d": f"{images}, conv4-64, ProtoNet, 60-way 1-shot, 5 queries, 1 task a step: one outer step",
        "e": "Evaluation on 600 episodes: last inner step; metarun also each (by_step=all) and 0, 1, 2, 5, 10 (by_step=thin)",
        "f": "Dealing 32 training episodes at once; the share of an outer step that waits for episodes, or that dealing in advance saves",
        "g": f"Peak memory beyond the imports, {images}, conv4-64 (stride), MAML second order, device.task_chunk=4",
        "h": "Start-up, as wall time of the whole command",
        "i": "Families: glyphs, conv4-64, 5-way 1-shot, 5 queries, 8 tasks a step: one outer step; the loop calls the same loss",
        "j": f"{maml}, second order: one outer step, divided among two processes",
        "k": f"A stream of 100 classes of {images}, conv3-64 with strides, Adam: one trajectory, with the scores after each class",
    }


def rows(*, quick: bool = False) -> list[Row]:
    """Return every row, in the order of the report; `quick` makes the rows small enough for a test."""
    maml, fomaml = (images("omniglot_5w1s_maml", "task.train_queries=15", f"algo={algo}") for algo in ("maml", "fomaml"))
    protonet = images("omniglot_5w1s_protonet")
    table = [Row("a", steps_name(steps), "step", (*SINUSOID, f"algo.inner_steps={steps}"), SINUSOID_VARIANTS) for steps in (1, 5)]
    for section, base in (("b", maml), ("c", fomaml)):
        for pooling in ("stride", "max"):
            settings = ("tasks_per_step=32", f"backbone.pooling={pooling}")
            for steps, rounding in ((1, 0.0), (5, CARRIED if pooling == "max" else 0.0)):
                words = (*base, *settings, f"algo.inner_steps={steps}")
                table.append(Row(section, f"{pooling}, {steps_name(steps)}", "step", words, rounding=rounding))
    table += [
        Row("d", "60-way", "step", (*protonet, "task.train_ways=60", "task.train_queries=5")),
        Row("e", "ProtoNet 5-way 1-shot, 15 queries", "evaluation", protonet),
        Row("e", "MAML 5-way 1-shot, 15 queries, 10 inner steps", "evaluation", (*maml, "algo.test_inner_steps=10")),
        Row("e", "sinusoid MAML, 10 inner steps", "evaluation", (*SINUSOID, "algo.test_inner_steps=10")),
        Row("f", "sinusoid", "dealing", SINUSOID),
        Row("f", f"{data_name()} 5-way 1-shot, 15 queries", "dealing", (*maml, "tasks_per_step=32")),
    ]
    memory = (*maml, "backbone.pooling=stride", "device.task_chunk=4")
    for tasks in TASK_COUNTS:
        table.append(Row("g", f"{tasks} tasks a step", "memory", (*memory, f"tasks_per_step={tasks}"), ("plain loop", "metarun")))
    for steps in STEP_COUNTS:
        settings = ("tasks_per_step=8", f"algo.inner_steps={steps}")
        table.append(Row("g", steps_name(steps), "memory", (*memory, *settings), ("plain loop", "metarun", "metarun, recomputing")))
    table.append(Row("h", "commands", "startup"))
    episodes = ("task=glyphs", "task.train_ways=5", "task.train_shots=1", "task.train_queries=5", "tasks_per_step=8")
    table += [Row("i", name, "family", (*episodes, *overrides)) for name, overrides in FAMILIES.items()]
    strides = (*maml, "tasks_per_step=32", "backbone.pooling=stride", "device.threads=2")
    table.append(Row("j", steps_name(1), "processes", (*strides, "algo.inner_steps=1"), ()))
    stream = (*STREAM, f"task/source={data_name()}")
    table += [
        Row("k", "the output layer learns", "stream", (*stream, "algo=online"), ()),
        Row("k", "the whole network learns", "stream", (*stream, "algo=online_scratch"), ()),
    ]
    return [shrunk(row) for row in table] if quick else table


def images(experiment: str, *overrides: str) -> tuple[str, ...]:
    """Return the overrides of an Omniglot experiment, on the built-in letters if METARUN_DATA has no Omniglot."""
    stand_in = () if data_name() == "omniglot" else ("task=glyphs", "~task.split")
    return (f"experiment={experiment}", *stand_in, *overrides)


def steps_name(steps: int) -> str:
    """Return "1 inner step" or "5 inner steps"."""
    return f"{steps} inner step{'' if steps == 1 else 's'}"


def shrunk(row: Row) -> Row:
    """Return the row with two tasks a step, a narrow convolutional network, five classes in a stream, and no compiler."""
    small = ("device.compile=false", "tasks_per_step=2") if SINUSOID[0] in row.overrides else ("tasks_per_step=2", "backbone.filters=4")
    shorter = ("task.val_classes=5",) if row.measure == "stream" else ()
    contenders = tuple(name for name in row.contenders if name != "metarun, compiled")
    return Row(row.section, row.name, row.measure, (*row.overrides, *small, *shorter), contenders, 16, row.rounding)
