"""The central types: a task, an algorithm, a source of tasks, and the legend of axes.

Axes, in every docstring of the project:

    T  tasks (episodes) of a batch          N  ways: classes of an episode
    K  shots: support examples per class    Q  queries: query examples per class
    D  features or targets per example      B  any number of examples

An algorithm is written for ONE task: no tensor in its code has an axis T. The engine maps the algorithm over a batch of tasks.
"""

from __future__ import annotations

from collections.abc import Callable, Mapping, Sequence
from dataclasses import dataclass
from typing import Any, NamedTuple, Protocol, Self, runtime_checkable

from torch import Tensor

from metarun.objectives import Objective
from metarun.predictive import Predictive

Params = dict[str, Tensor]
"""Meta-parameters by name: the tensors that the outer loop learns by gradient."""

State = dict[str, Tensor]
"""Tensors by name that one outer step passes to the next without a gradient: running statistics, inner moments, a memory, a schedule."""

Metrics = dict[str, Tensor]
"""Scalars of one task, by the name under which they are logged."""


def part_of(tensors: Mapping[str, Tensor], prefix: str) -> dict[str, Tensor]:
    """Return the tensors whose names begin with `prefix`, under their names without the prefix."""
    return {name.removeprefix(prefix): value for name, value in tensors.items() if name.startswith(prefix)}


def prefixed(prefix: str, tensors: Mapping[str, Tensor]) -> dict[str, Tensor]:
    """Return the tensors with `prefix` before each name."""
    return {prefix + name: value for name, value in tensors.items()}


def constant(tensors: Mapping[str, Tensor]) -> dict[str, Tensor]:
    """Return the tensors as constants: no gradient flows through them."""
    return {name: value.detach() for name, value in tensors.items()}


class Examples(NamedTuple):
    """Examples of one task.

    x: (B, ...) inputs.
    y: (B, N) one-hot labels in classification, so that the number of ways is part of the shape; (B, D) targets in regression.
    mask: (B,) bool, False where the row is padding; None where no row is padding. A padded episode gives the same loss,
        gradient and score as the unpadded one.
    classes: (N,) int64, the number of the class behind each column of y; -1 for a class without a number. A class has the same number in
        every episode. None in regression, and wherever the algorithm does not ask for class numbers (`Traits.class_numbers`).
    """

    x: Tensor
    y: Tensor
    mask: Tensor | None = None
    classes: Tensor | None = None


class Episode(NamedTuple):
    """One task: adapt on `support`, be scored on `query`. A batch of episodes is the same type with a leading axis T."""

    support: Examples
    query: Examples


class Aux(NamedTuple):
    """The report that `loss` returns beside the tensor that the outer loop differentiates. Its tensors have no gradient.

    metrics: scalars to log. `loss` is the query loss, even where the outer loop differentiates a surrogate.
    state: the tensors that `update_state` needs.
    """

    metrics: Metrics
    state: dict[str, Tensor]

    @classmethod
    def of(cls, metrics: Mapping[str, Tensor], state: Mapping[str, Tensor]) -> Self:
        """Return the report of these metrics and this state, without their gradients."""
        return cls(constant(metrics), constant(state))


Adapted = Any
"""The result of adaptation and the input of `predict`: fast weights, prototypes, … A pytree of tensors."""


@dataclass(frozen=True)
class Traits:
    """Facts that metarun needs before it builds or runs an algorithm, in its class: `traits: ClassVar[Traits] = Traits(head=False)`.

    head: the network is backbone + linear head (True), or the bare backbone (False).
    sequential: the algorithm reads examples one after the other in many small operations, as a recurrent network does.
    adapts_backbone: True where a task may get backbone weights of its own, False where all tasks share them. A string names the
        boolean field of the algorithm that decides.
    learns_all_classes: a training label is an index among all training classes. metarun passes the count of these classes as the
        argument `train_classes`.
    class_numbers: in classification, the algorithm reads `Examples.classes`.
    takes_sizes: the algorithm makes its own network. metarun passes the number of inputs and the number of outputs (columns of y) as the
        arguments `inputs` and `outputs`.
    training_only: name prefixes of training-only parameters. An evaluation does not check the shapes of these parameters.
    objectives: the kinds of task that the algorithm can do.
    """

    head: bool = True
    sequential: bool = False
    adapts_backbone: bool | str = True
    learns_all_classes: bool = False
    class_numbers: bool = False
    takes_sizes: bool = False
    training_only: tuple[str, ...] = ()
    objectives: tuple[str, ...] = ("classification", "regression")


