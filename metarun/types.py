"""The central types: what a task is, what an algorithm is, and the legend of axes.

Axes, in every docstring of the project:

    T  tasks (episodes) of a batch          N  ways: classes of an episode
    K  shots: support examples per class    Q  queries: query examples per class
    D  features or targets per example      B  any number of examples

An algorithm is written for ONE task: nothing in it has an axis T. The engine maps it over a batch of tasks.
"""

from __future__ import annotations

from typing import Any, NamedTuple, Protocol, runtime_checkable

from torch import Tensor

from metarun.objectives import Objective

Params = dict[str, Tensor]
"""What the outer loop learns by gradient, by name."""

State = dict[str, Tensor]
"""What is carried from step to step without a gradient: running statistics, inner moments, a memory, a schedule."""

Metrics = dict[str, Tensor]
"""Scalars of one task, by the name under which they are logged."""


class Examples(NamedTuple):
    """Examples of one task.

    x: (B, ...) inputs.
    y: (B, N) one-hot labels in classification, so that the number of ways is part of the shape; (B, D) targets in regression.
    mask: (B,) bool, False where the row is padding; None where no row is. A padded episode gives the same loss,
        gradient and score as the unpadded one.
    """

    x: Tensor
    y: Tensor
    mask: Tensor | None = None


class Episode(NamedTuple):
    """One task: adapt on `support`, be scored on `query`. A batch of episodes is the same type with a leading axis T."""

    support: Examples
    query: Examples


class Aux(NamedTuple):
    """What an algorithm's loss reports beside the tensor that is differentiated.

    metrics: scalars to log; `loss` is the query loss, also where the differentiated tensor is a surrogate.
    state: whatever `update_state` needs, without a gradient.
    """

    metrics: Metrics
    state: dict[str, Tensor]


Adapted = Any
"""What adaptation leaves behind for `predict`: fast weights, prototypes, … A pytree of tensors."""


@runtime_checkable
class Learner(Protocol):
    """What a test asks of an algorithm: to learn a task from its support set, and then to answer. `Algorithm` says the rest."""

    @property
    def objective(self) -> Objective:
        """What is minimised and what is scored."""

    def adapt(self, params: Params, state: State, support: Examples, key: Tensor, *, training: bool = False) -> Adapted:
        """Run the inner loop on one support set; changes none of its arguments."""

    def predict(self, adapted: Adapted, x: Tensor, mask: Tensor | None = None) -> Tensor:
        """Return outputs (B, N) or (B, D) on new inputs x (B, ...); mask (B,) is False on padding rows."""


@runtime_checkable
class Algorithm(Learner, Protocol):
    """What the engine asks of an algorithm: a frozen dataclass of hyperparameters with pure functions. Imitate, do not inherit.

    The dataclass has the field `objective` (a `metarun.objectives.Objective`) and usually `network` (a `metarun.network.Network`),
    which `metarun.wiring.build` fills in; the other fields are the keys of its YAML. `key` is a scalar int64 tensor from which
    `metarun.draws` makes this episode's random numbers.

    Optional members, used where they exist:

    - `head: ClassVar[bool] = True`: whether the network is backbone + linear head (True) or the bare backbone (False).
    - `sequential: ClassVar[bool] = False`: whether it reads examples one after the other, in many small operations (a recurrent network).
    - `adapts_backbone: bool = True`: whether a task may get backbone weights of its own; False where all tasks pass through the same.
    - `training_only: ClassVar[tuple[str, ...]]`: how the names of parameters begin that no test reads, so that they need not fit another task.
    - `objectives: ClassVar[tuple[str, ...]]`: the kinds of objective it can do; without it, all.
    - `trajectory(params, state, support, key) -> list[Adapted]`: before adaptation and after each inner step, for `by_step`.
    - `sampled(adapted, x, mask) -> Tensor`: outputs (S, B, N) or (S, B, D) of several networks for the task, of which `predict` gives the
      average. In regression their mixture is what likelihood, coverage and spread are of (`metarun.predictive`).
    - `by_presentation(params, state, episode, key) -> (Tensor, Tensor)`: for the n-th presentation of a class in the episode read as one
      sequence, how many were named rightly (P,) and how many there were (P,).
    - `train_classes: int`, a field: how many classes the training labels number, filled in for methods that learn them all at once.
    - `choose(params, state, score) -> State`: set what is chosen on validation episodes; `score(state)` gives the
      validation score (higher is better) by number of inner steps. Called once, before the last validation of a run.
    """

    def init(self, key: Tensor) -> tuple[Params, State]:
        """Return the initial meta-parameters and state."""

    def loss(self, params: Params, state: State, episode: Episode, key: Tensor, step: Tensor) -> tuple[Tensor, Aux]:
        """Return the scalar that the outer loop differentiates, usually: adapt on support, score on query."""

    def update_state(self, state: State, aux: dict[str, Tensor]) -> State:
        """Return the next state from `Aux.state` of the whole batch (leading axis T, in episode order); once per outer step."""


@runtime_checkable
class TaskSource(Protocol):
    """Where episodes come from. Episode n of a split under a seed is always the same episode.

    Optional, for speed: `batch(split, indices) -> Episode` deals several at once (leading axis T); `to(device) -> TaskSource` gives the
    same source with its data on a device, where its episodes then are.
    """

    @property
    def objective(self) -> str:
        """The kind of it: "classification" or "regression"."""

    def episode(self, split: str, index: int) -> Episode:
        """Deal episode number `index` of "train", "val" or "test": a pure function of the source's seeds and these two."""
