"""The class folders of a set of photographs, and the folders of a ready split above them."""

from __future__ import annotations

from collections.abc import Collection, Mapping, Sequence
from dataclasses import dataclass, replace
from pathlib import Path

from metarun.errors import UserError, counted, printable
from metarun.tasks.episode_sizes import listed
from metarun.tasks.pictures.class_names import check_names
from metarun.tasks.pictures.image_files import ImageFiles
from metarun.tasks.pool import SPLITS

Split = dict[str, list[str]]
"""Split -> names of its classes."""

SYNONYMS = {
    "train": ("train", "training", "base", "meta-train", "meta_train", "metatrain"),
    "val": ("val", "valid", "validation", "dev", "meta-val", "meta_val", "metaval"),
    "test": ("test", "testing", "novel", "meta-test", "meta_test", "metatest"),
}
"""The names that a folder of a ready split may have, in upper or lower case."""


@dataclass(frozen=True)
class ClassFolders:
    """The class folders below a root.

    files: the images in class folders. listed: all images. rows: class -> the places of its images in `files.names`, sorted by name.
    names: for each of the files, its path below the folder that encloses all class folders or the folders of a ready split.
    ready: the split that the folders give; without an entry for a split that has no folder; None where the folders give no split.
    loose: images outside the class folders, which are not used. empty: class folders without an image.
    """

    files: ImageFiles
    listed: ImageFiles
    rows: Mapping[str, Sequence[int]]
    names: Sequence[str]
    ready: Split | None
    loose: Sequence[str]
    empty: Sequence[str]

    def warnings(self) -> list[str]:
        """Return in sentences what the folder has beside its classes."""
        root, said = printable(str(self.files.root)), []
        if self.loose:
            found = f"{counted(len(self.loose), 'image')} outside the class folders, which metarun does not use"
            said.append(f"'{root}' has {found}: {listed([printable(name) for name in self.loose])}")
        if self.empty:
            found = f"{counted(len(self.empty), 'class folder')} without an image"
            said.append(f"'{root}' has {found}: {listed([printable(name) for name in self.empty])}")
        return said

    def hiding(self, names: Collection[str]) -> ClassFolders:
        """Return the same folders, where no class has these files, which are among `names`; a class may then have no image."""
        hidden = set(names)
        rows = {name: [place for place in places if self.names[place] not in hidden] for name, places in self.rows.items()}
        return replace(self, rows=rows) if hidden else self


def class_folders(files: ImageFiles) -> ClassFolders:
    """Find the class folders of a set; UserError where it has fewer than two, or names that cannot be told apart."""
    parts = [name.split("/") for name in files.names]
    folders = [name.split("/") for name in files.empty]
    while len(tops := _tops(parts)) == 1 and max(map(len, parts)) > 2:
        parts = [path[1:] if len(path) > 1 else path for path in parts]
        folders = [path[1:] for path in folders if path[0] in tops and len(path) > 1]
    splits = _ready_splits(files.root, parts)
    depth = 2 if splits else 1
    inside = [place for place, path in enumerate(parts) if len(path) > depth]
    loose = [files.names[place] for place, path in enumerate(parts) if len(path) <= depth]
    empty = ["/".join(path) for path in folders if len(path) == depth and (depth == 1 or path[0] in splits)]
    rows: dict[str, list[int]] = {}
    ready: dict[str, dict[str, None]] = {split: {} for split in SPLITS if split in splits.values()}
    for number, place in enumerate(inside):
        rows.setdefault(name := parts[place][depth - 1], []).append(number)
        if splits:
            ready[splits[parts[place][0]]][name] = None
    check_names(files.root, rows)
    if len(rows) < 2:
        bare = f" Without an image: {listed([printable(name) for name in empty])}." if empty else ""
        raise UserError(
            f"'{printable(str(files.root))}' holds {len(rows)} class folders with images; it needs one folder per class and at least 2 "
            f"classes. Images inside other archives do not count.{bare}"
        )
    names = ["/".join(parts[place]) for place in inside]
    split = {split: list(names) for split, names in ready.items()} if splits else None
    return ClassFolders(files.without(loose), files, dict(sorted(rows.items())), names, split, loose, empty)


def _ready_splits(root: Path, parts: Sequence[Sequence[str]]) -> dict[str, str]:
    """Return top-level folder -> split where the folders are train/ and val/ or test/ with class folders in them, else nothing."""
    tops = sorted(_tops(parts))
    splits = {top: split for top in tops for split, names in SYNONYMS.items() if top.lower() in names}
    if not ("train" in splits.values() and len(set(splits.values())) > 1 and max(map(len, parts)) > 2):
        return {}
    if len(splits) != len(tops) or len(set(splits.values())) != len(splits):
        held = printable(", ".join(tops))
        raise UserError(f"'{printable(str(root))}' holds {held}; a ready split needs the folders train, val and test, and no other.")
    return splits


def _tops(parts: Sequence[Sequence[str]]) -> set[str]:
    return {path[0] for path in parts if len(path) > 1}
