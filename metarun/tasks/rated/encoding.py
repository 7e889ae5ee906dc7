"""Features of users and items as columns of inputs.

The words of a category and the mean of a number come from the training alone. A word that the training lacks has the index 0, and a number
that is unknown becomes the mean.
"""

from __future__ import annotations

from collections.abc import Sequence
from typing import NamedTuple

import numpy as np
import torch
from torch import Tensor

from metarun.tasks.rated.data import Feature, Owners
from metarun.types import Column


class Coded(NamedTuple):
    """A feature as inputs.

    values: (owners, width of the column) float32. words: of a category, its words in order (word n has the index n + 1); of several, the
    words of the columns. mean, deviation: of a number.
    """

    column: Column
    values: Tensor
    words: tuple[str, ...] = ()
    mean: float = 0.0
    deviation: float = 1.0


class Table(NamedTuple):
    """The inputs of all users or of all items: values (owners, columns) float32, and the features in order."""

    features: tuple[Coded, ...]
    values: Tensor


def encode(owners: Owners, of: str, trained: np.ndarray, extra: Sequence[Coded] = ()) -> Table:
    """Return the features of owners as inputs.

    trained: (owners,) bool, those with a training rating. extra: further columns, which come last.
    """
    features = (*(encode_feature(each, of, trained) for each in owners.features), *extra)
    blocks = [each.values for each in features]
    return Table(features, torch.cat(blocks, dim=1) if blocks else torch.zeros(len(owners.names), 0))


def encode_feature(feature: Feature, of: str, trained: np.ndarray) -> Coded:
    """Return one feature as inputs."""
    if feature.kind == "number":
        return number_column(feature.name, of, np.asarray(feature.values, dtype=np.float64), trained)
    if feature.kind == "category":
        return _category(feature.name, of, [str(word) for word in feature.values], trained)
    several = [tuple(words) for words in feature.values]
    known = sorted({word for words, used in zip(several, trained, strict=True) if used for word in words})
    place = {word: number for number, word in enumerate(known)}
    values = torch.zeros(len(several), len(known))
    for row, words in enumerate(several):
        for word in words:
            if word in place:
                values[row, place[word]] = 1.0
    return Coded(Column(feature.name, "several", len(known), of), values, tuple(known))


def identifiers(owners: Owners, of: str, trained: np.ndarray) -> Coded:
    """Return the column of the owner's own index, named "user" or "item"; an owner without a training rating has the index 0."""
    return _category(of, of, owners.names, trained)


def number_column(name: str, of: str, values: np.ndarray, trained: np.ndarray) -> Coded:
    """Return a column of numbers (owners,), standardised by the trained owners whose number is known."""
    known = values[trained & np.isfinite(values)]
    mean = float(known.mean()) if len(known) else 0.0
    deviation = float(known.std()) if len(known) else 0.0
    deviation = deviation if deviation > 0.0 else 1.0
    standard = np.nan_to_num((values - mean) / deviation, nan=0.0)
    return Coded(Column(name, "number", 1, of), torch.from_numpy(standard).float()[:, None], (), mean, deviation)


def _category(name: str, of: str, words: Sequence[str], trained: np.ndarray) -> Coded:
    known = sorted({word for word, used in zip(words, trained, strict=True) if used and word})
    place = {word: number + 1 for number, word in enumerate(known)}
    values = torch.tensor([place.get(word, 0) for word in words], dtype=torch.float32)[:, None]
    return Coded(Column(name, "category", len(known) + 1, of), values, tuple(known))
