"""Members that many algorithms share. A class assigns them in its body: `update_state = track_running`."""

from __future__ import annotations

from collections.abc import Sequence
from typing import Protocol, TypeVar

from torch import Tensor

from metarun.errors import UserError
from metarun.network import Fitted, Network
from metarun.objectives import Objective
from metarun.predictive import averaged
from metarun.types import Examples, Params, State

Result = TypeVar("Result", covariant=True)


class _HasNetwork(Protocol):
    @property
    def network(self) -> Network: ...


class _HasSteps(Protocol):
    @property
    def inner_steps(self) -> int: ...

    @property
    def test_inner_steps(self) -> int | None: ...


class _HasLeastStd(Protocol):
    @property
    def min_std(self) -> float: ...


class _HasTrajectory(Protocol[Result]):
    def trajectory(self, params: Params, state: State, support: Examples, key: Tensor, *, training: bool = False) -> Sequence[Result]: ...


class _HasSamples(Protocol):
    @property
    def objective(self) -> Objective: ...

    def sampled(self, adapted: object, x: Tensor, mask: Tensor | None = None) -> Tensor: ...


def last_of_trajectory(
    self: _HasTrajectory[Result], params: Params, state: State, support: Examples, key: Tensor, *, training: bool = False
) -> Result:
    """Adapt by all inner steps: return the last result of `trajectory`. For `adapt`."""
    return self.trajectory(params, state, support, key, training=training)[-1]


def fitted_outputs(self: _HasNetwork, adapted: Fitted, x: Tensor, mask: Tensor | None = None) -> Tensor:
    """Return the outputs (B, N) or (B, D) of the adapted network on x (B, ...). For `predict`."""
    return self.network.on_query(adapted, x, mask)[0]


def sample_average(self: _HasSamples, adapted: object, x: Tensor, mask: Tensor | None = None) -> Tensor:
    """Return the average over the samples: of the outputs in regression, of the probabilities in classification. For `predict`."""
    return averaged(self.sampled(adapted, x, mask), self.objective.kind)


def track_running(self: _HasNetwork, state: State, aux: dict[str, Tensor]) -> State:
    """Move the running statistics of normalisation towards those of this step's training passes. For `update_state`."""
    return self.network.update_running(state, aux)


def same_state(self: object, state: State, aux: dict[str, Tensor]) -> State:
    """Return the state as it is. For `update_state`."""
    return state


def steps_of(algorithm: _HasSteps, *, training: bool) -> int:
    """Return the number of inner steps: `inner_steps` in training, and `test_inner_steps` elsewhere unless it is None."""
    return algorithm.inner_steps if training or algorithm.test_inner_steps is None else algorithm.test_inner_steps


def check_steps(algorithm: _HasSteps) -> None:
    """Raise UserError where a number of inner steps is negative."""
    if algorithm.inner_steps < 0 or (algorithm.test_inner_steps or 0) < 0:
        raise UserError(
            f"algo.inner_steps={algorithm.inner_steps} and algo.test_inner_steps={algorithm.test_inner_steps} must not be negative."
        )


def check_least(algorithm: object, least: float, *names: str) -> None:
    """Raise UserError where one of these fields is below `least`."""
    for name in names:
        if getattr(algorithm, name) < least:
            raise UserError(f"algo.{name}={getattr(algorithm, name)} must be at least {least}.")


def check_positive(algorithm: object, *names: str) -> None:
    """Raise UserError where one of these fields is not above 0."""
    for name in names:
        if not getattr(algorithm, name) > 0:
            raise UserError(f"algo.{name}={getattr(algorithm, name)} must be above 0.")


def check_not_negative(algorithm: object, *names: str) -> None:
    """Raise UserError where one of these fields is below 0."""
    for name in names:
        if not getattr(algorithm, name) >= 0:
            raise UserError(f"algo.{name}={getattr(algorithm, name)} must not be negative.")


def check_share(algorithm: object, *names: str) -> None:
    """Raise UserError where one of these fields is not in [0, 1]."""
    for name in names:
        if not 0 <= getattr(algorithm, name) <= 1:
            raise UserError(f"algo.{name}={getattr(algorithm, name)} must be a share of the steps, from 0 to 1.")


def check_widths(algorithm: object, *names: str) -> None:
    """Raise UserError where one of these fields is not a list of one or more layers of at least one unit."""
    for name in names:
        widths = getattr(algorithm, name)
        if not widths or min(widths) < 1:
            raise UserError(f"algo.{name}={list(widths)} must be a list of one or more layers of at least 1 unit each.")


def check_std(algorithm: _HasLeastStd) -> None:
    """Raise UserError where the least standard deviation is not in (0, 1)."""
    if not 0.0 < algorithm.min_std < 1.0:
        raise UserError(f"algo.min_std={algorithm.min_std} must be above 0 and below 1.")
