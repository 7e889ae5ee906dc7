"""Checkpoints: plain values and tensors in one file, written atomically and read without running code from the file."""

from __future__ import annotations

import dataclasses
import io
import pickle
import zipfile
from collections.abc import Mapping
from dataclasses import dataclass, field
from functools import partial
from pathlib import Path
from typing import Any

import torch
from torch import Tensor

import metarun
from metarun.errors import UserError
from metarun.files.paths import expanded, word
from metarun.files.writing import keep_as, own_folder, replacing

FORMAT = 2
"""Version of the file format. Add one when older versions of metarun cannot read the new files."""

LAST, PREVIOUS, BEST = "last.pt", "previous.pt", "best.pt"

_SCALARS = (bool, int, float, str, type(None))


@dataclass(frozen=True)
class Checkpoint:
    """Everything that a resumed run or an evaluation needs.

    step: outer steps done. params, state: of the algorithm, by name. optimizer: the `state_dict` of the outer optimizer.
    best: {"score": float, "mean": float, "step": int} of the best validation so far, None before the first validation; with keep=k, also
    the list "kept", with these three entries for each of the k best validations.
    window: running sums for the next log line. config: resolved; metarun reads it literally and never interpolates it.
    execution: the device's choices (chunk, threads, torch version). origins: the names of the classes or tasks that the run was trained
    on, and those of the run that it started from (`metarun.types.WithOrigins`). version: of the metarun that wrote the file.
    format: of the file.
    """

    step: int
    params: dict[str, Tensor]
    state: dict[str, Tensor]
    optimizer: dict[str, Any] = field(default_factory=dict)
    best: dict[str, Any] | None = None
    window: dict[str, Any] = field(default_factory=dict)
    config: dict[str, Any] = field(default_factory=dict)
    execution: dict[str, Any] = field(default_factory=dict)
    origins: list[str] = field(default_factory=list)
    version: str = metarun.__version__
    format: int = FORMAT


def save(path: str | Path, checkpoint: Checkpoint) -> None:
    """Write a checkpoint; a kill at any instant leaves a complete file behind. Raises the errors of `encode` and `write`."""
    write(path, encode(checkpoint))


def snapshot(checkpoint: Checkpoint) -> Checkpoint:
    """Return a copy on the CPU, with the same strides, that shares no memory with the run; raises TypeError as `encode` does."""
    return Checkpoint(**_content(checkpoint, copy=True))


