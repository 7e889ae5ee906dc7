"""What a source of tasks is, and the optional members of one."""

from __future__ import annotations

from collections.abc import Mapping, Sequence
from typing import Protocol, runtime_checkable

from torch import Tensor

from metarun.types.data import Episode


@runtime_checkable
class TaskSource(Protocol):
    """A source of episodes. Episode n of a split under a seed is always the same episode."""

    @property
    def objective(self) -> str:
        """The kind of task: "classification" or "regression"."""

    def episode(self, split: str, index: int) -> Episode:
        """Deal episode `index` of "train", "val" or "test". The source's seeds and these two arguments determine the episode."""


@runtime_checkable
class WithBatches(Protocol):
    """A source that deals several episodes at once, for speed."""

    def batch(self, split: str, indices: Tensor) -> Episode:
        """Deal the episodes `indices` (T,), with a leading axis T."""


@runtime_checkable
class WithDevice(Protocol):
    """A source that can hold its data and deal its episodes on a device."""

    def to(self, device: str) -> TaskSource:
        """Return the same source with its data on the device."""


@runtime_checkable
class WithTrainLabels(Protocol):
    """A source of classes. A training label is an index among the classes of the "episode", or among all training classes ("global")."""

    @property
    def train_labels(self) -> str: ...


@runtime_checkable
class WithOrigins(Protocol):
    """A source whose episodes come from the classes or tasks of a data set, so that a test on training classes can be refused."""

    def origins(self, split: str) -> Sequence[str]:
        """Return the names of the classes or tasks of a split, each once. A name begins with its data set: "omniglot/Greek/character01".

        A turned or otherwise changed copy of a class has the name of its original.
        """

    def population(self, split: str) -> int | None:
        """Return the number of classes or tasks from which the episodes of a split are drawn; None where it is unknown."""


@runtime_checkable
class WithClassNumbers(Protocol):
    """A source of classes that can tell in which episodes the same class occurs."""

    def numbered(self) -> TaskSource:
        """Return the same source, with class numbers in its episodes (`Examples.classes`)."""


@runtime_checkable
class WithUnits(Protocol):
    """A source of regression with standardised targets, whose errors can be told in the targets' own units."""

    def units(self) -> Mapping[str, float]:
        """Return target -> the size of one standardised unit in its own unit, in the order of the columns of y."""


@runtime_checkable
class WithCurve(Protocol):
    """A source that knows the true function of each task, so that metarun can draw it."""

    def curve(self, split: str, index: int, x: Tensor) -> Tensor:
        """Return the true function of an episode at x (B, D)."""
