"""Run folders: a name of their own for jobs that start in the same second, and nothing left of a job refused at once."""

from __future__ import annotations

import contextlib
import itertools
import re
import shutil
from pathlib import Path

from metarun.errors import UserError

_claimed: dict[Path, list[Path]] = {}  # folder -> the parents that were made for it, innermost first


def claim(name: str) -> str:
    """Make the folder `name`, or `name-2`, `name-3`, … where another job has it, and return its path."""
    wanted = Path(name)
    parents = [parent for parent in wanted.absolute().parents if not parent.exists()]
    try:
        wanted.parent.mkdir(parents=True, exist_ok=True)
        for number in itertools.count(1):
            folder = wanted if number == 1 else wanted.with_name(f"{wanted.name}-{number}")
            with contextlib.suppress(FileExistsError):  # mkdir is atomic: of two jobs one gets it
                folder.mkdir()
                break
    except OSError as error:
        raise UserError(f"The run folder {name} cannot be made ({error.strerror}); choose another with hydra.run.dir=FOLDER.") from error
    _claimed[folder.absolute()] = parents
    return str(folder)


def claimed() -> Path:
    """Return the folder that this command claimed last."""
    return next(reversed(_claimed))


def forget() -> None:
    """Begin a new command: what earlier ones claimed is theirs."""
    _claimed.clear()


def discard() -> None:
    """Remove the folders claimed by this command that hold no more than what Hydra put there."""
    for folder, parents in _claimed.items():
        if {path.name for path in folder.iterdir()} <= {".hydra", "metarun.log", "multirun.yaml"}:
            shutil.rmtree(folder, ignore_errors=True)
            for parent in parents:
                with contextlib.suppress(OSError):
                    parent.rmdir()


def tidy(name: str) -> str:
    """Return a job's name within a sweep, such as 3_algo-maml_seed-1, in letters that need no quotes in a shell or in an override."""
    return re.sub(r"[^\w.]+", "-", name.replace("+", ""))[:100].strip("-_.")
