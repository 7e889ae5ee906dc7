"""The published class lists of few-shot benchmarks: which classes are for training, validation and test.

The lists lie in `splits/`. `splits/manifest.json` names the paper, the source and the SHA-256 of each list.
"""

from __future__ import annotations

import functools
import importlib.resources
import json
from collections.abc import Mapping, Sequence
from dataclasses import dataclass
from typing import Any

import torch
from torch import Tensor

from metarun.errors import UserError, printable
from metarun.tasks.pool import SPLITS, ClassPool

_SHOWN = 3
"""Missing classes that a message names for each split."""


@dataclass(frozen=True)
class Published:
    """A published division of the classes of a data set.

    name: of the benchmark, such as "mini_imagenet". data: the data set that its classes belong to, such as "imagenet"; benchmarks of one
        data set share it, so that a class has one name in all of them.
    splits: split -> its classes, each with its superclass; the superclass is None where the list has none.
    words: class -> its name for a person, where this is not the class itself. images: the published number of images.
    """

    name: str
    data: str
    images: int
    splits: Mapping[str, Mapping[str, str | None]]
    words: Mapping[str, str]

    @property
    def classes(self) -> tuple[str, ...]:
        """All classes, those of training first."""
        return tuple(name for split in SPLITS for name in self.splits[split])

    @property
    def spellings(self) -> dict[str, str]:
        """Folder name -> class: the class itself and, for CUB, the species without its number, as some copies have it."""
        return {name: name for name in self.classes} | {name[4:]: name for name in self.classes if self.data == "cub"}

    def pools(self, images: Tensor, rows: Mapping[str, Sequence[int]], root: str) -> dict[str, ClassPool]:
        """Return the pools of the splits. rows: class -> indices of its images in `images` (M, C, H, W).

        root: as messages show it. Raises UserError where a published class has no image.
        """
        self.check(rows, root)
        return {split: self._pool(images, rows, split) for split in SPLITS}

    def check(self, rows: Mapping[str, Sequence[int]], root: str) -> None:
        """Raise UserError, with the counts, where a published class has no image."""
        lacking = {split: [name for name in self.splits[split] if not rows.get(name)] for split in SPLITS}
        if not any(lacking.values()):
            return
        parts = [
            f"{len(names)} of the {len(self.splits[split])} {split} classes ({_few(names)})" for split, names in lacking.items() if names
        ]
        raise UserError(
            f"'{printable(root)}' has no images of {' and '.join(parts)} of {self.name}; complete the copy, or give task.root=DIR of "
            "another one. task=folder takes any classes."
        )

    def _pool(self, images: Tensor, rows: Mapping[str, Sequence[int]], split: str) -> ClassPool:
        classes = self.splits[split]
        grouped = [group for group in classes.values() if group is not None]
        return ClassPool(
            images,
            counts=[len(rows[name]) for name in classes],
            names=[f"{name} {self.words[name]}" if name in self.words else name for name in classes],
            groups=grouped or None,
            rows=torch.tensor([row for name in classes for row in rows[name]]),
            origins=list(classes),
        )


def _few(names: Sequence[str]) -> str:
    return ", ".join([*names[:_SHOWN], *(["…"] if len(names) > _SHOWN else [])])


@functools.cache
def published(name: str) -> Published:
    """Return the published split of this name: "mini_imagenet", "tiered_imagenet", "cifar_fs", "fc100" or "cub"."""
    facts = _read("manifest.json")[name]
    lists = _read(facts["file"])
    words = _read("imagenet_words.json") if facts["data"] == "imagenet" else {}
    return Published(name, facts["data"], facts["images"], {split: _with_groups(lists[split]) for split in SPLITS}, words)


def class_words() -> dict[str, str]:
    """Return the word of each class of ImageNet that one of the published splits holds, by its WordNet number."""
    return _read("imagenet_words.json")


def _with_groups(listed: Any) -> dict[str, str | None]:
    """Return class -> superclass of a list of classes, or of a mapping from superclasses to their classes."""
    if isinstance(listed, list):
        return dict.fromkeys(listed)
    return {name: group for group, names in listed.items() for name in names}


def _read(file: str) -> dict[str, Any]:
    content = importlib.resources.files("metarun.tasks.pictures").joinpath("splits", file).read_text(encoding="utf-8")
    return dict(json.loads(content))
