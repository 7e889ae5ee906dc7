"""Compare the tensors of a checkpoint with those that its config needs, before any kernel reads them."""

from __future__ import annotations

from collections.abc import Mapping

from torch import Tensor

from metarun.errors import UserError, printable


def check_tensors(stored: Mapping[str, Tensor], expected: Mapping[str, Tensor], kind: str) -> None:
    """Raise UserError where an expected tensor is missing, or has another shape or type in the checkpoint. kind: "parameter" or "state"."""
    for name, value in expected.items():
        if name not in stored:
            raise UserError(f"the checkpoint has no {kind} '{name}', which its config needs; take another checkpoint.")
        check_shape(name, stored[name], value)
        check_type(name, stored[name], value)


def is_alike(stored: Tensor, expected: Tensor) -> bool:
    """Return whether shape and type agree."""
    return stored.shape == expected.shape and stored.dtype == expected.dtype


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
