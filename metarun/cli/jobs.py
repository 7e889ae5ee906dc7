"""The three jobs that Hydra runs, train, eval and predict: from an argument list to a plain config and a run folder."""

from __future__ import annotations

import contextlib
import functools
import logging
import os
import signal
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
from metarun.cli.stops import check_going_on, hear_signals, how_to_go_on, leave, stop_of
from metarun.cli.streams import make_steady
from metarun.cli.sweep_jobs import heading, told
from metarun.cli.sweep_table import finish
from metarun.cli.sweeps import fail, failures_of, fixed_in_sweep, in_sweep, name_failures, sweep_folder
from metarun.cli.workers import ending_with_command, in_other_process, is_queued, is_worker, note_command
from metarun.errors import Stopped, UserError
from metarun.files.commands import note_program, packages_of
from metarun.files.run_folder import AUTO, refuse_run
from metarun.processes.ranks import here
from metarun.records.console import UNTOLD, adopt_torch, plain_warnings
from metarun.records.display import display, doing

# At import: a child process of a sweep's launcher imports this module and no more.
log = logging.getLogger("metarun")
logging.raiseExceptions = False  # a log that cannot be written prints no traceback


def job(function: Callable[[DictConfig, Path], float]) -> Callable[[DictConfig], Any]:
    """Make a Hydra job of a function of (config, run folder) that returns an error to be minimised, or `Unfinished`.

    A UserError ends a single run at once. Any other exception gets a note that marks it as a bug, so that it keeps its traceback. In a
    sweep a job that fails in either way returns infinity, and the other jobs run (`metarun.cli.sweeps`).
    """

    @functools.wraps(function)
    def run_job(cfg: DictConfig) -> Any:
        folder = Path(HydraConfig.get().runtime.output_dir)
        if is_worker():
            make_steady()
        tracebacks.trust([*packages_of(OmegaConf.to_container(cfg)), *map(str, cfg.get("trust") or ())])
        try:
            if in_other_process():
                hear_signals()
            with ending_with_command(), held(folder), plain_warnings():
                if in_sweep():
                    check_going_on(sweep_folder())
                    display().say(heading())
                error = function(cfg, folder)
        except KeyboardInterrupt as stop:
            if in_other_process() and in_sweep():
                return leave(stop, sweep_folder())
            raise
        except Exception as exception:
            mistake = mistake_of(exception, folder)
            if in_sweep():
                return fail(exception, mistake, folder)
            if mistake is not None:
                raise Refusal(mistake) from exception
            exception.add_note(f"{JOB_NOTE}{folder}")
            log.error("the job failed", exc_info=exception, extra=UNTOLD)
            raise Crash(exception) from exception
        if in_sweep() and (line := told(error)) is not None:
            print(line)
        return error

    return run_job


@job
def train_job(cfg: DictConfig, folder: Path) -> float:
    """Train and return the error of the best validation: 1 - accuracy, or the error of a regression."""
    with starting():
        from metarun.commands.keys import check_train
        from metarun.commands.train import train

    config = train_config(cfg, *_chosen(), fixed=fixed_in_sweep() if in_sweep() else ())
    if config.get("resume") is None and is_queued():  # a job that was queued again has the same words and the same folder
        config["resume"] = AUTO
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
    except KeyboardInterrupt as stop:
        folders.discard()
        show_table(folders)
        say_how_to_go_on(command, arguments, folders, int(getattr(stop, "number", signal.SIGINT)))
        raise
    except Crash as crash:
        raise crash.error from crash.error.__cause__
    except Refusal as refusal:
        folders.discard()
        raise refusal.error from refusal
    except Exception as error:
        if folders.sweep is not None and stop_of(folders.sweep.path) is not None:
            show_table(folders)
        check_stopped(command, arguments, folders)
        sentence = explain(error) or (fault_in_files(words) if is_hydras(error) else None)
        if sentence is None:
            raise
        folders.discard()
        raise UserError(sentence) from error
    show_table(folders)
    code = name_failures(failures_of(folders.sweep))
    check_stopped(command, arguments, folders)
    return code


def show_table(folders: RunFolders) -> None:
    """Print the table of a sweep, also of one that a signal has ended."""
    finish(folders.sweep.path if folders.sweep is not None and here().first else None)


def check_stopped(command: str, arguments: list[str], folders: RunFolders) -> None:
    """Raise Stopped where a signal ended the jobs of a sweep in other processes, after the line on how to finish the sweep."""
    if folders.sweep is not None and (number := stop_of(folders.sweep.path)) is not None:
        say_how_to_go_on(command, arguments, folders, number)
        raise Stopped(number)


def say_how_to_go_on(command: str, arguments: list[str], folders: RunFolders, number: int) -> None:
    """Say on stderr how to finish a sweep that a signal ended; nothing where the command runs no sweep."""
    if folders.sweep is not None and folders.watch is not None and folders.sweep.path.is_dir():
        number = stop_of(folders.sweep.path) or number
        print(how_to_go_on(command, arguments, folders.sweep.path, number, folders.watch.launcher), file=sys.stderr, flush=True)
