"""The folder of files that metarun can make again: decoded images and compiled kernels."""

from __future__ import annotations

import os
from pathlib import Path

from metarun.files.paths import expanded


def cache_folder() -> Path:
    """Return METARUN_CACHE, else metarun/ in XDG_CACHE_HOME, else ~/.cache/metarun."""
    if folder := os.environ.get("METARUN_CACHE"):
        return expanded(folder)
    return Path(os.environ.get("XDG_CACHE_HOME") or os.path.expanduser("~/.cache")) / "metarun"
