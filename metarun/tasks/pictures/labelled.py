"""The user's known images with their classes, and the images to label: folders, zips, single images, or CSV files of paths.

Folders and zips are listed as those of task=folder are (`metarun.tasks.pictures.image_files`).
"""

from __future__ import annotations

import os
import zipfile
from collections import Counter
from collections.abc import Iterator, Sequence
from dataclasses import dataclass
from pathlib import Path

import numpy as np
from torch import Tensor

from metarun.compute.memory import check_fits
from metarun.errors import UserError, counted, printable
from metarun.files.paths import expanded, is_folder
from metarun.tasks.pictures.class_folders import SYNONYMS
from metarun.tasks.pictures.class_names import check_names, composed
from metarun.tasks.pictures.image_files import ImageFiles, find_images
from metarun.tasks.pictures.images import decode_images
from metarun.tasks.tables.csv_file import CsvFile, open_csv
from metarun.tasks.tables.table_rows import naming

TABLES = (".csv", ".tsv")
"""Endings of files that are read as CSV."""


@dataclass(frozen=True)
class Pictures:
    """Images of the user's.

    files: where they are. names: as the user finds them: relative to the folder or zip, or as the CSV file has them.
    labels: the class of each image; None where it is unknown. notes: sentences about what was left out.
    """

    files: ImageFiles
    names: tuple[str, ...]
    labels: tuple[str | None, ...]
    notes: tuple[str, ...] = ()


def read_support(path: str) -> Pictures:
    """List the known images: a folder or zip with one folder per class, or a CSV file with the columns path and label.

    A class has all images below its folder; folders that enclose all class folders do not count. Raises UserError where there is nothing
    to read, where fewer than two classes have an image, and where an image has two classes.
    """
    found = _listed(path, "support") if _is_table(path, "support") else _class_folders(path)
    classes = list(dict.fromkeys(label for label in found.labels if label is not None))
    if len(classes) < 2:
        raise UserError(
            f"support={printable(path)} holds {len(classes)} class{'' if len(classes) == 1 else 'es'} with images "
            f"({printable(', '.join(classes)) or 'no class folder'}); predict chooses between classes, so give at least 2: one folder of "
            "images per class, or a CSV file with the columns path and label."
        )
    check_names(found.files.root, classes)
    return found


def read_query(path: str, classes: Sequence[str]) -> Pictures:
    """List the images to label: a folder with or without folders in it, a zip, one image, or a CSV file with path and perhaps label.

    classes: of the support set. Where a folder of a query has the name of one of them, the folders give the labels. Raises UserError where
    there is nothing to read.
    """
    if _is_table(path, "query"):
        return _matched(_listed(path, "query"), classes)
    file = expanded(path)
    if file.is_dir() or zipfile.is_zipfile(file):
        files = find_images(file)
        if not files.names:
            raise UserError(f"query={printable(path)} holds no image.")
        return Pictures(files, files.names, tuple(_folder_labels(files.names, classes)))
    return Pictures(_files_of(file.parent, [file.name]), (path,), (None,))


def pixels_of(pictures: Sequence[Pictures], *, size: int, channels: int, inverted: bool = False) -> list[Tensor]:
    """Return the pixels of each set of images, uint8 (M, channels, size, size), as the image sources read them.

    inverted: ink is 255 and paper 0, while the files have dark ink. Raises one UserError that names the unreadable files of all sets.
    """
    found, refused = list[Tensor](), dict[str, None]()  # each sentence once: two sets may be of one folder
    for each in pictures:
        what = f"{len(each.names):,} images of '{printable(str(each.files.root))}'"
        check_fits(float(len(each.names) * channels * size * size), what, "predict for fewer images at once")
        try:
            pixels = decode_images(each.files, size=size, channels=channels)
            found.append(pixels.bitwise_not() if inverted else pixels)
        except UserError as error:
            refused[str(error).rstrip(".")] = None
    if refused:
        raise UserError(f"{'; also, '.join(refused)}.")
    return found


def copies_of(pixels: Tensor, others: Tensor) -> list[bool]:
    """Return which of the images (M, C, H, W) are among the others (M', C, H, W), pixel by pixel."""
    known = {np.ascontiguousarray(other).tobytes() for other in others.numpy()}
    return [np.ascontiguousarray(picture).tobytes() in known for picture in pixels.numpy()]


def _is_table(path: str, key: str) -> bool:
    """Return whether a path names a CSV file; UserError where it names nothing that can be read."""
    shown = f"{key}={printable(path)}"
    missing, remedy = f"{shown}: there is no such file or folder.", "give a folder, a zip or a CSV file"
    return not is_folder(expanded(path), missing=missing, shown=shown, remedy=remedy) and expanded(path).suffix.lower() in TABLES


# Folders


