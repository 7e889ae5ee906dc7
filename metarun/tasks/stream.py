"""Streams of classes: a trajectory shows the examples of many classes, class after class, and each example once.

Khurram Javed, Martha White. "Meta-Learning Representations for Continual Learning", NeurIPS 2019. https://arxiv.org/abs/1905.12588
A learner sees 15 examples of each class and is scored on 5 others. Sizes and order: https://github.com/khurramjaved96/mrcl,
`evaluate_omniglot.py`. A meta-training episode is as in `oml_omniglot.py`: a short trajectory for the inner loop. The outer loss has the
same examples and a random batch of all training classes, the "remember" batch.

A difference from the released code: validation trajectories come from classes that are neither training nor test classes.
"""

from __future__ import annotations

from collections.abc import Mapping, Sequence
from dataclasses import dataclass, field, replace
from functools import cached_property
from typing import Annotated, Any

import torch
from torch import Tensor

from metarun import draws
from metarun.compute.memory import check_fits
from metarun.episodes import first_of
from metarun.errors import UserError, counted, nearest, printable
from metarun.tasks.episode_sizes import together
from metarun.tasks.fingerprint import Fingerprint
from metarun.tasks.pool import SPLITS, check_split
from metarun.tasks.preparing.preparation import Preparation, preparation_by
from metarun.tasks.sampling import LABELS, FewShot, Labels, Ways
from metarun.types import Episode, Examples
from metarun.types.streams import Trajectory
from metarun.values import Built, Count, CountOrZero, Episodes, Length, Seed

Lengths = Annotated[Sequence[Count], Length(1)]
LENGTHS = (10, 50, 100, 200, 600)
"""The lengths of the published tables."""


