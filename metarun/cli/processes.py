"""A command that a launcher has started N times: divide the work, let the first process alone do it, or refuse."""

from __future__ import annotations

from collections.abc import Callable, Sequence

from metarun.errors import UserError
from metarun.processes.joining import run_together
from metarun.processes.launch import launched

DIVIDED = ("train", "eval", "reproduce")
"""The commands whose work the processes divide."""


def run(name: str, command: Callable[[list[str]], int], words: list[str], told: Callable[[BaseException], int]) -> int:
    """Run the command `name` with its words and return the exit code, in this process alone or as one of several.

    The first process alone runs a command that only asks for a text. told: as in `run_together`.
    Raises UserError for a sweep in several processes.
    """
    place = launched()
    if place is None:
        return command(words)
    if name not in DIVIDED or inspects(words):
        return command(words) if place.rank == 0 else 0
    if is_sweep(words):
        if place.rank > 0:
            return 0  # a launcher ends the first process, which tells the user, as soon as another one fails
        raise UserError(
            f"a sweep runs many trainings, and {place.size} processes divide one; start the sweep without torchrun, or leave out -m."
        )
    return run_together(place, lambda: command(words), told)


def is_left_to_first(name: str) -> bool:
    """Return whether this process leaves a command to the first process, since nothing in its work can be divided."""
    return name not in DIVIDED and is_later()


def is_later() -> bool:
    """Return whether this process is one of several, but not the first one."""
    place = launched()
    return place is not None and place.rank > 0


def inspects(words: Sequence[str]) -> bool:
    """Return whether the words of a command only ask for a text."""
    from metarun.cli.arguments import INSPECTING

    return any(word.partition("=")[0] in INSPECTING for word in words)


def is_sweep(words: Sequence[str]) -> bool:
    """Return whether the words of a command ask for a sweep."""
    from metarun.cli.arguments import sweeps

    return sweeps(list(words)) or any(word.lstrip("+").startswith("hydra.mode=MULTIRUN") for word in words)
