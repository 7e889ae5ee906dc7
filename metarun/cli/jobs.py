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

from metarun.cli.arguments import inspects, prepare
from metarun.cli.folders import claim, discard, forget, tidy
from metarun.cli.hydra_errors import JOB_NOTE, explain
from metarun.errors import UserError

log = logging.getLogger("metarun")

DISK = (errno.ENOSPC, errno.EDQUOT, errno.EROFS)


def register_resolvers(*, claiming: bool = True) -> None:
    """Register what the root configs call. A folder's name is cached in the config, which child processes of a sweep inherit."""
    OmegaConf.register_new_resolver("metarun.claim", claim if claiming else str, replace=True, use_cache=True)
    OmegaConf.register_new_resolver("metarun.tidy", tidy, replace=True)


register_resolvers()  # at import, since a launcher's child process imports this module and no more


def job(function: Callable[[DictConfig, Path], Any]) -> Callable[[DictConfig], Any]:
    """Make a Hydra job of a function of (config, run folder).

    A UserError ends a single run at once with its sentence and exit code 2. In a sweep it goes into that job's log and the
    other jobs run first. Any other exception gets a note that marks it as ours, so that it keeps its traceback.
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
    """Say what is wrong with a job and end it."""
    if HydraConfig.get().mode == RunMode.MULTIRUN:
        log.error("%s", error)
        raise error
    discard()
    print(f"metarun: {error}", file=sys.stderr)
    raise SystemExit(2)  # no Exception: Hydra would print lines of its own about it


@job
def train_job(cfg: DictConfig, folder: Path) -> float:
    """Train and return the best validation score, which a sweeper maximises or minimises."""
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
    config["chosen"] = {group: config["chosen"][group] for group in ("algo", "task", "backbone", "device")}
    from metarun.commands.evaluate import evaluate

    return float(evaluate(config, folder)["mean"])


def plain(cfg: DictConfig) -> dict[str, Any]:
    """Return the whole config resolved, in plain containers, and under `chosen` the option of each group."""
    try:
        config = OmegaConf.to_container(cfg, resolve=True, throw_on_missing=True)
    except OmegaConfBaseException as error:
        raise UserError(explain(error) or str(error)) from error
    assert isinstance(config, dict)
    return {**{str(key): value for key, value in config.items()}, "chosen": choices()}


def choices() -> dict[str, str | None]:
    """Return the chosen option of each of metarun's own groups."""
    return {group: option for group, option in HydraConfig.get().runtime.choices.items() if "hydra" not in group.split("/")}


def resume_config(cfg: DictConfig) -> dict[str, Any]:
    """Return what `resume=` comes with; all else is in the checkpoint.

    resume: the path as typed.
    overrides: dotted key -> value for each override typed; a group's choice is its name -> the option.
    groups: the resolved content of each group whose option was typed.
    """
    overrides = {key: value for key, value in typed_keys().items() if key != "resume"}
    groups = {key: OmegaConf.to_container(cfg[key], resolve=True) for key in overrides if key in choices() and key in cfg}
    return {"resume": str(Path(str(cfg.resume)).expanduser()), "overrides": overrides, "groups": groups}


def typed_keys() -> dict[str, Any]:
    """Return dotted key -> value of each override that was typed; a group's choice is its name -> the option."""
    parsed = OverridesParser.create().parse_overrides(list(HydraConfig.get().overrides.task))
    return {override.key_or_group: override.value() for override in parsed}


JOBS: dict[str, Callable[[DictConfig], Any]] = {"train": train_job, "eval": eval_job}


def run(command: str, arguments: list[str]) -> int:
    """Hand `arguments` to Hydra; UserError for what it refuses."""
    os.environ["HYDRA_FULL_ERROR"] = "1"  # exceptions arrive here instead of being printed
    if os.getcwd() not in sys.path:
        sys.path.append(os.getcwd())  # a console script lacks it, and a user's mine.py lies there
    words = prepare(command, arguments)
    register_resolvers(claiming=not inspects(words))
    forget()
    sys.argv = ["metarun", *words]
    try:
        hydra.main(version_base="1.3", config_path="pkg://metarun.configs", config_name=command)(JOBS[command])()
    except KeyboardInterrupt:
        discard()
        raise
    except Exception as error:
        sentence = explain(error)
        if sentence is None:
            raise
        discard()
        raise UserError(sentence) from error
    return 0
