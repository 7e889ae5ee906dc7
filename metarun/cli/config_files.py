"""A user's config files that cannot be read: which file it is, and why."""

from __future__ import annotations

from collections.abc import Iterator, Sequence
from pathlib import Path

import yaml

from metarun.cli.arguments import split
from metarun.errors import UserError

FLAGS = ("--config-dir", "-cd", "--config-path", "-cp")


def check_chosen(words: Sequence[str]) -> None:
    """Raise UserError where the file of an option that the user chose, in a config folder of the user's, cannot be used."""
    flags, overrides = split(list(words))
    for folder in _folders(flags):
        for file in (folder / name for name in sorted(_chosen(overrides))):
            if file.is_file() and (fault := fault_of(file)) is not None:
                raise UserError(fault)


def _chosen(overrides: Sequence[str]) -> set[str]:
    return {f"{group.lstrip('+')}/{name}.yaml" for group, _, name in (override.partition("=") for override in overrides)}


def fault_in_files(words: Sequence[str]) -> str | None:
    """Return a sentence about the first unreadable file of the user's config folders, the chosen options first; None without one.

    words: of Hydra's command line. Called after an error only, so that a file that nobody asked for disturbs no run.
    """
    flags, overrides = split(list(words))
    chosen = _chosen(overrides)
    for folder in _folders(flags):
        files = sorted(folder.rglob("*.y*ml"), key=lambda file: (file.relative_to(folder).as_posix() not in chosen, file))
        for file in files:
            if (fault := fault_of(file)) is not None:
                return fault
    return None


def _folders(flags: Sequence[str]) -> Iterator[Path]:
    for place, flag in enumerate(flags):
        name, equals, value = flag.partition("=")
        if name in FLAGS and (equals or place + 1 < len(flags)):
            yield Path(value if equals else flags[place + 1])


def fault_of(file: Path) -> str | None:
    """Return why a config file cannot be used, or None where it can: it must be UTF-8, YAML, and a mapping."""
    try:
        text = file.read_bytes().decode("utf-8-sig")
        content = yaml.safe_load(text)
    except UnicodeDecodeError as error:
        line = file.read_bytes()[: error.start].count(b"\n") + 1
        return f"{file} is not UTF-8 (line {line}); save it in this encoding."
    except OSError as error:
        return f"{file} cannot be read ({error.strerror})."
    except (yaml.YAMLError, RecursionError, ValueError) as error:
        return f"{file} is not YAML: {' '.join(str(error).split())}."
    if content is None or isinstance(content, dict):
        return f"{file} refers to itself by an anchor, which a config cannot." if _is_circular(content) else None
    kind = "a list" if isinstance(content, list) else "a single value"
    return f"{file} holds {kind}; a config file holds keys and values, such as `inner_lr: 0.1`."


def _is_circular(node: object, above: tuple[int, ...] = ()) -> bool:
    if id(node) in above:
        return True
    inside = node.values() if isinstance(node, dict) else node if isinstance(node, list) else ()
    return any(_is_circular(item, (*above, id(node))) for item in inside)
