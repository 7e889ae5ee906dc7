"""The commands as Python functions, for notebooks and programs: the same keys, values and results as on the command line.

They do not change the process: no arguments, no logging, no global config of Hydra, and no exit.
"""

from __future__ import annotations

import json
import os
import re
import threading
from collections.abc import Iterable, Iterator, Mapping, Sequence
from contextlib import contextmanager
from pathlib import Path
from typing import Any

from hydra import compose, initialize_config_module
from hydra.core.global_hydra import GlobalHydra
from omegaconf import DictConfig, open_dict, read_write

from metarun.cli.arguments import GROUPS, prepare
from metarun.cli.composing import eval_config, mistake_of, train_config
from metarun.cli.folders import RunFolders, check_typed, held
from metarun.cli.groups import check_options
from metarun.cli.hydra_errors import explain
from metarun.errors import UserError
from metarun.files.paths import paths_of, quoted
from metarun.files.run_folder import refuse_run

Overrides = Sequence[str] | Mapping[str, Any]
_PLAIN = re.compile(r"[A-Za-z_./][\w./-]*")
"""Text that Hydra reads as this text."""
_WORDS = ("true", "false", "null", "nan", "inf", "on", "off", "yes", "no")
"""Text that Hydra reads as another value, in lower case."""
_COMPOSING = threading.Lock()
"""Hydra composes in global state, so one thread at a time does."""


def train(overrides: Overrides = (), /, **keys: Any) -> dict[str, Any]:
    """Train as `metarun train` does, and return the content of the run's report.json, with the run folder as `folder`.

    overrides: strings as on the command line, such as ["algo=maml", "task.shots=5"], or a mapping from key to value. keys: the same, as
    keyword arguments. For a group, give the name of an option or a mapping of the group's keys: `train(algo="maml", task={"shots": 5})`.

    Raises UserError for everything that the command refuses. Ctrl-C saves a checkpoint and raises KeyboardInterrupt;
    `train(resume=FOLDER)` continues the run.
    """
    words = _words(overrides, keys)
    with _run("train", words) as (cfg, chosen, typed, folder):
        from metarun.commands.keys import check_train
        from metarun.commands.train import train as run_training

        config = train_config(cfg, chosen, typed)
        check_train(config)
        config.pop("reproduce", None)
        run_training(config, folder)
        return {**_report(folder), "folder": str(folder)}


def evaluate(run: Any, overrides: Overrides = (), /, **keys: Any) -> dict[str, Any]:
    """Score a run as `metarun eval` does, and return the content of report.json, with the folder of the evaluation as `folder`.

    run: a run folder or a checkpoint, or a list of them. overrides, keys: as in `train`; the keys are those of `metarun eval`.
    Raises UserError for everything that the command refuses.
    """
    words = _words({"checkpoint": paths_of(run)}, {}) + _words(overrides, keys)
    with _run("eval", words) as (cfg, chosen, typed, folder):
        from metarun.commands.evaluate import evaluate as run_evaluation

        refuse_run(folder)
        run_evaluation(eval_config(cfg, chosen, typed), folder)
        return {**_report(folder), "folder": str(folder)}


def check_evaluation(words: Sequence[str]) -> None:
    """Raise UserError for overrides of `metarun eval` that it refuses for every run."""
    from metarun.commands.keys import check_evaluation_keys

    cfg, chosen, typed, _ = _composed("eval", ["checkpoint=any", *words])
    check_evaluation_keys(eval_config(cfg, chosen, typed))


def _report(folder: Path) -> dict[str, Any]:
    content: dict[str, Any] = json.loads((folder / "report.json").read_text(encoding="utf-8"))
    return content


