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
    if (known := known_id(run, logger)) is not None:
        return Noted(known, True)
    made = make()
    note(run, logger, made)
    return Noted(made, False)


def known_id(run: RunStart, logger: str) -> str | None:
    """Return the id that the run folder of a resumed run holds for a logger; None for a new run, or where there is none."""
    return None if run.resume_step is None else _read(run).get(logger)


def note(run: RunStart, logger: str, name: str) -> None:
    """Write the id of the run in a logger's service into the run folder."""
    write_text(run.folder / LOGGERS, json.dumps({**_read(run), logger: name}, indent=2) + "\n")


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
