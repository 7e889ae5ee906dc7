"""Checkpoints: plain values and tensors in one file, written atomically and read without running code from the file."""

from __future__ import annotations

import contextlib
import dataclasses
import io
import math
from collections.abc import Collection, Mapping
from dataclasses import dataclass, field
from functools import partial
from pathlib import Path
from typing import Any, NamedTuple

import torch
from torch import Tensor

import metarun
from metarun.errors import UserError, printable
from metarun.files.commands import command
from metarun.files.paths import expanded, word
from metarun.files.run_folder import CHECKPOINTS
from metarun.files.writing import keep_as, own_folder, replacing
from metarun.records.archive import DamagedError, is_whole
from metarun.records.content import Copier, digest
from metarun.records.untrusted import read

FORMAT = 5
"""Version of the file format. Add one when older versions of metarun cannot read the new files."""
READABLE = (2, 3, 4, FORMAT)
"""The formats that `load` reads. Files of format 2 have no digest and no description of their data. Files before format 4 do not say how
their inputs are prepared."""

LAST, PREVIOUS, BEST = "last.pt", "previous.pt", "best.pt"
NOTED = {"by_family": ("mean", "ci95"), "by_target": ("rmse", "mae")}
"""Entries of `Checkpoint.best` with figures of each family or target -> the figures that each must have."""
BY_STEP = ("by_step", "median_by_step")
"""The figures that are lists."""


@dataclass(frozen=True)
class Checkpoint:
    """Everything that a resumed run or an evaluation needs.

    step: outer steps done. params, state: of the algorithm, by name. optimizer: the `state_dict` of the outer optimizer.
    best: {"score": float, "mean": float, "step": int} of the best validation so far, None before the first validation. A run with several
    families or with units also has "by_family" or "by_target". With keep=k, "kept" lists these entries for each of the k best validations.
    unimproved: how many validations in a row brought no better score. validates: whether the validation after `step` was broken off;
    the resumed run begins with it. window: running sums for the next log line.
    config: resolved; metarun reads it literally and never interpolates it.
    execution: the device's choices (chunk, threads, torch version). origins: the names of the classes or tasks that the run was trained
    on, and those of the run that it started from (`metarun.types.WithOrigins`). data: the description of the files that the run reads
    (`metarun.tasks.fingerprint`); {} where they are unknown. preparation: how raw inputs become those of the run
    (`metarun.tasks.preparing`); {} where they are taken as they are. shapes: of inputs and outputs (`metarun.wiring.shapes`); {} in the
    file of an earlier metarun. variance: of a regression's observations around the predictions on validation tasks; None where the
    algorithm has a distribution of its own. version: of the metarun that wrote the file. format: of the file.
    """

    step: int
    params: dict[str, Tensor]
    state: dict[str, Tensor]
    optimizer: dict[str, Any] = field(default_factory=dict)
    best: dict[str, Any] | None = None
    unimproved: int = 0
    validates: bool = False
    window: dict[str, Any] = field(default_factory=dict)
    config: dict[str, Any] = field(default_factory=dict)
    execution: dict[str, Any] = field(default_factory=dict)
    origins: list[str] = field(default_factory=list)
    data: dict[str, Any] = field(default_factory=dict)
    preparation: dict[str, Any] = field(default_factory=dict)
    shapes: dict[str, Any] = field(default_factory=dict)
    variance: float | None = None
    version: str = metarun.__version__
    format: int = FORMAT


class Found(NamedTuple):
    """A checkpoint with its file. note: a line about a damaged file in whose place it stands, else None."""

    path: Path
    checkpoint: Checkpoint
    note: str | None = None


def save(path: str | Path, checkpoint: Checkpoint) -> None:
    """Write a checkpoint; a kill at any instant leaves a complete file behind. Raises the errors of `encode` and `write`."""
    write(path, encode(checkpoint))


def snapshot(checkpoint: Checkpoint) -> Checkpoint:
    """Return a copy on the CPU, with the same strides, that shares no memory with the run; raises TypeError as `encode` does."""
    return Checkpoint(**_content(checkpoint, copy=True))


def encode(checkpoint: Checkpoint) -> memoryview:
    """Return the bytes of the file, with a digest over the content.

    Raises TypeError for a value that is neither plain nor a tensor; the message names the place of the value.
    """
    content, buffer = _content(checkpoint), io.BytesIO()
    torch.save({**content, "digest": digest(content)}, buffer)
    return memoryview(buffer.getvalue())  # not `getbuffer`: Python 3.13 complains where the buffer is freed before its view