@contextmanager
def _run(command: str, words: list[str]) -> Iterator[tuple[DictConfig, dict[str, Any], list[str], Path]]:
    """Give the composed config without Hydra's part, the option of each group, the overrides, and the locked run folder.

    A folder that a refusal leaves empty is removed.
    """
    cfg, chosen, typed, wanted = _composed(command, words)
    folders = RunFolders()
    if any(word.lstrip("+").startswith("hydra.run.dir=") for word in words) or cfg.get("resume") is not None:
        folder = Path(wanted)
        check_typed(folder, "run", resumed=cfg.get("resume") is not None)
        folders.note(folder)
        folder.mkdir(parents=True, exist_ok=True)
    else:
        folder = Path(folders.make_evaluation(cfg.checkpoint, typed, wanted) if command == "eval" else folders.make(wanted))
    try:
        with held(folder):
            yield cfg, chosen, typed, folder.absolute()
    except Exception as error:
        mistake = mistake_of(error, folder)
        if mistake is None:
            raise
        folders.discard()
        raise mistake from (None if mistake is error else error)


def _composed(command: str, words: list[str]) -> tuple[DictConfig, dict[str, Any], list[str], str]:
    """Return the config of the words, the option of each group, the overrides of metarun's own keys, and the run folder."""
    prepared = prepare(command, words)
    check_options(prepared)
    try:
        with _own_hydra(), initialize_config_module("metarun.configs", version_base="1.3"):
            cfg = compose(command, overrides=prepared, return_hydra_config=True)
        chosen, typed, folder = dict(cfg.hydra.runtime.choices), list(cfg.hydra.overrides.task), str(cfg.hydra.run.dir)
    except Exception as error:
        sentence = explain(error)
        if sentence is None:
            raise
        raise UserError(sentence) from error
    with read_write(cfg), open_dict(cfg):
        del cfg["hydra"]
    return cfg, chosen, typed, folder


@contextmanager
def _own_hydra() -> Iterator[None]:
    """Let one thread at a time compose, beside a Hydra that the caller's program has initialised; that one is put back."""
    with _COMPOSING:
        of_caller, GlobalHydra.instance().hydra = GlobalHydra.instance().hydra, None
        try:
            yield
        finally:
            GlobalHydra.instance().hydra = of_caller


def _words(overrides: Overrides, keys: Mapping[str, Any]) -> list[str]:
    """Return the words of a command line; UserError for a flag and for a word that is not of the form key=value."""
    if isinstance(overrides, str):
        raise UserError(f"give the overrides as a list, ['{overrides}'], or as keyword arguments.")
    if not isinstance(overrides, Iterable):
        raise UserError(f"the overrides are a {type(overrides).__name__}; give them as a list or a mapping, or as keyword arguments.")
    words: list[str] = []
    for given in (overrides, keys):
        if isinstance(given, Mapping):
            words += [word for key, value in given.items() for word in _words_of(str(key), value)]
        else:
            words += [str(word) for word in given]
    for word in words:
        if "=" not in word or word.startswith("-"):
            raise UserError(f"'{word}' is not of the form key=value; flags such as -m belong to the command line.")
    return words


def _words_of(key: str, value: Any) -> list[str]:
    """Return the words for a key and a value of Python's; for a group with a mapping, those of its keys."""
    if key in GROUPS and isinstance(value, Mapping):
        return [word for name, item in value.items() for word in _words_of(f"{key}.{name}", item)]
    return [f"{key}={_text(value, key)}"]


def _text(value: Any, key: str) -> str:
    """Return a value of Python's in Hydra's grammar."""
    if value is None or isinstance(value, bool):
        return {None: "null", True: "true", False: "false"}[value]
    if hasattr(value, "item") and getattr(value, "ndim", None) == 0:  # a number of NumPy's or torch's
        value = value.item()
    if isinstance(value, (int, float)):
        return repr(value)
    if isinstance(value, os.PathLike):
        value = os.fspath(value)
    if isinstance(value, str):
        return value if _PLAIN.fullmatch(value) and value.lower() not in _WORDS else quoted(value)
    if isinstance(value, Mapping):
        return f"{{{','.join(f'{name}:{_text(item, key)}' for name, item in value.items())}}}"
    if isinstance(value, (list, tuple)):
        return f"[{','.join(_text(item, key) for item in value)}]"
    raise UserError(f"{key} has a value of the type {type(value).__name__}; give text, a number, true or false, null, a list or a mapping.")
