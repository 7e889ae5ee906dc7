"""The two jobs that Hydra runs, train and eval: from an argument list to a plain config and a run folder."""

from __future__ import annotations

import errno
import functools
import logging
import os
import sys
from collections.abc import Callable
from pathlib import Path
from typing import Any

import hydra
from hydra.core.hydra_config import HydraConfig
from hydra.core.override_parser.overrides_parser import OverridesParser
from omegaconf import DictConfig, OmegaConf
from omegaconf.errors import OmegaConfBaseException

from metarun.cli.arguments import prepare
from metarun.cli.config_files import check_chosen, fault_in_files
from metarun.cli.folders import Refusal, RunFolders, tidy
from metarun.cli.groups import check_options
from metarun.cli.hydra_errors import JOB_NOTE, explain, is_hydras
from metarun.cli.streams import make_steady
from metarun.cli.sweeps import fail, failures_of, in_sweep, name_failures
from metarun.cli.workers import ending_with_command, is_worker, note_command
from metarun.errors import UserError
from metarun.files.lock import FolderLock
from metarun.files.paths import expanded
from metarun.files.run_folder import CHECKPOINTS, refuse_run
from metarun.files.writing import remove_leftovers

DISK = (errno.ENOSPC, errno.EDQUOT, errno.EROFS)


# At import: a child process of a sweep's launcher imports this module and no more.
OmegaConf.register_new_resolver("metarun.tidy", tidy, replace=True)
logging.raiseExceptions = False  # a log that cannot be written prints no traceback


def job(function: Callable[[DictConfig, Path], float]) -> Callable[[DictConfig], float]:
    """Make a Hydra job of a function of (config, run folder) that returns an error to be minimised.

    A UserError ends a single run at once. Any other exception gets a note that marks it as a bug of metarun, so that it keeps its
    traceback. In a sweep a job that fails in either way returns infinity, and the other jobs run (`metarun.cli.sweeps`).
    """

    @functools.wraps(function)
    def run_job(cfg: DictConfig) -> float:
        folder = Path(HydraConfig.get().runtime.output_dir)
        if is_worker():
            make_steady()
        try:
            with ending_with_command(), FolderLock(folder):
                remove_leftovers(folder)
                remove_leftovers(folder / CHECKPOINTS)
                error = function(cfg, folder)
        except Exception as exception:
            mistake = mistake_of(exception, folder)
            if in_sweep():
                return fail(exception, mistake, folder)
            if mistake is not None:
                raise Refusal(mistake) from exception
            exception.add_note(f"{JOB_NOTE}{folder}")
            raise
        if in_sweep():
            print(f"the error of this job, which a sweeper minimises: {error:.4g}")
        return error

    return run_job


def mistake_of(exception: Exception, folder: Path) -> UserError | None:
    """Return the sentence about a job's exception, or None for a bug. A full disk is no bug."""
    if isinstance(exception, UserError):
        return exception
    if isinstance(exception, OSError) and exception.errno in DISK:
        return UserError(f"{exception.filename or folder}: {exception.strerror}.")
    return None


@job
def train_job(cfg: DictConfig, folder: Path) -> float:
    """Train and return the error of the best validation: 1 - accuracy, or the error of a regression."""
    from metarun.commands.keys import check_train
    from metarun.commands.train import train

    config = plain(cfg) if cfg.get("resume") is None else resume_config(cfg)
    check_train(config)
    config.pop("reproduce", None)

    return train(config, folder)


@job
def eval_job(cfg: DictConfig, folder: Path) -> float:
    """Evaluate a checkpoint and return the error: 1 - mean accuracy, or the mean error of a regression."""
    config = plain(cfg)
    config.pop("optimizer", None)
    for group in ("algo", "task", "backbone"):
        config.setdefault(group, {})
    config["typed"] = list(typed_keys())
    config["options"] = {group: config["options"].get(group) for group in ("algo", "task", "backbone", "device")}
    from metarun.commands.evaluate import evaluate
    from metarun.objectives import error

    refuse_run(folder)
    report = evaluate(config, folder)
    return error(report["metric"], report["mean"])


def plain(cfg: DictConfig) -> dict[str, Any]:
    """Return the whole config resolved, in plain containers, and under `options` the option of each group."""
    try:
        config = OmegaConf.to_container(cfg, resolve=True, throw_on_missing=True)
    except OmegaConfBaseException as error:
        raise UserError(explain(error) or str(error)) from error
    assert isinstance(config, dict)
    return {**{str(key): value for key, value in config.items()}, "options": options()}


def options() -> dict[str, str | None]:
    """Return the option of each of metarun's own groups, such as algo -> maml; None where a group has none."""
    return {group: option for group, option in HydraConfig.get().runtime.choices.items() if "hydra" not in group.split("/")}


def resume_config(cfg: DictConfig) -> dict[str, Any]:
    """Return the config of a resumed run, as far as it is not in the checkpoint.

    resume: the typed path.
    overrides: dotted key -> value of each typed override; for a group, its name -> the option.
    groups: the resolved content of each group whose option was typed.
    """
    overrides = {key: value for key, value in typed_keys().items() if key != "resume"}
    groups = {key: OmegaConf.to_container(cfg[key], resolve=True) for key in overrides if key in options() and key in cfg}
    return {"resume": str(expanded(str(cfg.resume))), "overrides": overrides, "groups": groups}


def typed_keys() -> dict[str, Any]:
    """Return dotted key -> value of each typed override; for a group, its name -> the option."""
    parsed = OverridesParser.create().parse_overrides(list(HydraConfig.get().overrides.task))
    return {override.key_or_group: override.value() for override in parsed}


JOBS: dict[str, Callable[[DictConfig], Any]] = {"train": train_job, "eval": eval_job}


def run(command: str, arguments: list[str], folders: RunFolders | None = None) -> int:
    """Hand `arguments` to Hydra and return the exit code: 0, or that of a sweep with failed jobs, which are named on stderr.

    folders: notes the folders that the command makes. Raises UserError for what Hydra or a single job refuses.
    """
    folders = folders or RunFolders()
    os.environ["HYDRA_FULL_ERROR"] = "1"  # exceptions arrive here instead of being printed
    os.environ.setdefault("PYTHONSAFEPATH", "1")  # the processes of a sweep do not search the current folder for modules
    note_command()
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
    except Refusal as refusal:
        folders.discard()
        raise refusal.error from refusal
    except Exception as error:
        sentence = explain(error) or (fault_in_files(words) if is_hydras(error) else None)
        if sentence is None:
            raise
        folders.discard()
        raise UserError(sentence) from error
    return name_failures(failures_of(folders.sweep))
