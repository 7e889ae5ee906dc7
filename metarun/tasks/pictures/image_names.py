"""Which files count as images by their names, and which files and folders are left out silently."""

from __future__ import annotations

from pathlib import PurePosixPath

_NOT_IMAGES = frozenset(
    (
        *(".txt", ".md", ".rst", ".log", ".html", ".htm", ".css", ".js", ".pdf", ".doc", ".docx", ".odt", ".rtf", ".ppt", ".pptx", ".nfo"),
        *(".xls", ".xlsx", ".ods", ".csv", ".tsv", ".parquet", ".feather", ".arrow", ".mdb", ".db", ".sqlite", ".bib", ".tex"),
        *(".json", ".jsonl", ".geojson", ".xml", ".yaml", ".yml", ".toml", ".ini", ".cfg", ".lnk", ".url", ".webloc", ".info"),
        *(".xmp", ".aae", ".thm", ".pp3", ".dop", ".cos", ".on1", ".lrtemplate", ".nksc", ".sha1", ".sha256", ".md5", ".sfv", ".par2"),
        *(".py", ".pyc", ".ipynb", ".sh", ".bat", ".m", ".mat", ".npy", ".npz", ".pkl", ".pt", ".pth", ".h5", ".hdf5", ".tfrecord", ".mdb"),
        *(".mp3", ".wav", ".m4a", ".aac", ".ogg", ".flac", ".mp4", ".m4v", ".mov", ".avi", ".mkv", ".webm", ".3gp", ".mts", ".wmv"),
        *(".mpg", ".mpeg", ".flv", ".lrv", ".zip", ".gz", ".tar", ".tgz", ".bz2", ".xz", ".zst", ".7z", ".rar"),
    )
)
"""Endings of files that metarun skips, side-car files of cameras among them. Any other file must be an image, so that no photograph is lost
silently."""

_NOT_IMAGE_NAMES = frozenset(("readme", "license", "licence", "copying", "authors", "changelog", "notice", "makefile", "icon\r"))
"""Names without an ending of files that metarun skips, in lower case."""

_LEFT_BY_DEVICES = frozenset(
    (
        *("__macosx", "@eadir", "@recycle", "@recently-snapshot", "#recycle", "#snapshot", "lost+found"),
        *("$recycle.bin", "recycler", "recycled", "system volume information", "found.000", "__pycache__"),
    )
)
"""Folders, in lower case, in which systems and devices keep thumbnails, deleted files and copies."""


def hidden(part: str) -> bool:
    """Return whether a file or folder of this name is left out, with all that it holds."""
    return part.startswith(".") or part.lower() in _LEFT_BY_DEVICES


def may_be_image(name: str) -> bool:
    """Return whether a file must be an image, so that an unreadable one is an error."""
    path = PurePosixPath(name)
    return path.suffix.lower() not in _NOT_IMAGES and path.name.lower() not in _NOT_IMAGE_NAMES
