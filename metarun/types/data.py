"""Parameters, states, examples and episodes."""

from __future__ import annotations

from collections.abc import Mapping
from typing import Any, NamedTuple, Self

from torch import Tensor

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
