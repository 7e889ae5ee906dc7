"""Sweeps: what a job gives the sweeper, and the jobs that failed.

A failed job returns an error of infinity, so that the other jobs run and a sweeper goes on. The job may run in another process, so it
writes the failure into a file of the sweep's folder. The command reads this file at the end, names the failed jobs, and exits with an
error code.
"""

from __future__ import annotations

import json
import logging
import math
import sys
from collections.abc import Sequence
from pathlib import Path
from typing import Any, NamedTuple

from hydra.core.hydra_config import HydraConfig
from hydra.experimental.callback import Callback
from hydra.types import RunMode
from omegaconf import DictConfig, OmegaConf

from metarun.cli import tracebacks
from metarun.cli.folders import Refusal, SweepFolder, folders_in_use
from metarun.cli.stops import SweepWatch
from metarun.cli.studies import take_up
from metarun.cli.sweep_jobs import note_jobs
from metarun.errors import UserError
from metarun.files.run_folder import FAILED
from metarun.records.console import UNTOLD
from metarun.records.display import display

log = logging.getLogger("metarun")


class Failure(NamedTuple):
    """job: the name of its folder. error: a sentence. bug: True for an error that is no mistake of the user."""

    job: str
    error: str
    bug: bool


class SweepStart(Callback):
    """A Hydra callback: notes the sweep's folder in the command's `RunFolders`, and refuses a sweeper that would keep the worst job."""

    def on_multirun_start(self, config: DictConfig, **_: Any) -> None:
        """Check the sweeper's direction and note the folder, which `NumberedFolder` has made."""
        if "maximize" in str(OmegaConf.select(config, "hydra.sweeper.direction")).lower():
            raise Refusal(UserError("a job returns an error, which is to be minimised; leave out hydra.sweeper.direction."))
        path = Path(config.hydra.sweep.dir).absolute()
        try:
            take_up(config)
        except UserError as error:
            raise Refusal(error) from error
        note_jobs(config)
        folders = folders_in_use()
        folders.sweep = SweepFolder(path, len(read_failures(path)))
        folders.watch = SweepWatch(path, str(OmegaConf.select(config, "hydra.launcher._target_")).rpartition(".")[2])
        folders.watch.begin()


def in_sweep() -> bool:
    """Return whether the job that runs is one of a sweep."""
    return bool(HydraConfig.get().mode == RunMode.MULTIRUN)


def fixed_in_sweep() -> list[str]:
    """Return the keys that were typed with a single value, so that all jobs of the sweep have them alike.

    `metarun.cli.arguments.prepare` hands these keys to Hydra, in place of those that `train.yaml` leaves out of the names of jobs.
    """
    excluded = [str(key) for key in HydraConfig.get().job.config.override_dirname.exclude_keys]
    typed = {override.partition("=")[0].lstrip("+") for override in HydraConfig.get().overrides.task}
    return ["trust"] if excluded == ["experiment", "trust"] and "trust" not in typed else excluded


def sweep_folder() -> Path:
    """Return the folder of the sweep whose job runs."""
    hydra = HydraConfig.get()
    return Path(hydra.runtime.cwd) / str(hydra.sweep.dir)


def fail(error: Exception, mistake: UserError | None, folder: Path) -> float:
    """Note that a job of a sweep failed, and return infinity, its error.

    mistake: the sentence about a mistake of the user; None for a bug, whose traceback goes into the job's log. folder: the job's.
    """
    if mistake is None:
        log.error("the job failed", exc_info=error, extra=UNTOLD)
        display().say("\n".join(tracebacks.told(error)))
    else:
        log.error("%s", mistake)
    sentence = tracebacks.brief(error) if mistake is None else str(mistake)
    with (sweep_folder() / FAILED).open("a", encoding="utf-8") as file:
        file.write(json.dumps(Failure(folder.name, sentence, mistake is None)._asdict()) + "\n")
    return math.inf


def failures_of(sweep: SweepFolder | None) -> list[Failure]:
    """Return the failed jobs of a command's sweep in the order in which they ended; none where it runs no sweep."""
    return read_failures(sweep.path)[sweep.earlier :] if sweep else []


def read_failures(sweep: Path) -> list[Failure]:
    """Return the failures noted in a sweep's folder."""
    file = sweep / FAILED
    lines = file.read_text(encoding="utf-8").splitlines() if file.is_file() else []
    return [Failure(**json.loads(line)) for line in lines]


def name_failures(failures: Sequence[Failure]) -> int:
    """Print the failed jobs of a sweep to stderr and return the exit code: 0 without any, 1 where a job met a bug, else 2."""
    if not failures:
        return 0
    count = "a job of the sweep" if len(failures) == 1 else f"{len(failures)} jobs of the sweep"
    print(f"metarun: {count} failed, and each counts as an error of infinity:", file=sys.stderr)
    for failure in failures:
        print(f"metarun: {failure.job}: {failure.error}", file=sys.stderr)
    return 1 if any(failure.bug for failure in failures) else 2
