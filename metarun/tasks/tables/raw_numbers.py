"""Numbers of a user's, in any of the usual forms, as tensors."""

from __future__ import annotations

from typing import Any

import numpy as np
import torch
from torch import Tensor

from metarun.errors import UserError


def numbers_of(values: Any, name: str) -> Tensor:
    """Return an array, a tensor or nested lists of numbers as a float64 tensor; UserError for other values and for NaN or infinity."""
    try:
        tensor = values.detach().cpu() if isinstance(values, Tensor) else torch.from_numpy(np.array(values))
        tensor = tensor.to(torch.float64)
    except (TypeError, ValueError, RuntimeError):
        raise UserError(f"{name} must be numbers: an array, a tensor, or lists of equal lengths.") from None
    if not tensor.dim():
        raise UserError(f"{name} is one number; it must have an axis of examples.")
    if not tensor.isfinite().all():
        place = int((~tensor.isfinite()).reshape(len(tensor), -1).any(dim=1).nonzero()[0])
        raise UserError(f"{name} has a value that is no finite number, in example {place}; fill it in or leave the example out.")
    return tensor


def rows_of(y: Any, columns: int | None) -> Tensor:
    """Return targets, (B,) or (B, D), as float64 (B, D); UserError where D is not `columns`."""
    values = numbers_of(y, "y")
    values = values[:, None] if values.dim() == 1 else values
    if values.dim() != 2 or (columns is not None and values.shape[1] != columns):
        needed = "one number for each example" if columns in (None, 1) else f"{columns} numbers for each example"
        raise UserError(f"y has shape {tuple(values.shape)}; it must have {needed}.")
    return values
