"""The sources of a mixture on the command line: `task=mixture 'task.sources=[glyphs,omniglot,birds:folder]'`.

Hydra composes a source from the file of its option. So this list becomes one word for each source that the mixture's own file lacks, and
`task.only`, which names the sources that take part. Text in, text out; this module does not import Hydra.
"""

from __future__ import annotations

import re

from metarun.errors import UserError, printable

KEY, ONLY = "task.sources", "task.only"
NO_MIXTURE = "task.sources=[…] names the sources of a mixture, and this task is none; give task=mixture, or leave task.sources out."
BUILT_IN = ("sinusoid", "line", "quadratic")
"""The sources in configs/task/mixture.yaml."""
_SOURCE = re.compile(r"(?:([^\W\d][\w+-]*):)?([\w./-]+)")


def with_sources(overrides: list[str], command: str, sweep: bool = False) -> list[str]:
    """Return the overrides with a list of sources in Hydra's words; other overrides stay as they are.

    With `task=mixture` the list may name any task, and `name:task` gives it another name. Without it, the task comes from a checkpoint or
    an experiment, and the list names sources of this task. Raises UserError for a list that names no sources.
    """
    if not any(re.match(r"\+*task\.sources=\s*\[", word) for word in overrides):
        return overrides
    tasks = [word.partition("=")[2] for word in overrides if re.match(r"\+*task=", word)]
    told = any(re.match(r"\+*(experiment|resume|checkpoint)=", word) for word in overrides)
    if not tasks and command == "train" and not told:
        raise UserError("task.sources names the sources of a mixture; give task=mixture too.")
    return [each for word in overrides for each in _words(word, adds=bool(tasks), sweep=sweep)]


def _words(word: str, *, adds: bool, sweep: bool) -> list[str]:
    if not re.match(r"\+*task\.sources=\s*\[", word):
        return [word]
    found = re.fullmatch(r"\+*task\.sources=\s*\[([^\[\]]*)\]\s*", word)
    if found is None:
        reason = " A sweep cannot vary the sources; start a run for each list." if sweep else ""
        raise UserError(f"'{printable(word)}' is no list of sources, such as task.sources=[glyphs,omniglot].{reason}")
    parts = [part.strip().strip("'\"") for part in found[1].split(",") if part.strip()]
    if not parts:
        raise UserError("task.sources=[] names no source; a mixture needs at least one.")
    sources = [_source(part, adds) for part in parts]
    names = [name for name, _ in sources]
    if twice := next((name for name in names if names.count(name) > 1), None):
        raise UserError(f"task.sources names '{twice}' twice; give the second one a name, such as other:{twice}.")
    added = [f"+task@{KEY}.{name}={option}" for name, option in sources if adds and not (name == option and name in BUILT_IN)]
    return [*added, f"{ONLY}=[{','.join(names)}]"]


def _source(part: str, adds: bool) -> tuple[str, str]:
    """Return name and option of an entry: "birds:folder" or "folder"."""
    found = _SOURCE.fullmatch(part)
    if found is None:
        raise UserError(
            f"'{printable(part)}' in task.sources is neither the name of a task, such as glyphs, nor NAME:TASK with a letter first."
        )
    if found[1] and not adds:
        raise UserError(f"'{printable(part)}' in task.sources adds a source, which needs task=mixture; here the list names known sources.")
    return found[1] or found[2], found[2]
