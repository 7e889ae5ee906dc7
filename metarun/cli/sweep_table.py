"""The table at the end of a sweep, and its files beside the runs: compare.md and compare.json."""

from __future__ import annotations

import contextlib
import dataclasses
import logging
from pathlib import Path

from metarun.cli.compare import Asked, compared, how_to_score, rendered
from metarun.commands.comparing.formatting import Table
from metarun.commands.comparing.runs import find_runs
from metarun.errors import UserError
from metarun.files.writing import write_text
from metarun.records.widths import terminal_width

log = logging.getLogger("metarun")

FILES = {"compare.md": "markdown", "compare.json": "json"}
ROWS = 20
"""Rows that a table at the end of a sweep prints; the files have them all."""


def finish(sweep: Path | None) -> None:
    """Print the table of a sweep and write its files. A table that cannot be made is no failure of the sweep."""
    if sweep is None:
        return
    try:
        tables = tables_of(sweep)
        if tables:
            print(f"\n{rendered([_short(table) for table in tables], 'text', terminal_width())}")
            written = [name for name in FILES if _write(sweep / name, rendered(tables, FILES[name]))]
            print(f"\nin {sweep}: {' and '.join(written)}" if written else "", flush=True)
            if tables[0].key == "validation":
                print(how_to_score([str(sweep)], find_runs([sweep])), flush=True)
    except Exception:  # the runs are done, and a table is only a view of them
        log.debug("the table of the sweep failed", exc_info=True)


def tables_of(sweep: Path) -> list[Table]:
    """Return the tables of a sweep of trainings or of evaluations; [] where no job has a score."""
    with contextlib.suppress(UserError):
        runs = find_runs([sweep])
        if any(run.validation is not None or run.evaluation is not None for run in runs):
            evaluations = [run for run in runs if run.evaluation is not None]
            return compared(evaluations or runs, Asked((str(sweep),)))[0]
    return []


def _short(table: Table) -> Table:
    if len(table.rows) <= ROWS:
        return table
    more = f"{len(table.rows) - ROWS} more rows are in {' and '.join(FILES)}."
    return dataclasses.replace(table, rows=table.rows[:ROWS], notes=(*table.notes, more))


def _write(file: Path, content: str) -> bool:
    """Write a file, and return whether the disk took it."""
    try:
        write_text(file, f"{content}\n")
    except UserError as error:
        log.warning("%s", error)
        return False
    return True
