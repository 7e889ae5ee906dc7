"""What a run folder may hold before a command writes into it."""

from __future__ import annotations

from pathlib import Path

from metarun.errors import UserError
from metarun.files.commands import command
from metarun.files.paths import word
from metarun.files.writing import check_place

AUTO = "auto"
"""The value of `resume` that goes on in the run folder where the folder holds a checkpoint, and starts otherwise."""
METRICS, CHECKPOINTS, LOGGERS = "metrics.jsonl", "checkpoints", "loggers.json"
TENSORBOARD, WANDB = "tensorboard", "wandb"
CONFIG = "config.json"
"""The resolved config of a run, for readers that load no checkpoint."""
FAILED = "failed.jsonl"
"""The file in a sweep's folder, with one line for each failed job."""
_WRITTEN = (".hydra", "metarun.log", "multirun.yaml", FAILED, METRICS, CHECKPOINTS, TENSORBOARD, WANDB)
"""Files that Hydra, loggers and metarun open under their own names, without a rename, and the folders that they write to."""


def check_places(folder: Path, *, sweep: bool = False) -> None:
    """Raise UserError where a link, a pipe or a device stands in the place of a file or folder that a run opens for writing.

    sweep: whether the folder is that of a sweep, which holds the folders of its jobs.
    """
    for base in [folder, *(folder.iterdir() if sweep else ())]:
        for name in _WRITTEN:
            check_place(base / name)
        for path in base.glob(".hydra/*"):
            check_place(path)


def refuse_run(folder: Path) -> None:
    """Raise UserError where a folder holds a run: its checkpoints or its metrics. A new run would overwrite them."""
    held = [name for name, found in (("checkpoints", has_checkpoints(folder)), ("metrics", _has_metrics(folder))) if found]
    if held:
        raise UserError(
            f"{folder} holds the {' and '.join(held)} of another run; "
            f"choose another folder with hydra.run.dir=FOLDER, or continue that run with: {command('train', word('resume', folder))}"
        )


def has_checkpoints(folder: Path) -> bool:
    """Return whether a run has saved into the folder."""
    return any((folder / CHECKPOINTS).glob("*.pt"))


def _has_metrics(folder: Path) -> bool:
    path = folder / METRICS
    return path.is_file() and path.stat().st_size > 0
