"""Where metarun keeps what can be made again: decoded images and compiled steps."""

from __future__ import annotations

import os
from pathlib import Path


def cache_folder() -> Path:
    """Return METARUN_CACHE, else metarun/ in XDG_CACHE_HOME, else ~/.cache/metarun."""
    if chosen := os.environ.get("METARUN_CACHE"):
        return Path(chosen).expanduser()
    return Path(os.environ.get("XDG_CACHE_HOME") or os.path.expanduser("~/.cache")) / "metarun"
