"""A loss or a gradient that is not finite: where it arose, as far as one can tell."""

from __future__ import annotations

import math
from collections.abc import Mapping
from typing import Any

import torch
from torch import Tensor

from metarun.errors import NotFiniteError
from metarun.types import Algorithm, Episode, Params, State, WithTrajectory


def where_diverged(algorithm: Algorithm, params: Params, state: State, episode: Episode, key: Tensor) -> str:
    """Return the place of a loss that is not finite: an inner step, or the query loss; "" for an algorithm without inner steps."""
    if not isinstance(algorithm, WithTrajectory):
        return ""
    support, query = episode
    with torch.no_grad():
        path = algorithm.trajectory(params, state, support, key)
        finite = [bool(algorithm.predict(adapted, query.x, query.mask).isfinite().all()) for adapted in path]
    return f" after inner step {finite.index(False)}" if False in finite else " in the query loss"


def check_window(window: Mapping[str, Any], step: int) -> None:
    """Raise NotFiniteError where the loss or the gradient norm since the last log line is not finite."""
    for name in ("loss", "gradient_norm"):
        if name in window and not math.isfinite(window[name]):
            first = step - window["steps"] + 1
            raise NotFiniteError(f"the {name.replace('_', ' ')} is not finite in steps {first} to {step}; the last checkpoint is kept.")
