"""Your own images: one folder per class, as a folder or a zip, divided into training, validation and test classes."""

from __future__ import annotations

import logging
from collections.abc import Collection, Mapping, Sequence
from dataclasses import dataclass, field
from typing import Annotated, Any, Literal

import torch
from torch import Tensor

from metarun.errors import UserError, counted, printable
from metarun.tasks.episode_sizes import check_size, complaints, listed, together
from metarun.tasks.fingerprint import of_images
from metarun.tasks.pictures.class_folders import ClassFolders, Split, class_folders
from metarun.tasks.pictures.class_splits import SplitKeys, chosen_split
from metarun.tasks.pictures.image_files import find_images
from metarun.tasks.pictures.images import by_reason, complaint, try_images
from metarun.tasks.pool import SPLITS, ClassPool
from metarun.tasks.sampling import FewShot, Sampling, Ways
from metarun.tasks.usual_sizes import Usual, fitted, needed, unfitted
from metarun.values import Count, Keys, Listed, Pixels, Seed, Shares, Text

log = logging.getLogger(__name__)

READ = 5000
"""If the sizes of the episodes do not fit, metarun still reads up to this many images, so that one message names unreadable files too."""


def folder(
    *,
    root: Text | None,
    image_size: Pixels = 84,
    channels: Literal[1, 3] = 3,
    split: Shares | None = None,
    split_seed: Seed = 0,
    split_file: Text | None = None,
    classes: Mapping[str, Listed] | None = None,
    skip_small: bool = False,
    skip_bad: bool = False,
    left_out: Mapping[str, Mapping[str, Any]] | None = None,
    ways: Ways | None = None,
    queries: Count | None = None,
    augment: bool | None = False,
    usual: Annotated[Mapping[str, Any], Keys(Usual)] | None = None,
    **sampling: Sampling,
) -> FewShot:
    """Deal episodes of the images in `root`, (channels, image_size, image_size).

    root: a folder or zip with one folder per class, or with folders train/, val/ and test/ above them (`pictures.class_folders`).
    image_size: pixels; the shorter side is resized to this size and the centre is cropped. channels: 3 for RGB, 1 for grey.
    split, split_seed, split_file, classes: see `metarun.tasks.pictures.class_splits.SplitKeys`.
    skip_small, skip_bad: leave out classes with too few images, and files that are no images. left_out: what an earlier run left out.
    ways, queries, and `train_*` of the sampling: None for the usual sizes, lowered to what the splits hold (`metarun.tasks.usual_sizes`).
    augment: whether training images are changed at random; None for yes. usual: the algorithm's own sizes of a training episode.
    sampling: shots, … of `FewShot`. Its `data` is the name of the folder or zip, unless it is given here.

    The source's `chosen` has the values that metarun chose for None, and the classes and files that it left out. Raises UserError for a
    root without classes, or a class in two splits; one UserError names all small classes and all unreadable files.
    """
    if root is None:
        raise UserError("task=folder needs task.root=DIR, a folder or zip with one folder of images per class.")
    found = class_folders(find_images(root))
    keys = {"shots": 1, "train_ways": None, **sampling, "ways": ways, "queries": queries}
    splitting = SplitKeys(found.files.root, found.ready, split, split_seed, split_file, classes, ways)
    request = _Request(keys, usual or {}, splitting, skip_small, skip_bad, (channels, image_size, image_size))
    return _source(found, request, left_out or {}, augment)


def class_split(source: FewShot) -> Split:
    """Return split -> class names in the order of the pools; `folder(classes=...)` with this mapping deals the same episodes."""
    return {split: list(pool.names) for split, pool in source.pools.items()}


def _source(found: ClassFolders, request: _Request, left_out: Mapping[str, Mapping[str, Any]], augment: bool | None) -> FewShot:
    for sentence in found.warnings():
        log.warning("%s", sentence)
    plan, images, bad = _read(found, request, left_out)
    chosen = plan.sizes if augment is not None else {**plan.sizes, "augment": True}
    _say(plan, request, bad, chosen)
    facts: dict[str, Any] = {"data": found.files.root.resolve().stem, "files": of_images(found.listed), "augment": augment is not False}
    facts["chosen"] = {**chosen, "left_out": {"classes": dict(plan.small), "files": bad} if plan.small or bad else None}
    pools = {name: _pool(images, plan.found.rows, names) for name, names in plan.split.items()}
    return FewShot(pools, **{**facts, **request.keys, **plan.sizes})


@dataclass(frozen=True)
class _Request:
    """What the user asks for. keys: of the sampling, None where metarun chooses. shape: of an image."""

    keys: Mapping[str, Any]
    usual: Mapping[str, Any]
    splitting: SplitKeys
    skip_small: bool
    skip_bad: bool
    shape: tuple[int, int, int]

    @property
    def used(self) -> Sequence[str]:
        return self.keys.get("used") or SPLITS


