"""The sampler of every image source: it deals numbered episodes from a pool of classes."""

from __future__ import annotations

import math
from collections.abc import Mapping, Sequence
from dataclasses import dataclass, field, replace
from functools import cached_property
from typing import Annotated, Any, Literal, get_args

import torch
from torch import Tensor

from metarun import draws
from metarun.episodes import first_of
from metarun.errors import UserError, nearest
from metarun.tasks.augment import augmented
from metarun.tasks.episode_sizes import Shape, check_numbers, check_size, complaints, key_of, shape_of, together
from metarun.tasks.fingerprint import Fingerprint, of_pools
from metarun.tasks.pool import SPLITS, ClassPool, numbers_of, pool_of
from metarun.types import Episode, Examples
from metarun.values import Count, Keys, Range, Seed

Labels = Literal["episode", "global"]
LABELS = get_args(Labels)
Ways = Annotated[int, Range(least=2, most=1_000_000)]
LARGE = 2 << 30
"""Images of more bytes than this stay on disk, as a memory map, and do not move to a device."""


@dataclass(frozen=True)
class FewShot:
    """Few-shot classification episodes over class pools.

    pools: split -> ClassPool. ways, shots, queries: N, K, Q of an episode; `train_*` for the training split where it differs.
    min_ways, min_shots: where set, each episode draws its number of ways from [min_ways, ways], and each class its number of shots from
        [min_shots, shots]. Both draws are uniform, and the mask is False on unused rows. This simplifies Meta-Dataset (Triantafillou
        et al. 2020, section 3.1), where the shots follow the sizes of the classes.
    within_groups: whether all classes of an episode come from one group (Omniglot: one alphabet).
    train_labels: the labels of training episodes. "episode": the index of a class among the N of the episode. "global": the index
        among all C classes of the split; an episode is then a mini-batch of supervised training with labels (B, C).
    seed: of the training stream. eval_seed: of the "val" and "test" streams, so that metarun scores runs with different seeds
        on the same episodes.
    class_numbers: whether each episode carries the numbers of its classes (see `Examples`).
    augment: whether training episodes, support and query, have randomly changed images (`metarun.tasks.augment`).
    used: the splits whose episodes must be possible. Another split with too few classes raises UserError only when it is dealt.
    data: the name of the data set. The names of `origins` begin with this name. files: the fingerprint of the files behind the images;
        None where no files are behind them. prepared: how raw images become the vectors of the pools (`metarun.tasks.preparing`);
        None where the pools hold images. chosen: the values that the source chose for keys that the user left at null.
    """

    pools: Mapping[str, ClassPool]
    ways: Ways = 5
    shots: Count = 1
    queries: Count = 15
    train_ways: Ways | None = None
    train_shots: Count | None = None
    train_queries: Count | None = None
    min_ways: Ways | None = None
    min_shots: Count | None = None
    within_groups: bool = False
    train_labels: Labels = "episode"
    seed: Seed = 0
    eval_seed: Seed = 0
    class_numbers: bool = False
    objective: str = "classification"
    data: str = ""
    augment: bool = False
    used: Sequence[str] = SPLITS
    files: Fingerprint | None = field(default=None, repr=False, compare=False)
    prepared: Any = field(default=None, repr=False, compare=False)
    chosen: Mapping[str, Any] = field(default_factory=dict, repr=False, compare=False)
    _starts: dict[str, Tensor] = field(init=False, repr=False)
    _counts: dict[str, Tensor] = field(init=False, repr=False)
    _groups: dict[str, tuple[Tensor, Tensor]] = field(init=False, repr=False)
    _labels: dict[str, list[Tensor]] = field(init=False, repr=False)
    _refused: dict[str, UserError] = field(init=False, repr=False, compare=False)

    def __post_init__(self) -> None:
        counts = {split: torch.tensor(list(pool.counts), dtype=torch.int64) for split, pool in self.pools.items()}
        object.__setattr__(self, "_counts", counts)
        object.__setattr__(self, "_starts", {split: c.cumsum(0) - c for split, c in counts.items()})
        for name in ("_groups", "_labels", "_refused"):
            object.__setattr__(self, name, {})
        self._check_keys()
        said = {split: complaints(vars(self), split, list(zip(pool.names, pool.counts, strict=True))) for split, pool in self.pools.items()}
        if at_once := [each for split in self.pools if split in self.used for each in said[split]]:
            raise UserError(together(at_once))
        for split in self.pools:
            self._prepare(split, said[split])

    @property
    def classes(self) -> dict[str, list[str]]:
        """The names of the classes of each split; a checkpoint keeps them, so that a drawn split can be restored."""
        return {split: list(pool.names) for split, pool in self.pools.items()}

    def origins(self, split: str) -> tuple[str, ...]:
        """Return the names of the split's classes in the data set, each once, such as "omniglot/Greek/character01"."""
        pool = self.pools[split]
        names = pool.names if pool.origins is None else pool.origins
        return tuple(dict.fromkeys(f"{self.data}/{name}" if self.data else name for name in names))

    def fingerprint(self) -> Fingerprint:
        """Return the fingerprint of the files; that of the images in memory where no files are behind them."""
        return of_pools(self.pools) if self.files is None else {**self.files, "name": self.data}

    def population(self, split: str) -> int:
        """Return the number of classes of a split; a turned copy is a class."""
        return len(self.pools[split].names)

    @cached_property
    def numbers(self) -> dict[str, Tensor]:
        """An identifying number for each class of a split, (C,), computed from the names of the data set and the class."""
        return {split: numbers_of([f"{self.data}/{name}" for name in pool.names]) for split, pool in self.pools.items()}

    def shape(self, split: str) -> Shape:
        """Return ways, shots and queries of a split."""
        return shape_of(vars(self), split)

    def to(self, device: torch.device | str) -> FewShot:
        """Return the source with its images and episodes on the device; this source itself where the images exceed `LARGE`."""
        size = sum(sum(pool.counts) * math.prod(pool.images.shape[1:]) for pool in self.pools.values())
        return self if size > LARGE else replace(self, pools={split: pool.to(device) for split, pool in self.pools.items()})

    def numbered(self) -> FewShot:
        """Return the same source with the numbers of the classes in its episodes."""
        return replace(self, class_numbers=True)

    def episode(self, split: str, index: int) -> Episode:
        """Deal episode `index`: support x (N*K, C, H, W), query x (N*Q, C, H, W), values in [0, 1]; class by class."""
        return first_of(self.batch(split, torch.tensor([index])))

    def batch(self, split: str, indices: Tensor) -> Episode:
        """Deal the episodes `indices` (T,), a tensor on the CPU, at once, with a leading axis T."""
        pool = pool_of(self.pools, split)
        rows, present, shots = self.draw(split, indices)
        shape, tasks = self.shape(split), len(indices)
        x = [part.unflatten(0, (tasks, -1)) for part in self._images(split, rows, indices)]
        if self._labels_are_global(split):
            y = self._global_one_hot(rows[..., 0], shape)
        else:
            y = [labels.repeat(tasks, 1, 1) for labels in self._labels[split]]
        numbers = [self._numbers_behind(split, rows[..., 0]) for _ in y]
        if not shape.varies:
            return Episode(*map(Examples, x, y, (None, None), numbers))
        in_support = present[..., None] & (torch.arange(shape.shots) < shots[..., None])
        in_query = present[..., None].expand(-1, -1, shape.queries)
        masks = [used.flatten(1).to(pool.images.device, non_blocking=True) for used in (in_support, in_query)]
        return Episode(*map(Examples, x, y, masks, numbers))

    def draw(self, split: str, indices: Tensor) -> tuple[Tensor, Tensor, Tensor]:
        """Draw the rows of the episodes, without reading an image.

        Returns rows (T, N, K+Q): indices of the pool's images. No image occurs twice among the used rows of an episode.
        present (T, N) bool, False for the ways that the episode does not use. shots (T, N), how many of the first K rows are used.
        """
        if split in self._refused:
            raise self._refused[split]
        shape = self.shape(split)
        key = self._key(split, indices)
        classes = self._draw_classes(split, key, shape.ways)
        counts = self._counts[split][classes]
        slots = draws.fold(key, "rows")[:, None] + torch.arange(shape.ways)
        picks = draws.distinct(draws.fold(slots, 0), shape.shots + shape.queries, counts.clamp(min=shape.shots + shape.queries))
        starts = self._starts[split][classes][..., None]
        if not shape.varies:
            return starts + picks, torch.ones_like(classes, dtype=torch.bool), torch.full_like(classes, shape.shots)
        picks = self._pick_few(slots, counts, shape, picks)
        ways = shape.min_ways + draws.integers(draws.fold(key, "ways"), size=shape.ways - shape.min_ways + 1)
        highest = (counts - shape.queries).clamp(max=shape.shots)
        shots = shape.min_shots + draws.integers(draws.fold(slots, "shots"), size=(highest - shape.min_shots + 1))
        return starts + picks, torch.arange(shape.ways) < ways[:, None], shots

    def _pick_few(self, slots: Tensor, counts: Tensor, shape: Shape, picks: Tensor) -> Tensor:
        """Replace picks of classes with fewer than K+Q images: Q images are queries, the rest are support; spare rows repeat an image."""
        needed = shape.shots + shape.queries
        short = draws.bits(draws.fold(slots, 1), needed)
        beyond = torch.arange(needed) >= counts[..., None]
        order = short.masked_fill(beyond, torch.iinfo(torch.int64).max).argsort(dim=-1, stable=True)
        shots = (counts - shape.queries).clamp(max=shape.shots)[..., None]
        column = torch.arange(needed)
        column = torch.where(column < shape.shots, column.minimum(shots - 1), column - shape.shots + shots)
        return torch.where((counts < needed)[..., None], order.gather(-1, column), picks)

    def _key(self, split: str, indices: Tensor) -> Tensor:
        """Return the keys (T,) of episodes, from which all their draws are made."""
        return draws.key(self.seed if split == "train" else self.eval_seed, split, indices)

    def _images(self, split: str, rows: Tensor, indices: Tensor) -> list[Tensor]:
        """Return the images of all support sets and of all query sets, in the order of `rows` (T, N, K+Q)."""
        shape, pool = self.shape(split), self.pools[split]

        def in_order(values: Tensor) -> Tensor:
            return torch.cat([part.flatten() for part in values.split((shape.shots, shape.queries), dim=-1)])

        images = pool.values(in_order(rows))  # one pass for support and query; each part is contiguous
        if self.augment and split == "train":
            slots = torch.arange(rows[0].numel()).view(rows.shape[1:])
            images = augmented(images, in_order(draws.fold(draws.fold(self._key(split, indices), "augment")[:, None, None], slots)))
        return list(images.split([len(indices) * shape.ways * count for count in (shape.shots, shape.queries)]))

    def _draw_classes(self, split: str, key: Tensor, ways: int) -> Tensor:
        first, size = self._groups[split]
        if not self.within_groups:
            return draws.distinct(draws.fold(key, "classes"), ways, torch.full_like(key, len(self._counts[split])))
        group = draws.integers(draws.fold(key, "group"), size=len(first))
        return first[group][:, None] + draws.distinct(draws.fold(key, "classes"), ways, size[group])

    def _one_hot(self, split: str) -> list[Tensor]:
        """Return the labels of support (N*K, N) and query (N*Q, N), the same for every episode."""
        shape = self.shape(split)
        ways = torch.eye(shape.ways, device=self.pools[split].images.device)
        return [ways.repeat_interleave(count, dim=0) for count in (shape.shots, shape.queries)]

    def _global_one_hot(self, rows: Tensor, shape: Shape) -> list[Tensor]:
        """Return the labels of support (T, N*K, C) and query (T, N*Q, C) among all C training classes; rows: (T, N), one of each class."""
        device = self.pools["train"].images.device
        numbers = self._class_of("train", rows)
        # Compare on the device, since `one_hot` would wait for the values. Only N numbers per task go to the device, without a wait.
        classes = torch.arange(len(self._starts["train"]), device=device)
        labels = (numbers.to(device, non_blocking=True)[..., None] == classes).to(torch.float32)
        return [labels.repeat_interleave(count, dim=1) for count in (shape.shots, shape.queries)]

    def _numbers_behind(self, split: str, rows: Tensor) -> Tensor | None:
        """Return the numbers of the classes behind the columns of y, (T, N) or (T, C); None unless `class_numbers`. rows: (T, N)."""
        if not self.class_numbers:
            return None
        pool, classes = self.pools[split], self._class_of(split, rows)
        if self._labels_are_global(split):
            classes = torch.arange(len(pool.names)).expand(len(rows), -1)
        return self.numbers[split][classes].to(pool.images.device, non_blocking=True)

    def _labels_are_global(self, split: str) -> bool:
        return split == "train" and self.train_labels == "global"

    def _class_of(self, split: str, rows: Tensor) -> Tensor:
        """Return the indices of the classes that these rows belong to, in the shape of `rows`."""
        return torch.searchsorted(self._starts[split], rows.contiguous(), right=True) - 1

    def _group_table(self, split: str) -> tuple[Tensor, Tensor]:
        """Return the first class and the number of classes of each group that is large enough for an episode."""
        names = self.pools[split].groups
        if not self.within_groups:
            return torch.zeros(0, dtype=torch.int64), torch.zeros(0, dtype=torch.int64)
        if names is None:
            raise UserError("this data has no groups of classes; set task.within_groups=false.")
        edges = [i for i in range(len(names)) if i == 0 or names[i] != names[i - 1]] + [len(names)]
        sizes = [(a, b - a) for a, b in zip(edges, edges[1:], strict=False)]
        ways = self.shape(split).ways
        enough = [(first, size) for first, size in sizes if size >= ways]
        if not enough:
            largest = max(size for _, size in sizes)
            raise UserError(
                f"no group of the {split} split has {ways} classes (the largest has {largest}); "
                f"lower task.{key_of(vars(self), 'ways', split)} to {largest}."
            )
        return torch.tensor([first for first, _ in enough]), torch.tensor([size for _, size in enough])

    def _prepare(self, split: str, said: Sequence[str]) -> None:
        """Note what all episodes of a split share, or why the split has none. Raises UserError for a split that is used."""
        try:
            if said:
                raise UserError(together(said))
            check_size(vars(self), split, self.pools[split].images.shape[1:])
            self._groups[split] = self._group_table(split)
            self._labels[split] = self._one_hot(split)
        except UserError as error:
            if split in self.used:
                raise
            self._refused[split] = error

    def _check_keys(self) -> None:
        """Refuse wrong values, since a source passes its sampling keys on unchecked."""
        check_numbers(vars(self))
        if self.train_labels not in LABELS:
            known = f"it must be {' or '.join(LABELS)}.{nearest(str(self.train_labels), LABELS)}"
            raise UserError(f"task.train_labels={self.train_labels} is unknown; {known}")


_HIDDEN = ("pools", "class_numbers", "objective", "files", "prepared", "chosen", "_starts", "_counts", "_groups", "_labels", "_refused")
Sampling = Annotated[Any, Keys(FewShot, hidden=_HIDDEN)]
"""The sampling keys of an image source, for its `**sampling`: ways, shots, … as the fields of `FewShot`."""
