"""The split of a set of photographs into training, validation and test classes: by lists, by folders, or drawn."""

from __future__ import annotations

import json
from collections.abc import Mapping, Sequence
from dataclasses import dataclass
from pathlib import Path
from typing import Any

from metarun import draws
from metarun.errors import UserError, counted, first_line, nearest, printable
from metarun.files.paths import expanded
from metarun.tasks.episode_sizes import listed
from metarun.tasks.pictures.class_folders import Split
from metarun.tasks.pictures.class_names import composed
from metarun.tasks.pool import SPLITS

SHARES = (0.64, 0.16, 0.20)
"""The usual shares of train, val and test (Ravi and Larochelle 2017)."""
LEAST = 2
"""The fewest classes of a split."""


@dataclass(frozen=True)
class SplitKeys:
    """How to split. `classes` counts first, then `split_file`, then the folders of a ready split; else the split is drawn.

    root: for messages. ready: see `ClassFolders`.
    split: shares or numbers of classes for train, val and test; None for `SHARES`, with more for val and test where classes are few.
    split_seed: determines which classes each split gets.
    split_file: a JSON file with the lists "train", "val" and "test" of class names; other classes are left out.
    classes: the same lists as a mapping, such as the result of `metarun.tasks.folder.class_split` for an earlier run.
    ways: the ways that val and test should allow if `split` is None; None for up to 5.
    """

    root: Path
    ready: Split | None = None
    split: Sequence[float] | None = None
    split_seed: int = 0
    split_file: str | None = None
    classes: Mapping[str, Sequence[str]] | None = None
    ways: int | None = None

    @property
    def drawn(self) -> bool:
        """Whether the split of all classes is drawn."""
        return self.classes is None and self.split_file is None and self.ready is None


def chosen_split(keys: SplitKeys, names: Sequence[str]) -> Split:
    """Return the classes of each split, out of the class folders `names`, sorted. Raises UserError where they do not suffice."""
    if keys.classes is not None:
        return _check(keys.classes, names, "task.classes", keys.root)
    if keys.split_file is not None:
        return _check(_read_split(keys.split_file), names, f"'{keys.split_file}'", keys.root)
    if keys.ready is not None:
        return _check(_completed(keys), names, f"'{keys.root}'", keys.root)
    sizes = _usual_sizes(len(names), keys.ways) if keys.split is None else _sizes(keys.split, len(names))
    order = iter(_order(keys.split_seed, "classes", names))
    return {name: sorted(next(order) for _ in range(size)) for name, size in zip(SPLITS, sizes, strict=True)}


def _order(seed: int, name: str, names: Sequence[str]) -> list[str]:
    return [names[place] for place in draws.permutation(draws.key(seed, "folder", name), len(names)).tolist()]