@dataclass(frozen=True)
class _Plan:
    """The classes of each split, the sizes that metarun chose, the classes that it leaves out, and the complaints."""

    found: ClassFolders
    split: Split = field(default_factory=dict)
    sizes: Mapping[str, int] = field(default_factory=dict)
    small: Mapping[str, int] = field(default_factory=dict)
    said: Sequence[str] = ()


def _read(found: ClassFolders, request: _Request, left_out: Mapping[str, Mapping[str, Any]]) -> tuple[_Plan, Tensor, dict[str, str]]:
    """Return the plan, the images of all files, and the files that are left out, by their names below the class folders."""
    before = {name: str(why) for name, why in left_out.get("files", {}).items() if name in set(found.names)}
    plan, said = _planned(found.hiding(before), request), list[str]()
    if plan.said and len(found.names) > READ:
        unread = f"metarun has not read the {len(found.names):,} images yet; unreadable ones are named when the sizes fit."
        raise UserError(f"{together(plan.said)}\n{unread}")
    try:
        images, unreadable = try_images(found.files, size=request.shape[-1], channels=request.shape[0], name="folder")
    except UserError as error:
        raise UserError(together([str(error), *plan.said])) from error
    bad = {name: unreadable[path] for name, path in zip(found.names, found.files.names, strict=True) if path in unreadable}
    if new := bad.keys() - before.keys():
        plan = _planned(found.hiding(bad.keys() | before.keys()), request)
        shown = {path: unreadable[path] for name, path in zip(found.names, found.files.names, strict=True) if name in new}
        said = [] if request.skip_bad else [complaint(found.files, shown, "task.skip_bad=true")]
    if said := [*said, *plan.said]:
        raise UserError(together(said))
    return plan, images, before | bad


def _planned(found: ClassFolders, request: _Request) -> _Plan:
    """Choose the classes of each split and the sizes of the episodes, and note what does not fit."""
    counts = {name: len(rows) for name, rows in found.rows.items()}
    least = {split: needed(request.keys, request.usual, split) for split in request.used}
    small = {name for name, count in counts.items() if count < max(least.values())} if request.skip_small else set()
    try:
        drawn = request.splitting.drawn
        chosen = chosen_split(request.splitting, [name for name in counts if not (drawn and name in small)])
    except UserError as error:
        hint = f" A class needs {max(least.values())} images; lower task.shots, task.queries or task.train_queries to keep these classes."
        return _Plan(found, said=[str(error), *([f"{_left_out(counts, small)}{hint}"] if drawn and small else [])])
    if not drawn and request.skip_small:
        small = {name for split, names in chosen.items() for name in names if counts[name] < least.get(split, 0)}
        chosen = {split: [name for name in names if name not in small] for split, names in chosen.items()}
    sizes = fitted(request.keys, request.usual, {split: [counts[name] for name in names] for split, names in chosen.items()})
    keys, said = {**request.keys, **sizes}, []
    for split in request.used:
        skip = "" if request.skip_small else "task.skip_small=true"
        said += complaints(keys, split, [(name, counts[name]) for name in chosen[split]], skip=skip)
    try:
        for split in request.used:
            check_size(keys, split, request.shape)
    except UserError as error:
        said.append(str(error))
    if said and small:
        said.append(_left_out(counts, small))
    return _Plan(found, chosen, sizes, {name: counts[name] for name in counts if name in small}, said)


def _left_out(counts: Mapping[str, int], small: Collection[str]) -> str:
    """Return the sentence about the classes that skip_small leaves out."""
    shown = listed([f"'{printable(name)}' has {count}" for name, count in counts.items() if name in small])
    return f"task.skip_small=true leaves out {counted(len(small), 'class')} with too few images: {shown}."


def _say(plan: _Plan, request: _Request, bad: Mapping[str, str], chosen: Mapping[str, Any]) -> None:
    """Log what metarun left out, and what it chose."""
    root = printable(str(request.splitting.root))
    if bad:
        log.warning("left out %s of '%s': %s", counted(len(bad), "unreadable file"), root, by_reason(bad))
    if plan.small:
        named = [f"'{printable(name)}' has {count}" for name, count in plan.small.items()]
        log.warning("left out %s of '%s' with too few images: %s", counted(len(plan.small), "class"), root, listed(named))
    if chosen:
        usual = unfitted(request.keys, request.usual)
        words = [f"task.{name}={str(value).lower()}" for name, value in chosen.items()]
        fewer = [f" (usually {usual[name]})" if usual.get(name, value) > value else "" for name, value in chosen.items()]
        held = ", ".join(f"{len(plan.split[split])} {split}" for split in SPLITS)
        log.info("'%s' has %s classes; chosen: %s", root, held, " ".join(map("".join, zip(words, fewer, strict=True))))


def _pool(images: Tensor, rows: Mapping[str, Sequence[int]], names: Sequence[str]) -> ClassPool:
    places = torch.tensor([row for name in names for row in rows[name]])  # indices, not a copy: the images may need more space than RAM has
    return ClassPool(images, counts=[len(rows[name]) for name in names], names=list(names), rows=places)