def encode(checkpoint: Checkpoint) -> memoryview:
    """Return the bytes of the file.

    Raises TypeError for a value that is neither plain nor a tensor; the message names the place of the value.
    """
    buffer = io.BytesIO()
    torch.save(_content(checkpoint), buffer)
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

    Raises UserError for a file that cannot be read. For a damaged file, the message names an intact file in the same folder, if any.
    """
    path = Path(path)
    try:
        return _load(path)
    except _DamagedError as error:
        raise UserError(f"{error}{_remedy(path)}") from error


def resolve(path: str | Path, default: str = BEST) -> Path:
    """Return the checkpoint at a path: the path itself if it is a file, else the file named `default` in the folder or its `checkpoints`.

    Raises UserError where that file does not exist; the message names checkpoints or runs that exist.
    """
    path = expanded(path)
    if path.is_file():
        return path
    if not path.exists():
        raise UserError(f"there is no checkpoint or run folder '{path}'.")
    folder = path / "checkpoints" if (path / "checkpoints").is_dir() else path
    if (folder / default).is_file():
        return folder / default
    others = [name for name in (BEST, LAST, PREVIOUS) if (folder / name).is_file()]
    if others:
        raise UserError(f"the run '{path}' has no {default}, but it has {' and '.join(others)}; name the file: {folder / others[0]}.")
    runs = sorted({file.parent.parent for pattern in ("*", "*/*") for file in path.glob(f"{pattern}/checkpoints/{default}")})
    if runs:
        raise UserError(f"'{path}' is not a run folder, but it holds {len(runs)} run folders; name one, such as {runs[-1]}.")
    raise UserError(f"the folder '{path}' has no checkpoint in it; a run saves its first checkpoint before its first step.")


def run_folder(path: str | Path) -> Path:
    """Return the run folder of a checkpoint file."""
    folder = Path(path).absolute().parent
    return folder.parent if folder.name == "checkpoints" else folder


class _DamagedError(UserError):
    """Raised where the file is missing, cut short or changed: an older file is the remedy."""


def _content(checkpoint: Checkpoint, *, copy: bool = False) -> dict[str, Any]:
    return {f.name: _plain(getattr(checkpoint, f.name), f.name, copy=copy) for f in dataclasses.fields(checkpoint)}


def _plain(value: Any, where: str, *, copy: bool = False) -> Any:
    """Return a copy of plain containers with detached tensors on the CPU, cloned if `copy`; raise TypeError for other types."""
    if type(value) in _SCALARS:
        return value
    if isinstance(value, Tensor):
        return _plain_tensor(value, where, copy=copy)
    if type(value) is dict:
        wrong = [key for key in value if type(key) not in (str, int)]
        if wrong:
            raise TypeError(f"{where} has the key {wrong[0]!r}; keys are strings or integers")
        return {key: _plain(item, f"{where}.{key}", copy=copy) for key, item in value.items()}
    if type(value) in (list, tuple):
        return type(value)(_plain(item, f"{where}[{i}]", copy=copy) for i, item in enumerate(value))
    raise TypeError(f"{where} is a {type(value).__module__}.{type(value).__qualname__}; a checkpoint holds plain values and tensors only")


def _plain_tensor(tensor: Tensor, where: str, *, copy: bool) -> Tensor:
    if tensor.layout is not torch.strided or tensor.is_quantized or tensor.is_meta:
        raise TypeError(f"{where} is not a dense tensor")
    tensor = tensor.detach().to("cpu", copy=copy)
    # torch.save writes whole storages: for a small view of a large tensor, it would write the large tensor.
    return tensor if _fills_storage(tensor) else tensor.clone()


def _fills_storage(tensor: Tensor) -> bool:
    return tensor.untyped_storage().nbytes() == tensor.numel() * tensor.element_size()


def _keep_previous(path: Path) -> None:
    if path.name == LAST and _is_whole(path):
        keep_as(path, path.with_name(PREVIOUS))


def _is_whole(path: Path) -> bool:
    """Check the file against the checksums in it; torch.save writes an uncompressed zip archive."""
    try:
        with zipfile.ZipFile(path) as archive:
            stored = all(member.compress_type == zipfile.ZIP_STORED for member in archive.infolist())
            return stored and archive.testzip() is None
    except Exception:  # a damaged archive can make zipfile raise nearly any exception
        return False


def _load(path: Path) -> Checkpoint:
    if path.is_dir():
        raise UserError(f"{path} is a folder and not a checkpoint.")
    try:
        with path.open("rb") as file:
            start = file.read(2)
    except FileNotFoundError as error:
        raise _DamagedError(f"there is no checkpoint {path}.") from error
    except OSError as error:
        raise UserError(f"cannot read the checkpoint {path}: {error.strerror}.") from error
    if start not in (b"PK", b""):
        raise UserError(f"{path} is not a checkpoint of metarun.")
    if not _is_whole(path):
        raise _DamagedError(f"the checkpoint {path} is damaged or cut short ({path.stat().st_size} bytes do not match its checksums).")
    return _parse(path, _read(path))


def _read(path: Path) -> Any:
    try:
        return torch.load(path, map_location="cpu", weights_only=True)
    except pickle.UnpicklingError as error:
        raise UserError(f"{path} holds objects that could run code, besides plain values and tensors; no code in it was run.") from error
    except Exception as error:  # a valid archive with other content
        raise UserError(f"{path} is not a checkpoint of metarun.") from error


def _parse(path: Path, content: Any) -> Checkpoint:
    strange = UserError(f"{path} is not a checkpoint of metarun.")
    if not (isinstance(content, dict) and type(content.get("format")) is int and type(content.get("version")) is str):
        raise strange
    if content["format"] != FORMAT:
        raise UserError(
            f"{path} was written by metarun {content['version']} in format {content['format']}; "
            f"this is metarun {metarun.__version__}, which reads format {FORMAT}: use the metarun that wrote the file."
        )
    try:
        checkpoint = Checkpoint(**{key: _plain(value, key) for key, value in content.items()})
    except (TypeError, RecursionError) as error:
        raise strange from error
    if not _well_typed(checkpoint):
        raise strange
    return checkpoint


def _well_typed(checkpoint: Checkpoint) -> bool:
    mappings = (checkpoint.optimizer, checkpoint.window, checkpoint.config, checkpoint.execution)
    tensors = (checkpoint.params, checkpoint.state)
    return (
        type(checkpoint.step) is int
        and checkpoint.step >= 0
        and all(type(mapping) is dict for mapping in mappings + tensors)
        and type(checkpoint.best) in (dict, type(None))
        and type(checkpoint.origins) is list
        and all(type(name) is str for name in checkpoint.origins)
        and all(_named_tensors(mapping) for mapping in tensors)
    )


def _named_tensors(mapping: Mapping[Any, Any]) -> bool:
    return all(type(name) is str and isinstance(value, Tensor) for name, value in mapping.items())


def _remedy(path: Path) -> str:
    for sibling in (path.with_name(PREVIOUS), path.with_name(LAST)):
        if sibling == path or not sibling.is_file():
            continue
        try:
            step = _load(sibling).step
        except UserError:
            continue
        return f" {sibling.name} in the same folder is intact (step {step}): metarun train {word('resume', sibling)}"
    return ""
