"""The names behind the columns of an episode's labels."""

from __future__ import annotations

from collections.abc import Mapping
from typing import Any

import torch

from metarun.episodes import deal, first_of
from metarun.tasks.pool import numbers_of
from metarun.types import TaskSource, WithClassNumbers


def names_in(source: TaskSource, split: str, index: int) -> list[str] | None:
    """Return the name of the class behind each column of y of an episode; None where the source does not tell all of them.

    The episode is dealt once more, with the numbers of its classes. Padding columns of a mixture have the name "".
    """
    known = names_by_number(source, split)
    if not known or not isinstance(source, WithClassNumbers):
        return None
    numbers = first_of(deal(source.numbered(), split, torch.tensor([index]))).support.classes
    if numbers is None:
        return None
    names = [known.get(number, "" if number == -1 else None) for number in numbers.tolist()]
    return None if any(name is None for name in names) else [str(name) for name in names]


def names_by_number(source: Any, split: str) -> dict[int, str]:
    """Return the names of the classes of a split by their numbers (`Examples.classes`); {} where the source does not tell them."""
    if isinstance(inside := getattr(source, "sources", None), Mapping):
        return {number: name for each in inside.values() for number, name in names_by_number(each, split).items()}
    names, data = getattr(source, "classes", None), getattr(source, "data", None)
    if not isinstance(names, Mapping) or split not in names or not isinstance(data, str):
        return {}
    return dict(zip(numbers_of([f"{data}/{name}" for name in names[split]]).tolist(), map(str, names[split]), strict=True))
