"""Changes to the words of a command line before Hydra reads them. Text in, text out; this module does not import Hydra."""

from __future__ import annotations

import re
from pathlib import Path

from metarun.cli.paths import as_typed, typed_paths
from metarun.cli.sources import with_sources
from metarun.cli.words import about_flag
from metarun.errors import UserError
from metarun.files.paths import expanded, quoted
from metarun.files.run_folder import AUTO

GROUPS = ("algo", "task", "backbone", "device", "optimizer", "logger", "experiment")
VALUE_FLAGS = ("--cfg", "-c", "--package", "-p", "--config-path", "-cp", "--config-name", "-cn", "--config-dir", "-cd")
INSPECTING = ("--cfg", "-c", "--info", "-i", "--help", "-h", "--hydra-help", "--shell-completion", "-sc", "--version")
FLAGS = (*VALUE_FLAGS, *INSPECTING, "--resolve", "--run", "-r", "--multirun", "-m")
CONFIG_DIR = ("--config-dir=~", "-cd=~")
"""A shell does not expand the `~` in the middle of a word."""
INFO = ("all", "config", "defaults", "defaults-tree", "plugins", "searchpath")


def split(arguments: list[str]) -> tuple[list[str], list[str]]:
    """Return the flags with their values, and the overrides, each in order. Hydra's parser needs the overrides together.

    Raises UserError for a flag that Hydra does not have.
    """
    flags: list[str] = []
    overrides: list[str] = []
    rest = list(arguments)
    while rest:
        word = rest.pop(0)
        if not word.startswith("-"):
            overrides.append(word)
        elif word in ("--info", "-i"):
            flags.append(f"--info={rest.pop(0) if rest and rest[0] in INFO else 'all'}")
        elif (name := word.partition("=")[0]) not in FLAGS:
            raise UserError(about_flag(name, FLAGS))
        elif word.startswith(CONFIG_DIR):
            flags.append(f"{name}={expanded(word.partition('=')[2])}")
        else:
            flags.append(word)
            if word in VALUE_FLAGS and rest:
                flags.append(rest.pop(0))
    return flags, overrides


def sweeps(flags: list[str]) -> bool:
    """Return whether the flags ask for a sweep."""
    return "-m" in flags or "--multirun" in flags


def chosen_groups(overrides: list[str]) -> set[str]:
    """Return the groups for which an override chooses an option: `task=omniglot`, not `task.shots=5`."""
    words = (re.match(r"\+*(\w+)=(?!null$)", override) for override in overrides)
    return {word[1] for word in words if word and word[1] in GROUPS}


def open_groups(overrides: list[str]) -> list[str]:
    """Return the overrides with `++` before each key whose group has no chosen option.

    These keys belong to the checkpoint's config, which Hydra does not see. With `++` Hydra passes them on (and sweeps over them)
    unchecked; `metarun.commands` checks them against the checkpoint's config.
    """
    outside = [group for group in GROUPS if group not in chosen_groups(overrides)]
    return [f"++{override}" if override.startswith(tuple(f"{group}." for group in outside)) else override for override in overrides]


def nested_options(overrides: list[str]) -> list[str]:
    """Return the overrides with the option of a nested group as Hydra writes it: `task.source=glyphs` becomes `task/source=glyphs`."""
    return [re.sub(r"^(\+*)task\.source=(?=[\w,]+$)(?!null$)", r"\1task/source=", override) for override in overrides]


def resumed(overrides: list[str]) -> str | None:
    """Return the path of the last `resume=PATH`, or None."""
    paths = [override.partition("=")[2] for override in overrides if re.match(r"\+*resume=", override)]
    return None if not paths or paths[-1] == "null" else typed_paths(paths[-1])[0]


def run_folder(path: str) -> Path:
    """Return the run folder of `resume=PATH`, which names the folder, its checkpoints/ or a checkpoint; UserError where it is no run."""
    folder = expanded(path)
    if not folder.exists():
        raise UserError(f"resume={path}: there is no such run folder.")
    if folder.is_file():
        folder = folder.parent
    if folder.name == "checkpoints":
        folder = folder.parent
    if not (folder / "checkpoints").is_dir():
        raise UserError(f"resume={path}: it holds no checkpoints/, so it is no run, or it stopped before its first save.")
    return folder.resolve()


def fixed_keys(overrides: list[str]) -> list[str]:
    """Return the keys with a single value in a sweep; the names of its jobs leave them out."""
    # A comma in quotes or in a list separates no values.
    bare = (re.sub(r"\[[^]]*\]", "[]", re.sub(r"'(\\.|[^'\\])*'", "''", override)) for override in overrides)
    words = (re.match(r"\+*([\w.]+)=(.*)", override, re.DOTALL) for override in bare)
    return [word[1] for word in words if word and not re.search(r",|^(choice|range|interval|glob|tag|sort|shuffle)\(", word[2])]


def prepare(command: str, arguments: list[str]) -> list[str]:
    """Return the words for Hydra.

    `eval`, and `train` with `resume=`, start from a checkpoint's config (`open_groups`). A resumed run keeps its folder and the files
    that Hydra wrote there at its start. `resume=auto` keeps the config of the command line. Raises UserError where `resume=` names no run,
    or where `resume=RUN` stands in a sweep.
    """
    flags, typed = split(arguments)
    overrides = with_sources([as_typed(override, sweeps(flags)) for override in typed], command, sweeps(flags))
    if sweeps(flags) and (keys := [key for key in fixed_keys(overrides) if not key.startswith("hydra.")]):
        flags.append(f"hydra.job.config.override_dirname.exclude_keys=[{','.join(keys)}]")
    resume = resumed(typed) if command == "train" else None
    if resume in (None, AUTO) and (command == "train" or "task" in chosen_groups(overrides)):
        overrides = nested_options(overrides)
    if resume in (None, AUTO):
        return [*flags, *(open_groups(overrides) if command == "eval" else overrides)]
    if sweeps(flags):
        raise UserError("resume=RUN continues one run; to go on with a sweep, give resume=auto and the sweep's hydra.sweep.dir=FOLDER.")
    folder = f"hydra.run.dir={quoted(str(run_folder(resume)))}"
    return [*flags, *open_groups(overrides), folder, "hydra.output_subdir=null"]
