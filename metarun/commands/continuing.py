"""`resume=auto`: go on in a run folder that holds a checkpoint, leave a finished run as it is, and start in any other folder."""

from __future__ import annotations

import json
import math
from collections.abc import Callable, Collection, Mapping
from pathlib import Path
from typing import Any

from metarun.commands.comparing.evaluations import typed_words
from metarun.commands.comparing.reading import yaml_of
from metarun.commands.overrides import MAY_CHANGE, leaves, with_absolute_places
from metarun.engine.patience import is_exhausted
from metarun.errors import UserError, counted, printable
from metarun.files.paths import word
from metarun.files.run_folder import CHECKPOINTS, has_checkpoints
from metarun.objectives import error
from metarun.processes.ranks import here
from metarun.records import checkpoint

_NOT_COMPARED = ("resume", "reproduce", "options", "trust", "typed", "logger")

SHOWN = 6
"""The most differing keys that a refusal names."""

Train = Callable[[dict[str, Any], Path], float]


def go_on(config: Mapping[str, Any], folder: Path, train: Train) -> float:
    """Train as `resume=auto` says, and return the error of the best validation.

    config: of a new training, as the command line composes it. train: `metarun.commands.train.train`.

    Of several processes, the first one looks into the folder and tells the others. Raises UserError where the folder holds a run with other
    values, and names them.
    """
    new = {**config, "resume": None}
    found = here().tell(lambda: decide(new, folder))
    return float(found["done"]) if "done" in found else train(found["resume"] or new, folder)


def decide(config: Mapping[str, Any], folder: Path) -> dict[str, Any]:
    """Return {"done": the error} for a finished run, or {"resume": the config that resumes the run, or None for a new one}.

    config, errors: as of `go_on`.
    """
    if not has_checkpoints(folder):
        return {"resume": None}
    stored = checkpoint.find(folder, checkpoint.LAST).checkpoint
    typed = typed_words(yaml_of(folder / ".hydra" / "overrides.yaml"))
    changed = changes(with_absolute_places(config), stored.config, typed)
    refuse(changed, folder)
    report = finished(folder, int(config["steps"]), patient="patience" in changed)
    if report is not None:
        return {"done": told(report, folder)}
    path = folder
    previous = folder / CHECKPOINTS / checkpoint.PREVIOUS
    over = stored.step >= config["steps"] > 0 or is_exhausted(config.get("patience"), stored.unimproved)
    if over and not stored.validates and previous.is_file():
        # The run was killed after its last step, before its report. The last steps run again, and end in equal bits.
        path = previous
    return {"resume": resumed(config, changed, path)}


def changes(config: Mapping[str, Any], stored: Mapping[str, Any], typed: Collection[str] = ()) -> dict[str, tuple[Any, Any]]:
    """Return dotted key -> (value in the folder's run, value now) where the two differ.

    A value that is null now was drawn or filled in when the run started, so it is no difference unless its key was typed then. Of a group
    with another option, the option alone is named. typed: the dotted keys of the command line that started the run.
    """
    was, now = dict(leaves(stored)), dict(leaves(config))
    before, chosen = stored.get("options") or {}, config.get("options") or {}
    replaced = {group: (before.get(group), option) for group, option in chosen.items() if before.get(group) != option}
    found: dict[str, tuple[Any, Any]] = {group: pair for group, pair in replaced.items() if group != "experiment"}
    for key, value in now.items():
        group = key.split(".")[0]
        drawn = value is None and key not in typed
        if group not in _NOT_COMPARED and group not in found and not drawn and was.get(key) != value:
            found[key] = (was.get(key), value)
    return found


def refuse(changed: Mapping[str, tuple[Any, Any]], folder: Path) -> None:
    """Raise UserError for changed keys that a resumed run may not change."""
    kept = {key: pair for key, pair in changed.items() if key not in MAY_CHANGE and key.split(".")[0] not in MAY_CHANGE}
    if kept:
        pairs = sorted(kept.items(), key=lambda item: "." in item[0])  # keys that other keys follow come first
        differing = ", ".join(f"{key}={printable(now)} instead of {printable(was)}" for key, (was, now) in pairs[:SHOWN])
        differing += f" and {len(pairs) - SHOWN} more" if len(pairs) > SHOWN else ""
        raise UserError(
            f"{folder} holds a run with other values: {differing}. Give its values to go on, or choose another folder for a new run; "
            f"only {', '.join(MAY_CHANGE)} may change."
        )


def resumed(config: Mapping[str, Any], changed: Mapping[str, tuple[Any, Any]], path: Path) -> dict[str, Any]:
    """Return the config that resumes the run at `path` with the values that differ, as `metarun.commands.overrides.resume_config` takes it.

    A key of the device that is null or "auto" now stays as the run has it. The loggers are those of the command line.
    """
    overrides: dict[str, Any] = {"trust": config["trust"], "logger": (config.get("options") or {}).get("logger")}
    for key, (_, now) in changed.items():
        group = key.split(".")[0]
        if key == "device":
            overrides |= {name: value for name, value in leaves(config["device"], "device.") if value not in (None, "auto")}
        elif key != "logger" and (group != "device" or now not in (None, "auto")):
            overrides[key] = now
    return {"resume": str(path), "overrides": overrides, "groups": {"logger": config["logger"]}}


def finished(folder: Path, steps: int, *, patient: bool = False) -> dict[str, Any] | None:
    """Return the report of a run that has done its steps, or that has ended early; None for others, and where it cannot be read.

    patient: whether `patience` has another value now, so that an early end does not count.
    """
    try:
        report = json.loads((folder / "report.json").read_text(encoding="utf-8"))
        ended = report["steps"] >= steps or (report.get("stopped_early") is True and not patient)
        done = ended and isinstance(report["best"]["score"], (int, float, type(None)))
    except (OSError, ValueError, KeyError, TypeError):
        return None
    return report if done else None


def told(report: Mapping[str, Any], folder: Path) -> float:
    """Say that a run is done, and return its error from its report."""
    score = report["best"]["score"]
    name = "nll" if "negative log-likelihood" in str(report.get("select")) else str(report["metric"])
    best = "no validation was finite" if score is None else f"best validation {name} {score:.4f} at step {report['best']['step']}"
    end = "it ended early" if report.get("stopped_early") else "it is done"
    said = printable(f"{end} after {counted(report['steps'], 'step')} ({best})")
    print(f"metarun: nothing to do in {folder}: {said}; test it with: metarun eval {word('checkpoint', folder)}", flush=True)
    return error(name, math.nan if score is None else float(score))
