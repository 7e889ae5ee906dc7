"""Error messages for copies of a data set that metarun cannot read: archives, pickles, HDF5 and NumPy files."""

from __future__ import annotations

import os
from pathlib import Path

from metarun.errors import UserError, printable
from metarun.tasks.pictures.unpacking import TARS

_ARCHIVES = (".7z", ".rar", ".gz", ".bz2", ".xz", ".zst")
_PICKLES = (".pkl", ".pickle", ".pt", ".pth", ".npz", ".npy", ".h5", ".hdf5", ".lmdb", ".mdb", ".mat", ".plk", ".parquet", ".tfrecord")
_SEARCHED = 2
"""Levels of folders below the root in which `explain` looks for such files."""


def explain(root: Path, *, nothing_found: bool = False) -> None:
    """Raise UserError where the root is a file that metarun cannot read as images.

    nothing_found: the root is a folder or zip without an image of a published class; the message then names archives and pickles in it.
    """
    kind = _kind(root.name)
    if kind and root.is_file() and not root.name.lower().endswith((*TARS, ".zip")):
        raise UserError(f"'{printable(str(root))}' is {kind}.")
    if nothing_found and root.is_dir():
        held = [name for name in _files(root) if _kind(name)]
        if held:
            shown = f"{len(held)} file{'s' if len(held) > 1 else ''} such as '{printable(held[0])}'"
            raise UserError(f"'{printable(str(root))}' has no image of a published class, but {shown}, {_kind(held[0])}.")


def _kind(name: str) -> str:
    lower = name.lower()
    if lower.endswith((*TARS, ".zip")):
        return "an archive; unpack it, or give it as task.root"
    if lower.endswith(_ARCHIVES):
        return "an archive that metarun does not unpack; unpack it, and give the folder as task.root"
    if lower.endswith((".pkl", ".pickle", ".plk", ".pt", ".pth")):
        return "a pickle, and reading a pickle can run any code that is in it; give the images as files, in one folder for each class"
    if lower.endswith(_PICKLES):
        return "not made of image files; give the images as files, in one folder for each class"
    return ""


def _files(root: Path) -> list[str]:
    found = []
    for folder, folders, names in os.walk(root):
        if len(Path(folder).relative_to(root).parts) >= _SEARCHED:
            folders.clear()
        found += names
    return sorted(found)
