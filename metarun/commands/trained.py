"""Build a trained model from checkpoints, for evaluations and pictures."""

from __future__ import annotations

import dataclasses
import sys
from collections.abc import Sequence
from pathlib import Path
from typing import Any, NamedTuple

import torch

from metarun.commands.ensemble import ensemble_of, stacked
from metarun.engine.keeping import kept_files
from metarun.errors import UserError, printable
from metarun.files.paths import expanded
from metarun.network import FROZEN
from metarun.records import checkpoint
from metarun.records.checkpoint import Checkpoint, Found
from metarun.records.display import display
from metarun.types import Algorithm, Learner, Params, State, part_of, traits_of
from metarun.wiring.build import Parts
from metarun.wiring.sizes import check_network
from metarun.wiring.stored import accepted, check_form
from metarun.wiring.tensors import check_no_others, check_tensors, check_type


class Trained(NamedTuple):
    """An algorithm with its learned tensors. Several runs form an ensemble, whose tensors have a leading axis M of members."""

    algorithm: Learner
    params: Params
    state: State


def load_members(named: Any, best: int = 1, trust: Any = ()) -> tuple[list[Path], list[Checkpoint]]:
    """Load one checkpoint, or the members of an ensemble; return the paths and the checkpoints.

    named: a path or a list of paths. best: how many of its best checkpoints each run contributes, one after the other.
    trust: the packages besides metarun that the configs may name.

    Raises UserError for an empty list, for a run that has not kept so many, for members of different algorithms or backbones, for a
    file that `checkpoint.load` refuses, and for a config that `metarun.wiring.stored.accepted` refuses.
    """
    if isinstance(best, bool) or not isinstance(best, int) or best < 1:
        raise UserError(f"best={best!r} should be a whole number from 1.")
    names = list(named) if isinstance(named, (list, tuple)) else [named]
    if not names:
        raise UserError("checkpoint=[] names no run; give one run, or a list of runs to score as an ensemble.")
    found = [load_run(path, trust=trust) for name in names for path in ([name] if best == 1 else kept_paths(name, best))]
    paths, members = [each.path for each in found], [each.checkpoint for each in found]
    for path, member in zip(paths, members, strict=True):
        for group in ("algo", "backbone"):
            if member.config[group] != members[0].config[group]:
                raise UserError(f"{path} has another {group} than {paths[0]}; the members of an ensemble may differ only in their weights.")
    return paths, members


def load_run(path: str | Path, default: str = checkpoint.BEST, trust: Any = ()) -> Found:
    """Load the checkpoint that a path names, with a config that metarun may build from; print a line where an older file takes its place.

    Raises UserError as `checkpoint.find` and `metarun.wiring.stored.accepted` do.
    """
    found = checkpoint.find(path, default)
    if found.note is not None:
        display().say(f"metarun: {printable(found.note)}", sys.stdout)
    config = accepted(found.checkpoint.config, trust)
    check_network(config, {**found.checkpoint.params, **part_of(found.checkpoint.state, FROZEN)})
    return found._replace(checkpoint=dataclasses.replace(found.checkpoint, config=config))


def kept_paths(run: str, best: int) -> list[Path]:
    """Return the files of the `best` best checkpoints of a run folder, the best one first; UserError where the run kept fewer."""
    if expanded(run).is_file():
        raise UserError(f"best={best} needs a run folder, and {run} is one checkpoint; name the folder of its run.")
    last, stored, _ = checkpoint.find(run, default=checkpoint.LAST)
    check_form(stored.config)
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
    """Return the parameters and the state that the algorithm needs, checked."""
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
        check_type(name, stored.params[name], value)
    check_state(stored, state)
    params = {name: value for name, value in stored.params.items() if name in expected}
    return params, {name: stored.state[name] for name in state}


def check_resumed(stored: Checkpoint, algorithm: Algorithm) -> tuple[Params, State]:
    """Return the parameters and the state of a stopped run; UserError where they are not exactly those that the algorithm needs."""
    expected, state = algorithm.init(torch.tensor(0))
    check_tensors(stored.params, expected, "parameter")
    check_no_others(stored.params, expected, "parameter")
    check_state(stored, state)
    return stored.params, {name: value for name, value in stored.state.items() if name in state}


def check_state(stored: Checkpoint, expected: State) -> None:
    """Raise UserError where the checkpoint lacks a state tensor of the algorithm, or has one of another shape or type.

    A file of an earlier version of metarun may lack one.
    """
    for name in expected:
        if name not in stored.state:
            raise UserError(
                f"the checkpoint has no state '{name}', which this algorithm needs: an earlier metarun ({printable(stored.version)}) wrote "
                "the file. Train the run again."
            )
    check_tensors(stored.state, expected, "state")
