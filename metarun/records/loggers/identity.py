"""The name under which a logger's service knows a run: `loggers.json` in the run folder, from which a resumed run goes on.

A stranger may have written the file, so it is read as data: an id is a short word.
"""

from __future__ import annotations

import json
import re
from collections.abc import Callable
from typing import NamedTuple

from metarun.files.run_folder import LOGGERS
from metarun.files.writing import check_place, open_to_read, write_text
from metarun.records.loggers.logger import RunStart

LARGEST = 100_000
"""Most bytes of the file."""
_ID = re.compile(r"[A-Za-z0-9_-]{1,64}")


class Noted(NamedTuple):
    """The id of a run in a logger's service. earlier: whether the run had the id before it was resumed."""

    id: str
    earlier: bool


def noted(run: RunStart, logger: str, make: Callable[[], str]) -> Noted:
    """Return the id that the run folder holds for a logger; for a new run, or where there is none, make one and note it."""
    known = _read(run)
    if run.resume_step is not None and logger in known:
        return Noted(known[logger], True)
    made = make()
    write_text(run.folder / LOGGERS, json.dumps({**known, logger: made}, indent=2) + "\n")
    return Noted(made, False)


def sweep_of(run: RunStart) -> str | None:
    """Return the name of the sweep that a run belongs to, its folder; None for a single run. Hydra writes `multirun.yaml` into it."""
    above = run.folder.absolute().parent
    return above.name if (above / "multirun.yaml").is_file() else None


def _read(run: RunStart) -> dict[str, str]:
    path = run.folder / LOGGERS
    check_place(path)
    if not path.exists():
        return {}
    try:
        with open_to_read(path) as file:
            content = json.loads(file.read(LARGEST))
    except ValueError:
        return {}
    pairs = content.items() if isinstance(content, dict) else ()
    return {name: each for name, each in pairs if isinstance(each, str) and _ID.fullmatch(each)}