def write(path: str | Path, content: memoryview) -> None:
    """Write the bytes to a temporary file in the same folder, and move it into place in one rename.

    An existing `last.pt` first becomes `previous.pt`, unless it is damaged: then the older `previous.pt` stays.

    Raises UserError where the folder is a link, or where the disk refuses (full, read-only). The file at `path` then stays unchanged;
    `previous.pt` may already be a second name of it.
    """
    path = Path(path)
    try:
        own_folder(path.parent)
        with replacing(path, before=partial(_keep_previous, path)) as file:
            file.write(content)
    except OSError as error:
        raise UserError(f"cannot write the checkpoint {path}: {error.strerror}; the files saved before are unchanged.") from error


def load(path: str | Path) -> Checkpoint:
    """Read a checkpoint as data: no code in the file runs, and nothing in its config is interpolated or imported.

    Raises UserError for a file that cannot be read. For a damaged file, the message names the intact files in the same folder.
    """
    path = Path(path)
    try:
        return _load(path)
    except DamagedError as error:
        raise UserError(f"{error}{_remedy(path)}") from error


def find(path: str | Path, default: str = BEST) -> Found:
    """Load the checkpoint that a path names (`resolve`). Where it is a damaged `last.pt`, `previous.pt` takes its place.

    Where a run has no `best.pt`, since it stopped before its first validation, `last.pt` takes its place.

    Raises UserError as `resolve` and `load` do.
    """
    file = resolve(path, default)
    try:
        found = _load(file)
        instead = default == BEST and file.name == LAST and not expanded(path).is_file()
        return Found(file, found, _note_on_last(path, found) if instead else None)
    except DamagedError as error:
        previous = file.with_name(PREVIOUS)
        if file.name != LAST or not previous.is_file():
            raise UserError(f"{error}{_remedy(file)}") from error
        try:
            kept = _load(previous)
        except DamagedError as second:
            raise UserError(f"{error} {second}{_remedy(file)}") from error
        return Found(previous, kept, f"{error} {PREVIOUS} (step {kept.step}) takes its place.")


def _note_on_last(path: str | Path, last: Checkpoint) -> str:
    """Return the line about a run without a best checkpoint."""
    every = last.config.get("eval_every")
    validated = last.best is None and isinstance(every, int) and 0 < every <= last.step - last.validates
    why = "no validation was finite" if validated else "the run has not validated yet"
    return f"{path} has no {BEST}, since {why}; its {LAST} (step {last.step:,}) takes its place."


def resolve(path: str | Path, default: str = BEST) -> Path:
    """Return the checkpoint at a path: the path itself if it is a file, else the file named `default` in the folder or its `checkpoints`.

    A `last.pt` that is missing beside `previous.pt` counts as damaged: its path is returned too. So is that of `last.pt` where `best.pt` is
    wanted and the run has none. Raises UserError where the file does not exist otherwise; the message names checkpoints or runs that exist.
    """
    path = expanded(path)
    if path.is_file():
        return path
    if not path.exists():
        raise UserError(f"there is no checkpoint or run folder '{path}'.")
    folder = path / CHECKPOINTS if (path / CHECKPOINTS).is_dir() else path
    if (folder / default).is_file() or (default == LAST and (folder / PREVIOUS).is_file()):
        return folder / default
    if default == BEST and any((folder / name).is_file() for name in (LAST, PREVIOUS)):
        return folder / LAST
    others = [name for name in (BEST, LAST, PREVIOUS) if (folder / name).is_file()]
    if others:
        raise UserError(f"the run '{path}' has no {default}, but it has {' and '.join(others)}; name the file: {folder / others[0]}.")
    runs = sorted({file.parent.parent for pattern in ("*", "*/*") for file in path.glob(f"{pattern}/{CHECKPOINTS}/{default}")})
    if runs:
        raise UserError(f"'{path}' is not a run folder, but it holds {len(runs)} run folders; name one, such as {runs[-1]}.")
    raise UserError(f"the folder '{path}' has no checkpoint in it; a run saves its first checkpoint before its first step.")


def _content(checkpoint: Checkpoint, *, copy: bool = False) -> dict[str, Any]:
    copied = Copier(copy=copy)
    return {f.name: copied(getattr(checkpoint, f.name), f.name) for f in dataclasses.fields(checkpoint)}


def _keep_previous(path: Path) -> None:
    if path.name == LAST and is_whole(path):
        keep_as(path, path.with_name(PREVIOUS))


