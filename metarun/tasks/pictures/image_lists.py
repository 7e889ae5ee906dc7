"""The lists train.csv, val.csv and test.csv that copies of mini-ImageNet have beside their images, with a file and a class on each line."""

from __future__ import annotations

import csv
import io
import logging
import re
import zipfile
from collections.abc import Iterator, Mapping
from dataclasses import dataclass, field
from pathlib import Path, PurePosixPath

from metarun.errors import UserError, first_line, printable
from metarun.tasks.pictures.published import Published
from metarun.tasks.pool import SPLITS

log = logging.getLogger(__name__)

_CLASS = re.compile(r"n\d{8}")
_MOST_BYTES = 64 << 20


@dataclass(frozen=True)
class ImageList:
    """The files that the lists name. classes: name of a file, without folders -> its class. shown: where the lists lie."""

    classes: Mapping[str, str] = field(default_factory=dict)
    shown: str = ""

    def class_of(self, name: str) -> str | None:
        """Return the class of a file by the lists, whatever folder the file lies in; None where they do not name it."""
        return self.classes.get(PurePosixPath(name).name)

    def say_missing(self, found: int, root: Path) -> None:
        """Warn where the copy lacks images that the lists name."""
        if found < len(self.classes):
            log.warning(
                "%s name %s images, and '%s' has %s of them", *(self.shown, f"{len(self.classes):,}", printable(str(root)), f"{found:,}")
            )


def read_lists(root: Path, split: Published) -> ImageList:
    """Return the content of the three lists in a folder, in one of its folders, or in a zip; an empty list where there are none.

    A line has the name of a file and a WordNet id, in any order, as in Ravi and Larochelle's lists (filename,label).
    Raises UserError where the lists put a class into another split than the published list does.
    """
    texts = _texts_of_zip(root) if root.is_file() else _texts_of_folder(root)
    if texts is None:
        return ImageList()
    home = {name: each for each in SPLITS for name in split.splits[each]}
    classes, moved = dict[str, str](), dict[str, str]()
    for each, text in texts.items():
        for file, label in _lines(text):
            if label not in home:
                continue
            classes[file] = label
            if home[label] != each:
                moved[label] = each
    if moved:
        label, each = next(iter(moved.items()))
        raise UserError(
            f"the lists train.csv, val.csv and test.csv of '{printable(str(root))}' divide the classes in another way than {split.name}: "
            f"{len(moved)} classes are in other splits, such as {label} in {each} instead of {home[label]}. Move the lists away."
        )
    return ImageList(classes, f"train.csv, val.csv and test.csv of '{printable(str(root))}'")


def _lines(text: str) -> Iterator[tuple[str, str]]:
    """Yield file and class of each line that has both."""
    for row in csv.reader(io.StringIO(text)):
        labels = [cell for cell in row if _CLASS.fullmatch(cell.strip())]
        files = [cell for cell in row if "." in cell]
        if labels and files:
            yield PurePosixPath(files[0].strip()).name, labels[0].strip()


def _texts_of_folder(root: Path) -> dict[str, str] | None:
    try:
        folders = [root, *sorted(entry for entry in root.iterdir() if entry.is_dir())]
        for folder in folders:
            files = {split: folder / f"{split}.csv" for split in SPLITS}
            if all(file.is_file() for file in files.values()):
                return {split: _text(file) for split, file in files.items()}
    except OSError as error:
        raise UserError(f"cannot read the lists in '{printable(str(root))}' ({error.strerror}).") from error
    return None


def _text(file: Path) -> str:
    with file.open("rb") as stream:
        return stream.read(_MOST_BYTES).decode("utf-8-sig", errors="replace")


def _texts_of_zip(root: Path) -> dict[str, str] | None:
    try:
        with zipfile.ZipFile(root) as archive:
            names = {name.replace("\\", "/"): name for name in archive.namelist()}
            for name in sorted(names, key=lambda each: (each.count("/"), each)):
                folder = name.removesuffix("train.csv")
                wanted = {split: names.get(f"{folder}{split}.csv") for split in SPLITS}
                if name.endswith("train.csv") and all(wanted.values()):
                    return {split: _unpacked(archive, str(entry)) for split, entry in wanted.items()}
    except (OSError, zipfile.BadZipFile, NotImplementedError, EOFError, RuntimeError) as error:
        raise UserError(f"cannot read the lists in '{printable(str(root))}' ({first_line(error)}).") from error
    return None


def _unpacked(archive: zipfile.ZipFile, name: str) -> str:
    with archive.open(name) as stream:
        return stream.read(_MOST_BYTES).decode("utf-8-sig", errors="replace")
