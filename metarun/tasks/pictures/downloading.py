"""Downloads of data sets through torchvision, which is optional."""

from __future__ import annotations

import importlib
from collections.abc import Mapping, Sequence
from pathlib import Path
from typing import Any

from metarun.errors import UserError, first_line


def download(kind: str, title: str, folder: Path, parts: Sequence[Mapping[str, Any]] = ({},)) -> None:
    """Download a data set into `folder`.

    kind: its class in `torchvision.datasets`. title: its name in messages. parts: the arguments of the class, for each part of the set.
    Raises UserError where torchvision is missing and where the download fails.
    """
    try:
        fetch = getattr(importlib.import_module("torchvision.datasets"), kind)
    except ImportError as error:
        raise UserError(
            "task.download=true needs torchvision: pip install torchvision (a version that fits the installed torch)."
        ) from error
    try:
        for part in parts:
            fetch(str(folder), download=True, **part)
    except (OSError, RuntimeError) as error:
        raise UserError(
            f"downloading {title} to '{folder}' failed ({first_line(error)}); give task.root=DIR if you have a copy."
        ) from error
