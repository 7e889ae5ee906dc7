"""The labels of a user's examples as hashable values."""

from __future__ import annotations

from collections.abc import Hashable, Mapping, Set
from typing import Any

import numpy as np
from torch import Tensor

from metarun.errors import UserError


def plain_labels(y: Any) -> list[Hashable]:
    """Return labels as hashable values; UserError for other values."""
    if isinstance(y, (str, bytes, Mapping, Set)) or not hasattr(y, "__iter__"):
        raise UserError(f"y is a {type(y).__name__}; give a list or an array with a label for each example.")
    labels = y.tolist() if isinstance(y, (np.ndarray, Tensor)) else list(y)
    labels = [label.item() if isinstance(label, (np.generic, Tensor)) and label.ndim == 0 else label for label in labels]
    for number, label in enumerate(labels):
        try:
            hash(label)
        except TypeError:
            raise UserError(f"label {number} of y is a {type(label).__name__}; a label must be a hashable value, such as a name.") from None
        if not _equals_itself(label):
            raise UserError(f"label {number} of y is {label}, which marks a missing value; give each example a label.")
    if not labels:
        raise UserError("y has no labels; give at least one example.")
    return labels


def _equals_itself(label: Hashable) -> bool:
    """Return False for NaN, and for pandas' NaT and NA: two of them would be two classes."""
    try:
        return bool(label == label)
    except TypeError:  # NA has no truth value
        return False
