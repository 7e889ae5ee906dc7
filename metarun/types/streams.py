"""A source of trajectories: one long sequence of examples, part after part, that a learner sees once."""

from __future__ import annotations

from collections.abc import Sequence
from typing import NamedTuple, Protocol, runtime_checkable


class Trajectory(NamedTuple):
    """The sizes of a trajectory.

    parts: the classes, or in regression the functions, that follow each other. per_part: examples of each part in the stream.
    held_out: further examples of each part, for the scores. batch: examples of a step.

    The support set of an episode has the rows part after part, `per_part` of each; the query set has `held_out` of each, in the same
    order of parts. In classification column j of y belongs to part j.
    """

    parts: int
    per_part: int
    held_out: int
    batch: int = 1


@runtime_checkable
class WithTrajectories(Protocol):
    """A source whose episodes in "val" and "test" are trajectories."""

    @property
    def lengths(self) -> Sequence[int]:
        """The numbers of parts after which a report gives scores, in rising order."""

    @property
    def trajectories(self) -> int:
        """The number of trajectories of a validation and of a test, where the user gives none."""

    def trajectory(self, split: str) -> Trajectory:
        """Return the sizes of the trajectories of "val" or "test"; UserError for "train", whose episodes have another form."""


def scored_lengths(lengths: Sequence[int], parts: int) -> list[int]:
    """Return the lengths up to the number of parts, and this number, in rising order."""
    return sorted({length for length in lengths if length <= parts} | {parts})
