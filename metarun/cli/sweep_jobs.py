"""The jobs of a sweep for a person: how many there are, and what each of them has of its own."""

from __future__ import annotations

import contextlib
import math
import os
from collections.abc import Sequence

from hydra.core.hydra_config import HydraConfig
from hydra.core.override_parser.overrides_parser import OverridesParser
from omegaconf import DictConfig, OmegaConf

COUNT = "METARUN_JOBS"
"""The environment variable that holds the number of jobs; the processes of a launcher inherit it."""


def note_jobs(config: DictConfig) -> None:
    """Note the number of jobs of a sweep in the environment. config: the sweep's, with Hydra's own keys."""
    count = count_of(list(config.hydra.overrides.task), OmegaConf.to_container(config.hydra.sweeper, resolve=True))
    if "optuna" in str(config.hydra.sweeper.get("_target_")).lower():
        with contextlib.suppress(ImportError):  # Hydra says what is missing
            import optuna

            optuna.logging.disable_default_handler()  # it prints lines with the time and a level
            optuna.logging.enable_propagation()
    os.environ.pop(COUNT, None)
    if count is not None:
        os.environ[COUNT] = str(count)


def count_of(overrides: Sequence[str], sweeper: object) -> int | None:
    """Return the number of jobs: the trials of a search, or the product of the numbers of values; None where a sweeper is unknown."""
    node = sweeper if isinstance(sweeper, dict) else {}
    if isinstance(node.get("n_trials"), int):
        return int(node["n_trials"])
    if not is_grid(node.get("_target_")):
        return None
    typed = {override.partition("=")[0]: override for override in overrides}
    given = {key: f"{key}={value}" for key, value in (node.get("params") or {}).items()}
    parsed = OverridesParser.create().parse_overrides(list({**given, **typed}.values()))
    return math.prod(sum(1 for _ in override.sweep_string_iterator()) for override in parsed if override.is_sweep_override())


def is_grid(sweeper: object) -> bool:
    """Return whether a sweeper, named by its class, runs all combinations and reads no result."""
    return str(sweeper).endswith("BasicSweeper")


def told(error: float) -> str | None:
    """Return the line below a job about the error that the sweeper minimises; None where the sweeper reads no result."""
    if is_grid(HydraConfig.get().sweeper.get("_target_")):
        return None
    return f"the error of this job, which a sweeper minimises: {error:.4g}"


def heading() -> str:
    """Return the line above a job of a sweep, such as "job 2 of 6: algo=maml seed=1"."""
    config = HydraConfig.get()
    number, count = int(config.job.num), os.environ.get(COUNT)
    of = f" of {count}" if count is not None and number < int(count) else ""
    fixed = set(config.job.config.override_dirname.exclude_keys)
    own = [override for override in config.overrides.task if override.lstrip("+~").partition("=")[0] not in fixed]
    lead = "" if number == 0 else "\n"
    return f"{lead}job {number + 1}{of}{': ' if own else ''}{' '.join(override.lstrip('+') for override in own)}"
