"""From a composed config to the plain dictionary that a command takes. Nothing of the process changes here."""

from __future__ import annotations

import errno
from collections.abc import Collection, Mapping, Sequence
from pathlib import Path
from typing import Any

from hydra.core.override_parser.overrides_parser import OverridesParser
from omegaconf import DictConfig, OmegaConf
from omegaconf.errors import OmegaConfBaseException

from metarun.cli.arguments import GROUPS
from metarun.cli.folders import job_folder, tidy
from metarun.cli.hydra_errors import explain
from metarun.errors import UserError
from metarun.files.paths import expanded
from metarun.files.run_folder import AUTO, has_checkpoints

DISK = (errno.ENOSPC, errno.EDQUOT, errno.EROFS)

NO_PARAMETERS = ("logger", "trust", "resume", "reproduce")
"""Keys and groups that change no result, so no logger shows them as hyperparameters."""


def hydra_files(resume: Any, folder: Any) -> str | None:
    """Return the name of the folder for the config that Hydra writes; None where a run goes on, so that the run keeps the config it has."""
    return None if resume == AUTO and folder is not None and has_checkpoints(Path(str(folder))) else ".hydra"


# At import: the folders of a composed config need these functions.
OmegaConf.register_new_resolver("metarun.tidy", tidy, replace=True)
OmegaConf.register_new_resolver("metarun.job_folder", job_folder, replace=True)
OmegaConf.register_new_resolver("metarun.hydra_files", hydra_files, replace=True)


def train_config(cfg: DictConfig, chosen: Mapping[str, Any], overrides: Sequence[str], fixed: Collection[str] = ()) -> dict[str, Any]:
    """Return the config of a training, or as far as it is not in the checkpoint, that of a resumed one.

    cfg: composed. chosen: group -> its option. overrides: of the command line. fixed: in a sweep, the keys that all its jobs have alike.
    Under "typed", the config of a training has the key and value of each override that is not fixed.
    """
    if cfg.get("resume") not in (None, AUTO):
        return resume_config(cfg, chosen, overrides)
    typed = {key: value for key, value in typed_keys(overrides).items() if key not in fixed and key.split(".")[0] not in NO_PARAMETERS}
    return {**plain(cfg, chosen), "typed": typed}


def eval_config(cfg: DictConfig, chosen: Mapping[str, Any], overrides: Sequence[str]) -> dict[str, Any]:
    """Return the config of an evaluation. cfg, chosen, overrides: as in `train_config`."""
    config = plain(cfg, chosen)
    config.pop("optimizer", None)
    for group in ("algo", "task", "backbone"):
        config.setdefault(group, {})
    config["typed"] = list(typed_keys(overrides))
    config["options"] = {group: config["options"].get(group) for group in ("algo", "task", "backbone", "device")}
    return config


def plain(cfg: DictConfig, chosen: Mapping[str, Any]) -> dict[str, Any]:
    """Return the whole config resolved, in plain containers, and under `options` the option of each group."""
    try:
        config = OmegaConf.to_container(cfg, resolve=True, throw_on_missing=True)
    except OmegaConfBaseException as error:
        raise UserError(explain(error) or str(error)) from error
    assert isinstance(config, dict)
    return {**{str(key): value for key, value in config.items()}, "options": options(chosen)}


def options(chosen: Mapping[str, Any]) -> dict[str, str | None]:
    """Return the option of each of metarun's own groups, such as algo -> maml; None where a group has none."""
    return {group: option for group, option in chosen.items() if "hydra" not in group.split("/")}


def resume_config(cfg: DictConfig, chosen: Mapping[str, Any], overrides: Sequence[str]) -> dict[str, Any]:
    """Return the config of a resumed run, as far as it is not in the checkpoint.

    resume: the typed path.
    overrides: dotted key -> value of each typed override; for a group, its name -> the option.
    groups: the resolved content of each group whose option was typed.
    """
    typed = {key: value for key, value in typed_keys(overrides).items() if key != "resume"}
    groups = {key: OmegaConf.to_container(cfg[key], resolve=True) for key in typed if key in (*options(chosen), *GROUPS) and key in cfg}
    return {"resume": str(expanded(str(cfg.resume))), "overrides": typed, "groups": groups}


def typed_keys(overrides: Sequence[str]) -> dict[str, Any]:
    """Return dotted key -> value of each typed override; for a group, its name -> the option."""
    parsed = OverridesParser.create().parse_overrides(list(overrides))
    return {override.key_or_group: override.value() for override in parsed}


def mistake_of(exception: Exception, folder: Path) -> UserError | None:
    """Return the sentence about a job's exception, or None for a bug. A full disk is no bug."""
    if isinstance(exception, UserError):
        return exception
    if isinstance(exception, OSError) and exception.errno in DISK:
        return UserError(f"{exception.filename or folder}: {exception.strerror}.")
    return None
