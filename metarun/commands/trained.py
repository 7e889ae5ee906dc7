"""Build a trained model from checkpoints, for evaluations and pictures."""

from __future__ import annotations

from collections.abc import Sequence
from pathlib import Path
from typing import Any, NamedTuple

import torch

from metarun.commands.ensemble import ensemble_of, stacked
from metarun.engine.keeping import kept_files
from metarun.errors import UserError
from metarun.files.paths import expanded
from metarun.records import checkpoint
from metarun.records.checkpoint import Checkpoint
from metarun.types import Learner, Params, State, traits_of
from metarun.wiring.build import Parts


class Trained(NamedTuple):
    """An algorithm with its learned tensors. Several runs form an ensemble, whose tensors have a leading axis M of members."""

    algorithm: Learner
    params: Params
    state: State


def load_members(named: Any, best: int = 1) -> tuple[list[Path], list[Checkpoint]]:
    """Load one checkpoint, or the members of an ensemble; return the paths and the checkpoints.

    named: a path or a list of paths. best: how many of its best checkpoints each run contributes, one after the other.

    Raises UserError for an empty list, for a run that has not kept so many, for members of different algorithms or backbones, and for a
    file that `checkpoint.load` refuses.
    """
    names = list(named) if isinstance(named, (list, tuple)) else [named]
    if not names:
        raise UserError("checkpoint=[] names no run; give one run, or a list of runs to score as an ensemble.")
    paths = [path for name in names for path in ([checkpoint.resolve(name)] if best == 1 else kept_paths(name, best))]
    members = [checkpoint.load(path) for path in paths]
    for path, member in zip(paths, members, strict=True):
        for group in ("algo", "backbone"):
            if member.config[group] != members[0].config[group]:
                raise UserError(f"{path} has another {group} than {paths[0]}; the members of an ensemble may differ only in their weights.")
    return paths, members


def kept_paths(run: str, best: int) -> list[Path]:
    """Return the files of the `best` best checkpoints of a run folder, the best one first; UserError where the run kept fewer."""
    if expanded(run).is_file():
        raise UserError(f"best={best} needs a run folder, and {run} is one checkpoint; name the folder of its run.")
    last = checkpoint.resolve(run, default=checkpoint.LAST)
    stored = checkpoint.load(last)
    keep, names = stored.config.get("keep", 1), kept_files(stored.best)
    if keep < best:
        raise UserError(f"best={best} needs a run that was trained with keep={best} or more, and {run} was trained with keep={keep}.")
    if len(names) < best:
        raise UserError(f"{run} has kept {len(names)} checkpoints so far, fewer than best={best}; give best={max(len(names), 1)}.")
    return [last.with_name(name) for name in names[:best]]


def assemble(parts: Parts, members: Sequence[Checkpoint]) -> Trained:
    """Put the members' parameters and state into the algorithm of `parts`.

    Raises UserError where a parameter is missing, or has another shape than the config of `parts` needs (for example other ways).
    """
    fitted = [_fit(member, parts) for member in members]
    if len(fitted) == 1:
        return Trained(parts.algorithm, *fitted[0])
    params, state = (stacked(each) for each in zip(*fitted, strict=True))
    return Trained(ensemble_of(parts.algorithm), params, state)


def _fit(stored: Checkpoint, parts: Parts) -> tuple[Params, State]:
    expected, state = parts.algorithm.init(torch.tensor(0))
    prefixes = traits_of(parts.algorithm).training_only
    for name, value in expected.items():
        if name.startswith(prefixes):
            continue
        if name not in stored.params:
            raise UserError(
                f"the checkpoint has no parameter '{name}', which this config needs; evaluate it with the network it was trained with."
            )
        if stored.params[name].shape != value.shape:
            was, now = tuple(stored.params[name].shape), tuple(value.shape)
            hint = "its head has a fixed number of ways" if name.startswith("head.") else "the network was trained for other inputs"
            raise UserError(f"the checkpoint's '{name}' has shape {was} and this task needs {now}: {hint}; evaluate it as it was trained.")
    check_state(stored, state)
    return stored.params, stored.state


def check_state(stored: Checkpoint, expected: State) -> None:
    """Raise UserError where the checkpoint lacks a state tensor of the algorithm, as a file of an earlier version of metarun may."""
    for name in expected:
        if name not in stored.state:
            raise UserError(
                f"the checkpoint has no state '{name}', which this algorithm needs: an earlier metarun ({stored.version}) wrote the file. "
                "Train the run again."
            )