@dataclass(frozen=True)
class Streams:
    """Trajectories through the classes of an image source.

    source: gives the images and the classes of each split. classes: the number of classes of a test trajectory. val_classes: the number
    of classes of a validation trajectory; None for as many as `classes`, or for all validation classes if they are fewer. per_class:
    examples of each class in the stream. held_out: examples of each class for the scores. lengths: see `WithTrajectories`; lengths above
    `classes` have no effect. trajectories: the number of trajectories of a validation, and of a test.

    train_classes: classes of a training trajectory. train_per_class: examples of each of its classes; None for `per_class`. train_labels:
    "episode" deals few-shot episodes whose support set is in the order of the classes, with `held_out` queries of each class. With
    "global", labels number all training classes, and the query set is the support set again, followed by `remember` random examples of
    all training classes. seed: the seed of the training. eval_seed: the seed of the validation and test trajectories. used: the splits
    that must have enough examples.
    """

    source: Annotated[Any, Built("an image source: a mapping with a _target_")]
    classes: Ways = 100
    val_classes: Ways | None = None
    per_class: Count = 15
    held_out: Count = 5
    lengths: Lengths = LENGTHS
    trajectories: Episodes = 10
    train_labels: Labels = "episode"
    train_classes: Count = 5
    train_per_class: Count | None = None
    remember: CountOrZero = 64
    seed: Seed = 0
    eval_seed: Seed = 0
    used: Sequence[str] = SPLITS
    objective: str = field(default="classification", init=False)

    def __post_init__(self) -> None:
        if not isinstance(self.source, FewShot):
            raise UserError(
                f"task.source gives a {type(self.source).__name__}; a stream needs a source of images in classes, such as glyphs."
            )
        if self.train_labels not in LABELS:
            known = f"it must be {' or '.join(LABELS)}.{nearest(str(self.train_labels), LABELS)}"
            raise UserError(f"task.train_labels={self.train_labels} is unknown; {known}")
        said = []
        for split in self.used:
            try:
                self._check(split)
            except UserError as error:
                said.append(str(error))
        if said:
            raise UserError(together(said))

    def episode(self, split: str, index: int) -> Episode:
        """Deal trajectory `index`: support x (N*K, C, H, W) class after class, query x (N*Q, C, H, W) in the same order of classes."""
        return first_of(self.batch(split, torch.tensor([index])))

    def batch(self, split: str, indices: Tensor) -> Episode:
        """Deal the trajectories `indices` (T,) at once, with a leading axis T."""
        self._check(split)
        key = draws.key(self.seed if split == "train" else self.eval_seed, split, indices)
        shape = self._shape(split)
        classes, rows = self._draw(split, key, shape)
        support, query = (part.flatten(1) for part in rows.split((shape.per_part, shape.held_out), dim=-1))
        if split == "train" and self.train_labels == "global":
            total = sum(self.source.pools["train"].counts)
            query = torch.cat([support, draws.integers(draws.fold(key, "remember"), self.remember, size=total)], dim=1)
        return Episode(*(self._examples(split, part, classes) for part in (support, query)))

    def trajectory(self, split: str) -> Trajectory:
        """Return the sizes of the trajectories of "val" or "test"."""
        check_split(split)
        if split == "train":
            raise UserError("split=train of a stream has short meta-training episodes and no trajectories; score split=val or split=test.")
        return self._shape(split)

    def origins(self, split: str) -> tuple[str, ...]:
        """Return the names of the split's classes, as the source gives them."""
        return self.source.origins(split)

    def population(self, split: str) -> int:
        """Return the number of classes of a split."""
        return self.source.population(split)

    def fingerprint(self) -> Fingerprint:
        """Return the fingerprint of the source."""
        return self.source.fingerprint()

    def preparation(self) -> Preparation | None:
        """Return the preparation of the source's images."""
        return preparation_by(self.source)

    @property
    def chosen(self) -> dict[str, Any]:
        """The values that the stream chose for keys that are null."""
        return {} if self.val_classes is not None else {"val_classes": self._shape("val").parts}

    def to(self, device: torch.device | str) -> Streams:
        """Return the stream with its images on the device."""
        return replace(self, source=self.source.to(device))

    def numbered(self) -> Streams:
        """Return the same stream with the numbers of the classes in its episodes."""
        return replace(self, source=self.source.numbered())

    def _shape(self, split: str) -> Trajectory:
        """Return the sizes of a split's episodes. Training episodes have no held-out examples if `train_labels` is "global"."""
        if split == "train":
            held_out = 0 if self.train_labels == "global" else self.held_out
            return Trajectory(self.train_classes, self.train_per_class or self.per_class, held_out)
        held = len(self.source.pools[split].names)
        parts = self.classes if split == "test" else self.val_classes or max(min(self.classes, held), 2)
        return Trajectory(parts, self.per_class, self.held_out)

    def _draw(self, split: str, key: Tensor, shape: Trajectory) -> tuple[Tensor, Tensor]:
        """Return the classes (T, N) and the rows (T, N, K+Q) of their examples; no example occurs twice in a trajectory."""
        starts, counts = self._places[split]
        classes = draws.distinct(draws.fold(key, "classes"), shape.parts, torch.full_like(key, len(counts)))
        slots = draws.fold(key, "rows")[:, None] + torch.arange(shape.parts)
        picks = draws.distinct(slots, shape.per_part + shape.held_out, counts[classes])
        return classes, starts[classes][..., None] + picks

    @cached_property
    def _places(self) -> dict[str, tuple[Tensor, Tensor]]:
        """Split -> the first row (C,) and the number of images (C,) of each class."""
        counts = {split: torch.tensor(list(pool.counts), dtype=torch.int64) for split, pool in self.source.pools.items()}
        return {split: (count.cumsum(0) - count, count) for split, count in counts.items()}

    def _examples(self, split: str, rows: Tensor, classes: Tensor) -> Examples:
        """Return the examples of rows (T, B) of a split's images, with labels among `classes` (T, N) or among all training classes."""
        pool = self.source.pools[split]
        behind = torch.searchsorted(self._places[split][0], rows.contiguous(), right=True) - 1
        columns = torch.arange(len(pool.names)).expand(len(rows), -1) if split == "train" and self.train_labels == "global" else classes
        device = pool.images.device
        y = (behind[..., None] == columns[:, None, :]).to(device, torch.float32)
        numbers = self.source.numbers[split][columns].to(device) if self.source.class_numbers else None
        return Examples(pool.values(rows.flatten()).unflatten(0, tuple(rows.shape)), y, None, numbers)

    def _check(self, split: str) -> None:
        """Raise UserError where the classes of a split do not suffice for its episodes."""
        check_split(split, self.source.pools)
        shape, pool = self._shape(split), self.source.pools[split]
        key = {"train": "train_classes", "val": "val_classes", "test": "classes"}[split]
        held = len(pool.names)
        if shape.parts > held:
            least = (
                "; a trajectory has at least 2 classes, so give this split more" if held < 2 else f"; lower task.{key} to {held} or less"
            )
            raise UserError(f"the {split} split has {counted(held, 'class')}, and a trajectory of {shape.parts} needs more{least}.")
        needed = shape.per_part + shape.held_out
        small = {name: count for name, count in zip(pool.names, pool.counts, strict=True) if count < needed}
        if small:
            raise UserError(self._too_small(split, small, shape))
        images = shape.parts * needed + (self.remember if split == "train" else 0)
        what = f"a {split} trajectory of {shape.parts} classes, {images} images,"
        check_fits(4.0 * images * pool.images[0].numel(), what, f"lower task.{key} or the size of the images")

    def _too_small(self, split: str, small: Mapping[str, int], shape: Trajectory) -> str:
        key = "train_per_class" if split == "train" and self.train_per_class is not None else "per_class"
        name = min(small, key=lambda each: small[each])
        needs = f"{shape.per_part} in the stream" + (f" + {shape.held_out} held out" if shape.held_out else "")
        remedy = f"lower task.{key}" + (" or task.held_out" if shape.held_out else "")
        skip = ", or leave small classes out with task.source.skip_small=true" if "left_out" in self.source.chosen else ""
        which = f"class '{printable(name)}' has {counted(small[name], 'image')}"
        if len(small) > 1:
            which = f"{len(small)} {split} classes have too few images, '{printable(name)}' only {small[name]}"
        return f"{which}; {needs} need {shape.per_part + shape.held_out}. {remedy[0].upper()}{remedy[1:]}{skip}."
