"""Checks of tensors: those that a checkpoint can hold, and those of a checkpoint beside the ones that its config needs."""

from __future__ import annotations

from collections.abc import Mapping, Sequence
from typing import Any

import torch
from torch import Tensor

from metarun.errors import UserError, printable
from metarun.records.content import Copier


def check_tensors(stored: Mapping[str, Tensor], expected: Mapping[str, Tensor], kind: str) -> None:
    """Raise UserError where an expected tensor is missing, or has another shape or type in the checkpoint. kind: "parameter" or "state"."""
    for name, value in expected.items():
        if name not in stored:
            raise UserError(f"the checkpoint has no {kind} '{name}', which its config needs; take another checkpoint.")
        check_shape(name, stored[name], value)
        check_type(name, stored[name], value)


def check_storable(tensors: Mapping[str, Any], owner: str) -> None:
    """Raise UserError for a value that is no tensor, or a tensor that no checkpoint holds. owner: such as "backbone mine.Net"."""
    for name, value in tensors.items():
        if not isinstance(value, Tensor):
            raise UserError(f"{owner}: its '{name}' has the type {type(value).__name__}, and must be a tensor.")
        try:
            Copier()(value, f"{owner}: its tensor '{name}'")
        except TypeError as error:
            raise UserError(f"{error}; keep it as a dense tensor of real numbers.") from error


def is_alike(stored: Tensor, expected: Tensor) -> bool:
    """Return whether shape and type agree."""
    return stored.shape == expected.shape and stored.dtype == expected.dtype


def are_close(mine: Sequence[Tensor], theirs: Sequence[Tensor], tolerance: float) -> bool:
    """Return whether two lists of tensors are equal, but for rounding. NaN equals NaN.

    tolerance: the largest difference of two equal values, as a share of the largest value in `theirs`.
    """
    mine, theirs = ([value.detach().double() for value in values] for values in (mine, theirs))
    largest = max((float(value.nan_to_num().abs().max()) for value in theirs if value.numel()), default=0.0)
    return len(mine) == len(theirs) and all(
        a.shape == b.shape and torch.allclose(a, b, rtol=0.0, atol=tolerance * largest, equal_nan=True)
        for a, b in zip(mine, theirs, strict=True)
    )


def check_shape(name: str, stored: Tensor, expected: Tensor) -> None:
    """Raise UserError where the shapes differ."""
    if stored.shape != expected.shape:
        was, now = tuple(stored.shape), tuple(expected.shape)
        raise UserError(f"the checkpoint's '{name}' has shape {was} and its config needs {now}; take another checkpoint.")


def check_type(name: str, stored: Tensor, expected: Tensor) -> None:
    """Raise UserError where the types of the numbers differ."""
    if stored.dtype != expected.dtype:
        was, now = (str(value.dtype).removeprefix("torch.") for value in (stored, expected))
        raise UserError(f"the checkpoint's '{name}' holds {was} and its config needs {now}; take another checkpoint.")


def check_no_others(stored: Mapping[str, Tensor], expected: Mapping[str, Tensor], kind: str) -> None:
    """Raise UserError where the checkpoint has a tensor that its config does not need."""
    if others := sorted(stored.keys() - expected.keys()):
        raise UserError(f"the checkpoint has the {kind} '{printable(others[0])}', which its config does not need; take another checkpoint.")