def _usual_sizes(count: int, ways: int | None) -> list[int]:
    """Return the sizes by `SHARES`; with few classes, val and test get about a quarter of the classes each, or `ways` if possible."""
    if count < 3 * LEAST:
        raise UserError(
            f"a split into train, val and test needs at least {3 * LEAST} classes, {LEAST} for each, and there are {count}. Add classes."
        )
    least = max(LEAST, min(5, (count + 1) // 4)) if ways is None or count - 2 * ways < LEAST else ways
    val, test = (max(least, round(share * count)) for share in SHARES[1:])
    return [count - val - test, val, test]


def _sizes(split: Sequence[float], count: int) -> list[int]:
    """Return how many of `count` classes are for training, validation and test under `split`."""
    numbers = [float(number) for number in split]
    if len(numbers) != 3 or not all(number > 0 for number in numbers):
        raise UserError(f"task.split={list(split)} must be three positive numbers for train, val and test, such as [0.64, 0.16, 0.2].")
    if all(number.is_integer() for number in numbers):
        sizes = [int(number) for number in numbers]
    elif sum(numbers) > 1.0 + 1e-6:
        raise UserError(f"task.split={list(split)} adds up to {sum(numbers):g}; fractions must add up to at most 1.")
    else:
        val, test = round(numbers[1] * count), round(numbers[2] * count)
        sizes = [min(round(numbers[0] * count), count - val - test), val, test]
    if sum(sizes) > count or min(sizes) < LEAST:
        raise UserError(
            f"task.split={list(split)} makes {sizes[0]}/{sizes[1]}/{sizes[2]} of the {count} classes; each split needs at least {LEAST}, "
            f"all together at most {count}. Give task.split as three numbers of classes, or add classes."
        )
    return sizes


def _completed(keys: SplitKeys) -> Split:
    """Return the split of the folders; a split without a folder gets about a quarter of the training classes.

    This split gets at least `LEAST` classes, and at most `ways` (5 without `ways`).
    """
    ready = dict(keys.ready or {})
    _refuse_twice(ready, f"'{keys.root}'")
    for missing in (split for split in SPLITS if split not in ready):
        train = sorted(ready["train"])
        size = max(LEAST, min(keys.ways or 5, (len(train) + 1) // 4))
        if len(train) - size < LEAST:
            raise UserError(
                f"'{printable(str(keys.root))}' has no folder {missing}, and its folder train has {counted(len(train), 'class')}, of which "
                f"metarun would take {size}; make a folder {missing} with at least {LEAST} classes that are in no other folder."
            )
        order = _order(keys.split_seed, missing, train)
        ready |= {missing: sorted(order[:size]), "train": sorted(order[size:])}
    return ready


def _read_split(path: str) -> Any:
    needed = "it must be a JSON file with the lists train, val and test"
    try:
        file = expanded(path)
        if file.exists() and not file.is_file():  # a pipe would keep the run waiting
            raise UserError(f"task.split_file '{printable(path)}' is no file; {needed}.")
        return json.loads(file.read_text(encoding="utf-8"))
    except (OSError, ValueError, RecursionError) as error:
        raise UserError(f"cannot read task.split_file '{printable(path)}' ({printable(first_line(error))}); {needed}.") from error


def _check(chosen: Any, names: Sequence[str], source: str, root: Path) -> Split:
    """Return the three lists; UserError for an unknown class, or for a class that is listed twice."""
    lists = [chosen.get(split) for split in SPLITS] if isinstance(chosen, Mapping) else [None]
    if not all(isinstance(listed, list | tuple) and listed and all(isinstance(name, str) for name in listed) for listed in lists):
        raise UserError(f"{source} must have the three lists train, val and test of class names, none of them empty.")
    known = {composed(name): name for name in names}
    for split in SPLITS:
        for name in map(composed, chosen[split]):
            if name not in known:
                raise UserError(
                    f"{source} has class '{printable(name)}' in {split}, but '{printable(str(root))}' has no such folder with images."
                    f"{printable(nearest(name, names))}"
                )
    _refuse_twice({split: chosen[split] for split in SPLITS}, source)
    return {split: [known[composed(name)] for name in chosen[split]] for split in SPLITS}


def _refuse_twice(chosen: Mapping[str, Sequence[str]], source: str) -> None:
    """Raise UserError for classes that are listed twice."""
    seen, twice = dict[str, str](), dict[tuple[str, str], list[str]]()
    for split, names in chosen.items():
        for name in map(composed, names):
            if name in seen:
                twice.setdefault((seen[name], split), []).append(f"'{printable(name)}'")
            seen[name] = split
    for (first, second), common in twice.items():
        if len(common) == 1:
            raise UserError(f"{source} has class {common[0]} in {first} and in {second}; a class may occur only once.")
        raise UserError(
            f"{source} has {len(common)} classes in {first} and in {second}, {listed(common)}. A few-shot split divides classes, not "
            f"images: each class belongs to one of train, val and test. To draw such a split, give one folder of classes as task.root."
        )
