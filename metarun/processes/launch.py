"""The environment variables by which a launcher, such as torchrun, tells a process its place among the processes of one command."""

from __future__ import annotations

import os
from collections.abc import Mapping
from dataclasses import dataclass

from metarun.errors import UserError

NEEDED = ("RANK", "WORLD_SIZE", "MASTER_ADDR", "MASTER_PORT")


@dataclass(frozen=True)
class Place:
    """The place of a process among the `size` processes of one command.

    rank: its number, from 0. local_rank, local_size: its number among the processes of its machine, and their number.
    address, port: of the store through which the processes find each other. hosted: whether the launcher runs this store; if not, the first
    process does. attempt: how many times the launcher has started the processes anew.
    """

    rank: int
    size: int
    local_rank: int
    local_size: int
    address: str
    port: int
    hosted: bool = False
    attempt: int = 0

    @property
    def serves(self) -> bool:
        """Whether this process runs the store."""
        return self.rank == 0 and not self.hosted


def launched(environment: Mapping[str, str] = os.environ) -> Place | None:
    """Return the place of this process; None where it runs alone.

    Raises UserError for numbers that do not fit each other. Without LOCAL_RANK and LOCAL_WORLD_SIZE, which torchrun sets, all processes
    are on one machine.
    """
    if not all(environment.get(name) for name in NEEDED) or environment["WORLD_SIZE"] == "1":
        return None
    rank, size, port = (_whole(environment, name) for name in ("RANK", "WORLD_SIZE", "MASTER_PORT"))
    local_rank, local_size = _whole(environment, "LOCAL_RANK", rank), _whole(environment, "LOCAL_WORLD_SIZE", size)
    if not (rank < size and local_rank < local_size <= size):
        raise UserError(
            f"RANK={rank} of WORLD_SIZE={size} and LOCAL_RANK={local_rank} of LOCAL_WORLD_SIZE={local_size} do not fit each other; "
            "start the processes with torchrun, which sets these variables."
        )
    hosted = environment.get("TORCHELASTIC_USE_AGENT_STORE") == "True"
    attempt = _whole(environment, "TORCHELASTIC_RESTART_COUNT", 0)
    return Place(rank, size, local_rank, local_size, environment["MASTER_ADDR"], port, hosted, attempt)


def _whole(environment: Mapping[str, str], name: str, default: int | None = None) -> int:
    text = environment.get(name)
    if text is None and default is not None:
        return default
    if text is None or not (text.isascii() and text.isdecimal()):
        raise UserError(f"the environment variable {name}={text} must be a whole number; torchrun sets it.")
    return int(text)
