"""The three jobs that Hydra runs, train, eval and predict: from an argument list to a plain config and a run folder."""

from __future__ import annotations

import contextlib
import functools
import logging
import os
import sys
from collections.abc import Callable, Iterator
from pathlib import Path
from typing import Any

import hydra
from hydra.core.hydra_config import HydraConfig
from omegaconf import DictConfig, OmegaConf

from metarun.cli import tracebacks
from metarun.cli.arguments import prepare
from metarun.cli.composing import eval_config, mistake_of, plain, train_config
from metarun.cli.config_files import check_chosen, fault_in_files
from metarun.cli.folders import Crash, Refusal, RunFolders, held
from metarun.cli.groups import check_options
from metarun.cli.hydra_errors import JOB_NOTE, explain, is_hydras
from metarun.cli.streams import make_steady
from metarun.cli.sweep_jobs import heading
from metarun.cli.sweep_table import finish
from metarun.cli.sweeps import fail, failures_of, fixed_in_sweep, in_sweep, name_failures
from metarun.cli.workers import ending_with_command, is_worker, note_command
from metarun.errors import UserError
from metarun.files.commands import note_program, packages_of
from metarun.files.run_folder import refuse_run
from metarun.processes.ranks import here
from metarun.records.console import UNTOLD, adopt_torch, plain_warnings
from metarun.records.display import display, doing

# At import: a child process of a sweep's launcher imports this module and no more.
log = logging.getLogger("metarun")
logging.raiseExceptions = False  # a log that cannot be written prints no traceback


def job(function: Callable[[DictConfig, Path], float]) -> Callable[[DictConfig], float]:
    """Make a Hydra job of a function of (config, run folder) that returns an error to be minimised.

    A UserError ends a single run at once. Any other exception gets a note that marks it as a bug, so that it keeps its traceback. In a
    sweep a job that fails in either way returns infinity, and the other jobs run (`metarun.cli.sweeps`).
    """

    @functools.wraps(function)
    def run_job(cfg: DictConfig) -> float:
        folder = Path(HydraConfig.get().runtime.output_dir)
        if is_worker():
            make_steady()
        tracebacks.trust([*packages_of(OmegaConf.to_container(cfg)), *map(str, cfg.get("trust") or ())])
        try:
            with ending_with_command(), held(folder), plain_warnings():
                if in_sweep():
                    display().say(heading())
                error = function(cfg, folder)
        except Exception as exception:
            mistake = mistake_of(exception, folder)
            if in_sweep():
                return fail(exception, mistake, folder)
            if mistake is not None:
                raise Refusal(mistake) from exception
            exception.add_note(f"{JOB_NOTE}{folder}")
            log.error("the job failed", exc_info=exception, extra=UNTOLD)
            raise Crash(exception) from exception
        if in_sweep():
            print(f"the error of this job, which a sweeper minimises: {error:.4g}")
        return error

    return run_job


@job
def train_job(cfg: DictConfig, folder: Path) -> float:
    """Train and return the error of the best validation: 1 - accuracy, or the error of a regression."""
    with starting():
        from metarun.commands.keys import check_train
        from metarun.commands.train import train

    config = train_config(cfg, *_chosen(), fixed=fixed_in_sweep() if in_sweep() else ())
    check_train(config)
    config.pop("reproduce", None)

    return train(config, folder)


@job
def eval_job(cfg: DictConfig, folder: Path) -> float:
    """Evaluate a checkpoint and return the error: 1 - mean accuracy, or the mean error of a regression."""
    with starting():
        from metarun.commands.evaluate import evaluate
        from metarun.objectives import error

    if here().first:
        refuse_run(folder)
    report = evaluate(eval_config(cfg, *_chosen()), folder)
    return error(report["metric"], report["mean"])


@job
def predict_job(cfg: DictConfig, folder: Path) -> float:
    """Predict for the user's own data and return the error where the truth is known: 1 - accuracy, or the mean error; else 0."""
    with starting():
        from metarun.commands.predict import predict

    refuse_run(folder)
    return predict(plain(cfg, _chosen()[0]), folder)


@contextlib.contextmanager
def starting() -> Iterator[None]:
    """Tell that a command starts, while the `with` block imports torch, which takes seconds."""
    with doing("starting"):
        yield
    adopt_torch()


def _chosen() -> tuple[dict[str, Any], list[str]]:
    """Return the option of each group, and the overrides of the command line."""
    config = HydraConfig.get()
    return dict(config.runtime.choices), list(config.overrides.task)


JOBS: dict[str, Callable[[DictConfig], Any]] = {"train": train_job, "eval": eval_job, "predict": predict_job}


def run(command: str, arguments: list[str], folders: RunFolders | None = None) -> int:
    """Hand `arguments` to Hydra and return the exit code: 0, or that of a sweep with failed jobs, which are named on stderr.

    folders: notes the folders that the command makes. Raises UserError for what Hydra or a single job refuses.
    """
    folders = folders or RunFolders()
    os.environ["HYDRA_FULL_ERROR"] = "1"  # exceptions arrive here instead of being printed
    os.environ.setdefault("PYTHONSAFEPATH", "1")  # the processes of a sweep do not search the current folder for modules
    note_command()
    note_program()
    words = prepare(command, arguments)
    check_options(words)
    check_chosen(words)
    sys.argv = ["metarun", *words]
    try:
        with folders.in_use():
            hydra.main(version_base="1.3", config_path="pkg://metarun.configs", config_name=command)(JOBS[command])()
    except KeyboardInterrupt:
        folders.discard()
        raise
    except Crash as crash:
        raise crash.error from crash.error.__cause__
    except Refusal as refusal:
        folders.discard()
        raise refusal.error from refusal
    except Exception as error:
        sentence = explain(error) or (fault_in_files(words) if is_hydras(error) else None)
        if sentence is None:
            raise
        folders.discard()
        raise UserError(sentence) from error
    finish(folders.sweep.path if folders.sweep is not None and here().first else None)
    return name_failures(failures_of(folders.sweep))
