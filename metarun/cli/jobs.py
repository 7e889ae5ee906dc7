"""The two jobs that Hydra runs, train and eval: from an argument list to a plain config and a run folder."""

from __future__ import annotations

import errno
import functools
import logging
import os
import sys
from collections.abc import Callable
from pathlib import Path
from typing import Any, NoReturn

import hydra
from hydra.core.hydra_config import HydraConfig
from hydra.core.override_parser.overrides_parser import OverridesParser
from hydra.types import RunMode
from omegaconf import DictConfig, OmegaConf
from omegaconf.errors import OmegaConfBaseException

from metarun.cli.arguments import prepare
from metarun.cli.folders import Refusal, RunFolders, tidy
from metarun.cli.hydra_errors import JOB_NOTE, explain
from metarun.errors import UserError

log = logging.getLogger("metarun")

DISK = (errno.ENOSPC, errno.EDQUOT, errno.EROFS)


# At import: a child process of a sweep's launcher imports this module and no more.
OmegaConf.register_new_resolver("metarun.tidy", tidy, replace=True)


def job(function: Callable[[DictConfig, Path], Any]) -> Callable[[DictConfig], Any]:
    """Make a Hydra job of a function of (config, run folder).

    A UserError ends a single run at once. In a sweep it goes into that job's log and the other jobs run first. Any other
    exception gets a note that marks it as a bug of metarun, so that it keeps its traceback.
    """

    @functools.wraps(function)
    def run_job(cfg: DictConfig) -> Any:
        folder = Path(HydraConfig.get().runtime.output_dir)
        try:
            return function(cfg, folder)
        except UserError as error:
            refuse(error)
        except Exception as error:
            if isinstance(error, OSError) and error.errno in DISK:
                refuse(UserError(f"{error.filename or folder}: {error.strerror}."))
            error.add_note(f"{JOB_NOTE}{folder}")
            raise

    return run_job


def refuse(error: UserError) -> NoReturn:
    """End a job because of the user's mistake."""
    if HydraConfig.get().mode == RunMode.MULTIRUN:
        log.error("%s", error)
        raise error
    raise Refusal(error)


@job
def train_job(cfg: DictConfig, folder: Path) -> float:
    """Train and return the best validation score, which a sweeper may maximise or minimise."""
    config = plain(cfg) if cfg.resume is None else resume_config(cfg)
    config.pop("reproduce", None)
    from metarun.commands.train import train

    return train(config, folder)


@job
def eval_job(cfg: DictConfig, folder: Path) -> float:
    """Evaluate a checkpoint and return the mean score."""
    config = plain(cfg)
    config.pop("optimizer", None)
    for group in ("algo", "task", "backbone"):
        config.setdefault(group, {})
    config["typed"] = list(typed_keys())
    config["options"] = {group: config["options"][group] for group in ("algo", "task", "backbone", "device")}
    from metarun.commands.evaluate import evaluate

    return float(evaluate(config, folder)["mean"])


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
    return {"resume": str(Path(str(cfg.resume)).expanduser()), "overrides": overrides, "groups": groups}


def typed_keys() -> dict[str, Any]:
    """Return dotted key -> value of each typed override; for a group, its name -> the option."""
    parsed = OverridesParser.create().parse_overrides(list(HydraConfig.get().overrides.task))
    return {override.key_or_group: override.value() for override in parsed}


JOBS: dict[str, Callable[[DictConfig], Any]] = {"train": train_job, "eval": eval_job}


def run(command: str, arguments: list[str], folders: RunFolders | None = None) -> int:
    """Hand `arguments` to Hydra and return the exit code 0.

    folders: notes the folders that the command makes. Raises UserError for what Hydra or the job refuses.
    """
    folders = folders or RunFolders()
    os.environ["HYDRA_FULL_ERROR"] = "1"  # exceptions arrive here instead of being printed
    if os.getcwd() not in sys.path:
        sys.path.append(os.getcwd())  # a console script lacks the current folder, where a user's mine.py lies
    sys.argv = ["metarun", *prepare(command, arguments)]
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
        sentence = explain(error)
        if sentence is None:
            raise
        folders.discard()
        raise UserError(sentence) from error
    return 0
