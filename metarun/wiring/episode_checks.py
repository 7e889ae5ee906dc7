"""Checks of the first episodes of a task source: what does not fit the rest of metarun is a sentence before any work."""

from __future__ import annotations

from collections.abc import Mapping
from typing import Any

import torch
from torch import Tensor

from metarun.errors import UserError
from metarun.types import Episode, Examples


def check_episodes(episodes: Mapping[str, Any], name: str) -> None:
    """Raise UserError where an episode has not the form of `metarun.types.Episode`, or where two of them have inputs of different shapes.

    episodes: one of each split. name: of the task source, for messages.
    """
    inputs: torch.Size | None = None
    for split, episode in episodes.items():
        if not (isinstance(episode, Episode) and all(isinstance(part, Examples) for part in episode)):
            raise UserError(f"task {name} deals {type(episode).__name__}; it must deal a metarun.types.Episode of two Examples.")
        for part, examples in episode._asdict().items():
            where = f"task {name}, {part} set of the first episode of split={split}"
            if (problem := _problem(examples)) is not None:
                raise UserError(f"{where}: {problem}.")
            inputs = inputs or examples.x.shape[1:]
            if examples.x.shape[1:] != inputs:
                raise UserError(f"{where}: its inputs have shape {tuple(examples.x.shape[1:])}, and others have {tuple(inputs)}.")
            if examples.y.shape[1] != episode.support.y.shape[1]:
                raise UserError(
                    f"{where}: its y has {examples.y.shape[1]} columns, and that of the support set has {episode.support.y.shape[1]}."
                )


def _problem(examples: Examples) -> str | None:
    """Return what is wrong with a set of examples; None for a good one."""
    x, y, mask = examples[:3]
    for field, value in (("x", x), ("y", y)):
        if not isinstance(value, Tensor):
            return f"{field} has the type {type(value).__name__}, and must be a tensor"
    if x.dim() < 2:
        return f"x has shape {tuple(x.shape)}, and must have an axis of examples and at least one other"
    if y.dim() != 2 or not y.is_floating_point():
        kind = str(y.dtype).removeprefix("torch.")
        return f"y has shape {tuple(y.shape)} and type {kind}, and must be (examples, columns) of floating point, one-hot for classes"
    if len(x) != len(y) or len(x) == 0:
        return f"x has {len(x)} rows and y has {len(y)}; they must have the same number, and at least one"
    if mask is not None and not (isinstance(mask, Tensor) and mask.shape == (len(x),) and mask.dtype is torch.bool):
        return "mask must be None or one bool for each row"
    return None
