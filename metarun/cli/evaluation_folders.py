"""Where `metarun eval` writes: into the run that it scores, as RUN/eval/<task>-<settings>. An ensemble has no folder of its own."""

from __future__ import annotations

from collections.abc import Mapping, Sequence
from pathlib import Path
from typing import Any

from metarun.commands.comparing.evaluations import NO_SETTING, typed_words
from metarun.commands.comparing.reading import look_up, mapping, text_of
from metarun.commands.comparing.runs import read_run
from metarun.commands.comparing.scoring import BEST
from metarun.files.paths import expanded
from metarun.files.run_folder import CHECKPOINTS

EVALUATIONS = "eval"
"""The folder in a run folder that holds the evaluations of the run."""


def wanted_folder(checkpoint: Any, words: Sequence[str]) -> Path | None:
    """Return the folder for an evaluation, which may exist already; None where the checkpoint is none of a run, or where there are several.

    checkpoint: the value of `checkpoint=`. words: the overrides, such as "task.shots=5". The name is no path yet: any letter may be in it.
    """
    named = [checkpoint] if isinstance(checkpoint, str) else list(checkpoint) if isinstance(checkpoint, Sequence) else []
    if len(named) != 1 or not isinstance(named[0], str):
        return None
    path = expanded(named[0])
    run = run_of(path)
    if run is None:
        return None
    found = read_run(run)
    file = [path.stem] if path.is_file() and path.name != BEST else []
    parts = name_parts({} if found is None else found.config, typed_words(list(words)))
    return run / EVALUATIONS / "-".join([*parts, *file]).replace("/", "-")


def run_of(path: Path) -> Path | None:
    """Return the run folder of a path that `checkpoint=` may have; None for a checkpoint outside of a run."""
    if path.is_file():
        path = path.parent
    run = path.parent if path.name == CHECKPOINTS else path
    return run if (run / CHECKPOINTS).is_dir() else None


def name_parts(config: Mapping[str, Any], typed: Mapping[str, Any]) -> list[str]:
    """Return the parts of the name: task, ways and shots, split, and the other typed keys that change a score.

    config: of the run. typed: dotted key -> value.
    """
    task = typed.get("task") or mapping(config.get("options")).get("task") or "task"
    sizes = {key: typed.get(f"task.{key}", look_up(config, f"task.{key}")) for key in ("ways", "shots")}
    short = "".join(f"{text_of(value)}{key[0]}" for key, value in sizes.items() if text_of(value).isdecimal())
    told = ("split", "task", "task.ways", "task.shots")
    others = [f"{key}-{text_of(value)}" for key, value in typed.items() if key.split(".")[0] not in NO_SETTING and key not in told]
    return [str(task), *([short] if short else []), str(typed.get("split", "test")), *others]
