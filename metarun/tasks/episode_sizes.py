"""The sizes of the episodes of each split, from the keys of an image source, and the errors if the classes have too few images."""

from __future__ import annotations

import math
from collections.abc import Mapping, Sequence
from dataclasses import dataclass
from typing import Any

from metarun.compute.memory import check_fits
from metarun.errors import UserError, counted, printable
from metarun.tasks.pool import is_whole

LEAST = {"ways": 2, "shots": 1, "queries": 1}
"""The smallest values of these keys, and of their `train_` and `min_` forms."""
NAMED = 10
"""Classes or files that a message names; it counts the others."""


@dataclass(frozen=True)
class Shape:
    """Sizes of the episodes of one split; ways and shots vary where their `min_` value is smaller."""

    ways: int
    shots: int
    queries: int
    min_ways: int
    min_shots: int

    @property
    def varies(self) -> bool:
        return self.min_ways < self.ways or self.min_shots < self.shots

    @property
    def needed(self) -> int:
        """The smallest number of images with which a class can take part."""
        return self.min_shots + self.queries


def shape_of(keys: Mapping[str, Any], split: str) -> Shape:
    """Return the sizes of a split's episodes. keys: the sampling keys, such as the fields of a `FewShot`."""
    ways, shots, queries = (keys[key_of(keys, name, split)] for name in LEAST)
    return Shape(ways, shots, queries, min(keys.get("min_ways") or ways, ways), min(keys.get("min_shots") or shots, shots))


def key_of(keys: Mapping[str, Any], name: str, split: str) -> str:
    """Return the key that sets a size for a split: `train_ways` where it is set for training, else `ways`."""
    own = split == "train" and keys.get(f"train_{name}") is not None
    return f"train_{name}" if own else name


def check_numbers(keys: Mapping[str, Any]) -> None:
    """Raise UserError for sizes and seeds that are not whole numbers, and for a `min_` size that lies outside its range."""
    for name, least in LEAST.items():
        for key in (name, f"train_{name}", f"min_{name}"):
            value: Any = keys.get(key)
            if value is None and key != name:
                continue
            if not is_whole(value) or value < least:
                raise UserError(f"task.{key}={value} must be a whole number of at least {least}.")
    for name in ("ways", "shots"):
        low, high = keys.get(f"min_{name}"), keys[name]
        if low is not None and low > high:
            raise UserError(f"task.min_{name}={low} must lie between 1 and task.{name}={high}.")
    for key in ("seed", "eval_seed"):
        if not is_whole(value := keys.get(key, 0)):
            raise UserError(f"task.{key}={value} must be a whole number.")


def complaints(keys: Mapping[str, Any], split: str, counts: Sequence[tuple[str, int]], *, skip: str = "") -> list[str]:
    """Return a sentence for each size of a split's episodes that its classes cannot fill, with the numbers and the remedy.

    counts: the name of each class and its number of images.
    skip: the key that leaves small classes out, such as "task.skip_small=true"; "" where there is none.
    """
    shape, said = shape_of(keys, split), []
    if shape.ways > len(counts):
        said.append(
            f"the {split} split has {counted(len(counts), 'class')}; {shape.ways} ways need more. {_fewer_ways(keys, split, len(counts))}"
        )
    small = [(name, count) for name, count in counts if count < shape.needed]
    if small:
        remain = len(counts) - len(small) >= LEAST["ways"]  # else a flag that leaves them out would not help
        said.append(_too_small(keys, split, small, skip if remain else ""))
    return said


def check_size(keys: Mapping[str, Any], split: str, image: Sequence[int]) -> None:
    """Raise UserError where an episode of a split would not fit into memory. image: the shape of one image."""
    shape = shape_of(keys, split)
    images = shape.ways * (shape.shots + shape.queries)
    what = f"an episode of {shape.ways} ways, {shape.shots} shots and {shape.queries} queries, {images} images,"
    check_fits(4.0 * images * math.prod(image), what, f"lower task.{key_of(keys, 'ways', split)} or the size of the images")


def together(said: Sequence[str]) -> str:
    """Return several complaints as one message, each in a line of its own; a single one as it is."""
    return said[0] if len(said) == 1 else "\n".join([f"{len(said)} things need a change:", *(f"- {each}" for each in said)])


def listed(words: Sequence[str]) -> str:
    """Return the first `NAMED` of the words, and the number of the others."""
    more = f" and {len(words) - NAMED} more" if len(words) > NAMED else ""
    return ", ".join(words[:NAMED]) + more


def _too_small(keys: Mapping[str, Any], split: str, small: Sequence[tuple[str, int]], skip: str) -> str:
    shape = shape_of(keys, split)
    needs = f"{counted(shape.min_shots, 'shot')} + {counted(shape.queries, 'query')} need {shape.needed}"
    remedy = f"Lower task.{key_of(keys, 'queries', split)} or task.{key_of(keys, 'shots', split)}"
    if len(small) == 1:
        ((name, count),) = small
        skipped = f", or leave the class out with {skip}" if skip else ""
        return f"class '{printable(name)}' has {counted(count, 'image')}; {needs}. {remedy}{skipped}."
    named = listed([f"'{printable(name)}' has {count}" for name, count in sorted(small, key=lambda pair: pair[1])])
    skipped = f", or leave these classes out with {skip}" if skip else ""
    return f"{len(small)} {split} classes have too few images: {named}; {needs}. {remedy}{skipped}."


def _fewer_ways(keys: Mapping[str, Any], split: str, count: int) -> str:
    if count < LEAST["ways"]:
        return f"An episode has at least {LEAST['ways']} ways, so give this split more classes."
    return f"Lower task.{key_of(keys, 'ways', split)} to {count}{' or less' * (count > LEAST['ways'])}."
