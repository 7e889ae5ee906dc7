"""The parts of the check: first those that compare results, all at once, then those that measure time.

A part is a function of `Options` and `Note` in the module of its `place`.
This module imports no torch, since the process that starts the parts must stay light.
"""

from __future__ import annotations

from collections.abc import Callable
from dataclasses import dataclass
from typing import Any


@dataclass(frozen=True)
class Options:
    """device: "cuda" or "cpu". small: sizes for a CPU. rounds: turns of each contender. seconds: the approximate length of a turn."""

    device: str
    small: bool
    rounds: int
    seconds: float


Note = Callable[[str, Any], None]
"""Writes a named result of a part at once, so that a part that is ended keeps what it has."""


@dataclass(frozen=True)
class Part:
    """name: of the part. place: "module:function", or "module:function:argument". needs: seconds on a GPU, about. title: for a person.

    together: whether the part may run beside its neighbours, since it measures no time.
    """

    name: str
    place: str
    needs: float
    title: str
    together: bool = False


SHARDS = 4
"""Processes that share the algorithms of `agreement`."""

PARTS = (
    Part("machine", "machine:machine", 15, "versions and the device; the pictures of the tasks"),
    Part("beside", "steps:beside", 40, "gradients beside the plain loop's in float64", together=True),
    Part("repeats", "repeats:repeats", 40, "equal bits of equal and of resumed runs", together=True),
    Part("tests", "suite:suite", 60, "the tests that need a CUDA device", together=True),
    *(
        Part(
            f"agreement{number}",
            f"agreement:agreement:{number}",
            60,
            f"loss, gradient and score against the CPU, {number + 1} of {SHARDS}",
            True,
        )
        for number in range(SHARDS)
    ),
    Part("maml", "steps:steps:maml", 50, "a step of MAML beside the plain loop"),
    Part("protonet", "steps:steps:protonet", 25, "a step of ProtoNet beside the plain loop"),
    Part("reptile", "steps:steps:reptile", 40, "a step of Reptile beside the plain loop"),
    Part("compiled", "steps:compiled", 40, "a step with torch's compiler"),
)
