"""One feature of users or of items as plain values, and as columns of inputs (`metarun.types.Column`)."""

from __future__ import annotations

import math
from collections.abc import Iterable, Mapping, Sequence
from dataclasses import dataclass
from functools import cached_property
from typing import Any

import torch
from torch import Tensor

from metarun.errors import UserError, nearest, printable

CATEGORY, SEVERAL, NUMBER = "category", "several", "number"
MOST_ITEMS, MOST_VALUES = 200_000, 100_000_000
"""Most items of a catalogue, and most numbers of all inputs of its items."""


@dataclass(frozen=True)
class Feature:
    """A feature.

    kind: of `metarun.types.Column`. words: of a category, word n has the index n + 1, and 0 is unknown; of several, one column each.
    mean, deviation: of a number. values: of the items: an index, a list of columns, or a standardised number for each; () for users.
    """

    name: str
    kind: str
    words: tuple[str, ...] = ()
    mean: float = 0.0
    deviation: float = 1.0
    values: tuple[Any, ...] = ()

    @property
    def width(self) -> int:
        """The number of columns of x."""
        return len(self.words) if self.kind == SEVERAL else 1

    def coded(self, value: Any) -> list[float]:
        """Return the columns of a raw value: a word, words (in a list, or between "|"), or a number. None is unknown."""
        if self.kind == SEVERAL:
            words = [] if value is None else value.split("|") if isinstance(value, str) else list(value)
            chosen = {self._index(word) for word in words}
            return [float(place in chosen) for place in range(len(self.words))]
        if value is None:
            return [0.0]  # the unknown category, or the mean
        if self.kind == CATEGORY:
            return [self._index(value) + 1.0]
        try:
            number = float(value)
        except (TypeError, ValueError):
            number = math.nan
        if not math.isfinite(number):
            raise UserError(f"'{printable(self.name)}' of the user is '{printable(value)}', which is no number; correct it.")
        return [(number - self.mean) / self.deviation]

    def matrix(self) -> Tensor:
        """Return the columns of all items, float32 (I, width)."""
        if self.kind != SEVERAL:
            return torch.tensor(self.values, dtype=torch.float32)[:, None]
        found = torch.zeros(len(self.values), self.width)
        for row, places in enumerate(self.values):
            found[row, list(places)] = 1.0
        return found

    def stored(self) -> dict[str, Any]:
        """Return the plain values."""
        values = [list(each) if isinstance(each, tuple) else each for each in self.values]
        return {**vars_of(self), "words": list(self.words), "values": values}

    def _index(self, word: Any) -> int:
        text = str(word).strip()
        if text not in self._places:
            has = printable(", ".join(self.words[:20])) + (", …" if len(self.words) > 20 else "")
            hint = printable(nearest(text, self.words))
            raise UserError(f"'{printable(self.name)}' of the user is '{printable(text)}', and the training has {has}.{hint}")
        return self._places[text]

    @cached_property
    def _places(self) -> dict[str, int]:
        return {word: place for place, word in enumerate(self.words)}


def vars_of(feature: Feature) -> dict[str, Any]:
    """Return the fields of a feature by name, without what it has computed."""
    return {name: getattr(feature, name) for name in ("name", "kind", "words", "mean", "deviation", "values")}


def feature_of(name: str, kind: str, words: Sequence[str], moments: tuple[float, float], matrix: Tensor | None) -> Feature:
    """Return a feature. moments: mean and deviation of a number. matrix: the columns of the items (I, width); None for users."""
    values: tuple[Any, ...] = ()
    if matrix is not None and kind == SEVERAL:
        values = tuple(tuple(row.nonzero()[:, 0].tolist()) for row in matrix)
    elif matrix is not None:
        values = tuple(matrix[:, 0].long().tolist() if kind == CATEGORY else matrix[:, 0].double().tolist())
    return Feature(name, kind, tuple(words), *moments, values)


def stored_feature(stored: Any, items: int) -> Feature | None:
    """Return the feature of a checkpoint, which a stranger may have written; None where its values are none.

    items: the number of values that it must have; 0 for a feature of users.
    """
    if not isinstance(stored, Mapping) or set(stored) != {"name", "kind", "words", "mean", "deviation", "values"}:
        return None
    name, kind, words, values = (stored[key] for key in ("name", "kind", "words", "values"))
    moments = (stored["mean"], stored["deviation"])
    good = type(name) is str and kind in (CATEGORY, SEVERAL, NUMBER) and are_texts(words) and type(values) is list and len(values) == items
    if not good or not all(is_number(each) for each in moments) or moments[1] <= 0 or len(set(words)) != len(words):
        return None
    most = len(words) + (kind == CATEGORY)
    if kind == SEVERAL:
        if not all(type(each) is list and are_places(each, most) for each in values):
            return None
        values = [tuple(each) for each in values]
    elif not (are_places(values, most) if kind == CATEGORY else all(map(is_number, values))):
        return None
    return Feature(name, kind, tuple(words), *moments, tuple(values))


def are_texts(values: Any) -> bool:
    """Return whether a value is a list of texts."""
    return type(values) is list and all(type(each) is str for each in values)


def are_places(values: Iterable[Any], most: int) -> bool:
    """Return whether all values are whole numbers from 0 to `most` - 1."""
    return all(type(each) is int and 0 <= each < most for each in values)


def is_number(value: Any) -> bool:
    """Return whether a value is a finite float."""
    return type(value) is float and math.isfinite(value)
