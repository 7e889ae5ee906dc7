"""What an algorithm is: its members, the optional ones, and the facts that it declares."""

from __future__ import annotations

from collections.abc import Callable
from dataclasses import dataclass
from typing import Protocol, runtime_checkable

from torch import Tensor

from metarun.objectives import Objective
from metarun.predictive import Predictive
from metarun.types.data import Adapted, Aux, Episode, Examples, Params, State


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
class WithStream(Protocol):
    """An algorithm that learns from a stream: the engine gives it one example after the other, and it answers at any time.

    The engine calls `start` once, then `learn` with each example in order. Between two calls it keeps no gradient. An algorithm has all
    four methods or none of them. `learn` may overwrite the learner that it is given, and the engine reads only the new one. Apart from
    this, each of them is pure, as `adapt` is.
    """

    def start(self, params: Params, state: State, outputs: int, key: Tensor) -> Adapted:
        """Return the learner before the first example, with `outputs` columns of y. In classification no column has a class yet."""

    def features(self, params: Params, state: State, x: Tensor) -> Tensor:
        """Return the part of the computation that the stream does not change, (B, ...) -> (B, F); x itself where everything learns.

        The engine computes the features once, in blocks. Rows do not depend on one another.
        """

    def learn(self, adapted: Adapted, features: Tensor, y: Tensor, key: Tensor) -> Adapted:
        """Return the learner after one step on the next example or examples: features (B, F), y (B, N) or (B, D), usually with B = 1.

        key: of this step, for random draws.
        """

    def answer(self, adapted: Adapted, features: Tensor) -> Tensor:
        """Return the outputs (B, N) or (B, D) of the learner as it is now, for features (B, F)."""


@runtime_checkable
class WithAdaptInPlace(Protocol):
    """An algorithm whose long adaptation to a single task is faster with steps that overwrite tensors."""

    def adapt_in_place(self, params: Params, state: State, support: Examples, key: Tensor) -> Adapted:
        """Return what `adapt` returns outside of training, up to rounding, without changing an argument.

        The engine calls it for trajectories, one task at a time, and neither records nor maps it.
        """


@runtime_checkable
class WithInnerSteps(Protocol):
    """An algorithm with the field `inner_steps`, the number in training. metarun estimates the work of a task from this number."""

    @property
    def inner_steps(self) -> int: ...


OPTIONAL_MEMBERS = (WithTrajectory, WithSamples, WithDistribution, WithPresentations, WithChoice, WithStream, WithAdaptInPlace)
"""Each of these Protocols describes one method that an algorithm may have, and `WithStream` four of them."""