def traits_of(algorithm: object) -> Traits:
    """Return the traits of an algorithm or of its class; the default traits where the class declares none."""
    traits: Traits = getattr(algorithm, "traits", Traits())
    return traits


def adapts_backbone(algorithm: object) -> bool:
    """Return whether this algorithm, with these options, may give a task backbone weights of its own."""
    answer = traits_of(algorithm).adapts_backbone
    return bool(getattr(algorithm, answer)) if isinstance(answer, str) else answer


@runtime_checkable
class Learner(Protocol):
    """The part of an `Algorithm` that evaluation uses: adapt to a support set, then predict for queries."""

    @property
    def objective(self) -> Objective:
        """The loss to minimise and the score to report."""

    def adapt(self, params: Params, state: State, support: Examples, key: Tensor, *, training: bool = False) -> Adapted:
        """Run the inner loop on one support set, without changing an argument."""

    def predict(self, adapted: Adapted, x: Tensor, mask: Tensor | None = None) -> Tensor:
        """Return outputs (B, N) or (B, D) on new inputs x (B, ...); mask (B,) is False on padding rows."""


@runtime_checkable
class Algorithm(Learner, Protocol):
    """An algorithm: a frozen dataclass of hyperparameters with pure functions. Write the same members; do not inherit.

    The dataclass has the field `objective` (a `metarun.objectives.Objective`) and usually `network` (a `metarun.network.Network`).
    `metarun.wiring.build` fills both in; the other fields are the keys of the algorithm's YAML file. `key` is a scalar int64 tensor
    from which `metarun.draws` makes this episode's random numbers.

    Optional members: `traits` (see `Traits`), and the method of each Protocol in `OPTIONAL_MEMBERS`.
    """

    def init(self, key: Tensor) -> tuple[Params, State]:
        """Return the initial meta-parameters and state."""

    def loss(self, params: Params, state: State, episode: Episode, key: Tensor, step: Tensor) -> tuple[Tensor, Aux]:
        """Return the scalar that the outer loop differentiates, usually the query loss after adaptation on support, and a report."""

    def update_state(self, state: State, aux: dict[str, Tensor]) -> State:
        """Return the next state. The engine calls this method once per outer step.

        aux: `Aux.state` of the whole batch, with a leading axis T, in episode order.
        """


@runtime_checkable
class WithTrajectory(Protocol):
    """An algorithm that shows each inner step, so that a report can score them all (`by_step`)."""

    def trajectory(self, params: Params, state: State, support: Examples, key: Tensor) -> list[Adapted]:
        """Return the result before adaptation and after each inner step; the last equals the result of `adapt`."""


@runtime_checkable
class WithSamples(Protocol):
    """An algorithm that samples several networks for a task.

    In regression, likelihood, coverage and spread describe the mixture of the samples (`metarun.predictive`).
    """

    def sampled(self, adapted: Adapted, x: Tensor, mask: Tensor | None = None) -> Tensor:
        """Return the outputs (S, B, N) or (S, B, D) of S samples; `predict` returns their average."""


@runtime_checkable
class WithDistribution(Protocol):
    """An algorithm of regression with a predictive distribution of its own, which includes the noise of the observations.

    Without `sampled`, likelihood, coverage and spread describe this distribution. With `sampled`, only `own_nll` does.
    """

    def distribution(self, adapted: Adapted, x: Tensor, mask: Tensor | None = None) -> Predictive:
        """Return the distribution of the targets (B, D) at x (B, ...); its mean is the output of `predict`."""


@runtime_checkable
class WithPresentations(Protocol):
    """An algorithm that reads an episode as one sequence."""

    def by_presentation(self, params: Params, state: State, episode: Episode, key: Tensor) -> tuple[Tensor, Tensor]:
        """Return the numbers of right answers (P,) and of all answers (P,); entry n - 1 counts the n-th presentation of each class."""


@runtime_checkable
class WithChoice(Protocol):
    """An algorithm that chooses hyperparameters on validation episodes, at every validation of a run."""

    def choose(self, params: Params, state: State, score: Callable[[State], dict[int, float]]) -> State:
        """Return the state with the choice; `score(state)` gives a score for each inner step, and a higher score is better."""


@runtime_checkable
class WithInnerSteps(Protocol):
    """An algorithm with the field `inner_steps`, the number in training. metarun estimates the work of a task from this number."""

    @property
    def inner_steps(self) -> int: ...


OPTIONAL_MEMBERS = (WithTrajectory, WithSamples, WithDistribution, WithPresentations, WithChoice)
"""Each of these Protocols describes one method that an algorithm may have."""


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