def _class_folders(path: str) -> Pictures:
    files = find_images(expanded(path))
    depth, parts = 0, [name.split("/") for name in files.names]
    while len({part[depth] for part in parts if len(part) > depth + 1}) == 1 and max(map(len, parts)) > depth + 2:
        depth += 1
    places = [place for place, part in enumerate(parts) if len(part) > depth + 1]
    _refuse_splits(path, [parts[place][depth:] for place in places])
    notes = [f"support={printable(path)}: {counted(len(parts) - len(places), 'image')} in no class folder, left out."]
    empty = _empty_folders(files.root, {parts[place][0] for place in places}) if depth == 0 else []
    notes = (notes if len(places) < len(parts) else []) + [f"support={printable(path)}: no image in the folder {each}." for each in empty]
    kept = ImageFiles(files.root, tuple(files.names[each] for each in places), files.stamp, tuple(files.sizes[each] for each in places))
    return Pictures(kept, kept.names, tuple(parts[place][depth] for place in places), tuple(notes))


def _refuse_splits(path: str, parts: Sequence[Sequence[str]]) -> None:
    tops = sorted({part[0] for part in parts})
    if len(tops) > 1 and set(map(str.lower, tops)) <= set().union(*SYNONYMS.values()) and all(len(part) > 2 for part in parts):
        raise UserError(
            f"support={printable(path)} holds {printable(', '.join(tops))} with class folders, which is a data set with splits; give "
            f"a folder whose own folders are the classes, such as support={printable(str(Path(path) / tops[0]))}."
        )


def _empty_folders(root: Path, used: set[str]) -> list[str]:
    if not root.is_dir():
        return []
    with os.scandir(root) as entries:
        names = sorted(entry.name for entry in entries if entry.is_dir() and not entry.name.startswith((".", "__", "@")))
    return [printable(name) for name in names if name not in used]


def _folder_labels(names: Sequence[str], classes: Sequence[str]) -> Iterator[str | None]:
    """Yield the class of each query: the first folder on its path that is a class of the support set.

    If no folder of any query is a class, no query has a label. Otherwise the queries in other folders belong to another class, which has
    the name of the folder on the same level as the folders of known classes. A query above this level has no label.
    """
    known = {composed(name): name for name in classes}
    levels = [(level, known[composed(part)]) for level, part in _folders(names) if composed(part) in known]
    if not levels:
        yield from (None for _ in names)
        return
    usual = Counter(level for level, _ in levels).most_common(1)[0][0]
    for name in names:
        folders = name.split("/")[:-1]
        named = next((known[composed(part)] for part in folders if composed(part) in known), None)
        yield named if named is not None or len(folders) <= usual else folders[usual]


def _folders(names: Sequence[str]) -> Iterator[tuple[int, str]]:
    return ((level, part) for name in names for level, part in enumerate(name.split("/")[:-1]))


# CSV files


def _listed(path: str, key: str) -> Pictures:
    """Read a CSV file whose column path has paths relative to the file; the column label may be missing or empty for a query."""
    needed = ["path", "label"] if key == "support" else ["path"]
    with naming(key):
        return _read_list(open_csv(path, needed=needed), key, needed)


def _read_list(file: CsvFile, key: str, needed: Sequence[str]) -> Pictures:
    if missing := [name for name in needed if name not in file.header]:
        raise UserError(
            f"{key}={file.path} has no column '{missing[0]}'; its first line must name the columns {' and '.join(needed)}, and it is "
            f"'{printable(file.delimiter.join(file.header))}'."
        )
    places = {name: place for place, name in enumerate(file.header)}
    names, labels, seen = list[str](), list[str | None](), dict[str, str | None]()
    for line, row in file.rows():
        name, label = row[places["path"]].strip(), row[places["label"]].strip() or None if "label" in places else None
        if not name or (label is None and key == "support"):
            raise UserError(f"line {line} of {file.path} has no {'label' if name else 'path'}; fill it in or remove the row.")
        if key == "support" and name in seen:
            if seen[name] != label:
                raise UserError(
                    f"line {line} of {file.path} gives '{printable(name)}' the label '{printable(label)}', and an earlier line "
                    f"'{printable(seen[name])}'; a known image has one class."
                )
            continue
        seen[name] = label
        names.append(name)
        labels.append(label)
    if not names:
        raise UserError(f"{key}={file.path} has no rows below its header line.")
    return Pictures(_files_of(file.file.parent, names), tuple(names), tuple(labels))


def _matched(found: Pictures, classes: Sequence[str]) -> Pictures:
    """Return the queries with the labels spelt as in the support set, where only the code points of an accent differ."""
    known = {composed(name): name for name in classes}
    labels = tuple(None if label is None else known.get(composed(label), label) for label in found.labels)
    return Pictures(found.files, found.names, labels, found.notes)


def _files_of(folder: Path, names: Sequence[str]) -> ImageFiles:
    """Return files by their paths relative to a folder. `decode_images` names those that cannot be read."""
    paths = tuple(str(expanded(name)) for name in names)
    return ImageFiles(folder, paths, "", tuple(map(_size, (folder / path for path in paths))))


def _size(path: Path) -> int:
    try:
        return path.stat().st_size
    except (OSError, ValueError):
        return 0