def _load(path: Path) -> Checkpoint:
    content = read(path)
    strange = DamagedError(f"{path} is not a checkpoint of metarun.")
    if not (isinstance(content, dict) and type(content.get("format")) is int and type(content.get("version")) is str):
        raise strange
    if content["format"] not in READABLE:
        known = f"{READABLE[0]} to {READABLE[-1]}"
        raise UserError(
            f"{path} was written by metarun {printable(content['version'])} in format {content['format']}; "
            f"this is metarun {metarun.__version__}, which reads the formats {known}: use the metarun that wrote the file."
        )
    stored = content.pop("digest", None)
    try:
        checkpoint = Checkpoint(**content)
    except TypeError as error:
        raise strange from error
    if not _well_typed(checkpoint):
        raise strange
    if checkpoint.format > 2 and stored != digest(content):
        raise DamagedError(f"the checkpoint {path} is damaged (its content does not match its digest).")
    return checkpoint


def _well_typed(checkpoint: Checkpoint) -> bool:
    plain = (checkpoint.config, checkpoint.execution, checkpoint.preparation, checkpoint.shapes)
    mappings = (checkpoint.optimizer, checkpoint.window, checkpoint.data, *plain)
    tensors = (checkpoint.params, checkpoint.state)
    return (
        _is_count(checkpoint.step)
        and _is_count(checkpoint.unimproved)
        and type(checkpoint.validates) is bool
        and all(type(mapping) is dict for mapping in mappings + tensors)
        and all(type(name) is str for mapping in (*tensors, checkpoint.window, *plain) for name in mapping)
        and all(isinstance(value, Tensor) for mapping in tensors for value in mapping.values())
        and all(type(value) in (int, float) for value in checkpoint.window.values())
        and (not checkpoint.window or checkpoint.window.get("steps", 0) > 0)
        and not _holds_tensor(plain)
        and (checkpoint.variance is None or (type(checkpoint.variance) is float and 0 < checkpoint.variance < math.inf))
        and (checkpoint.best is None or _is_best(checkpoint.best))
        and type(checkpoint.origins) is list
        and all(type(name) is str for name in checkpoint.origins)
    )


def _holds_tensor(value: Any) -> bool:
    if isinstance(value, (list, tuple, dict)):
        return any(map(_holds_tensor, value.values() if isinstance(value, dict) else value))
    return isinstance(value, Tensor)


def _is_count(value: Any) -> bool:
    return type(value) is int and value >= 0


def _is_best(best: Any) -> bool:
    """Return whether a value describes the best validation; its step names a file (`metarun.engine.keeping`)."""
    if not isinstance(best, Mapping) or not _is_count(best.get("step")):
        return False
    kept = best.get("kept", [])
    scores = [best.get("score"), best.get("mean")]
    noted = all(_are_figures(best.get(name, {}), needed) for name, needed in NOTED.items())
    return noted and all(map(_is_number, scores)) and type(kept) is list and all(map(_is_best, kept))


def _are_figures(by_name: Any, needed: Collection[str]) -> bool:
    """Return whether a value has figures for each name of a family or target: numbers, those that are needed, and numbers by step."""
    return isinstance(by_name, Mapping) and all(
        type(name) is str
        and isinstance(figures, Mapping)
        and all(figure in figures for figure in needed)
        and all(map(_is_number, (value for figure, value in figures.items() if figure not in BY_STEP)))
        and all(type(figures[figure]) is list and all(map(_is_number, figures[figure])) for figure in BY_STEP if figure in figures)
        for name, figures in by_name.items()
    )


def _is_number(value: Any) -> bool:
    return type(value) in (int, float)


def _remedy(path: Path) -> str:
    """Return a sentence with the intact checkpoints in the folder of a damaged one; nothing where there is none."""
    intact = {}
    kept = sorted(file.name for file in path.parent.glob("step_*.pt"))
    resumed = path.name in (LAST, PREVIOUS)
    names = (PREVIOUS, LAST, BEST, *kept) if resumed else (BEST, LAST, *kept, PREVIOUS)
    for sibling in (path.with_name(name) for name in names if name != path.name):
        with contextlib.suppress(UserError):
            intact[sibling] = _load(sibling)
    if not intact:
        return ""
    listed = " and ".join(f"{file.name} (step {each.step})" for file, each in intact.items())
    first, stored = next(iter(intact.items()))
    words = ("train", word("resume", first)) if resumed else ("eval", word("checkpoint", first))
    usage = command(*words, config=stored.config)
    return f" Intact in the same folder: {listed}; go on with: {usage}"
