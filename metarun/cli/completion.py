"""Tab completion. Hydra completes overrides; this takes the subcommand out of the line that it sees, and completes that."""

from __future__ import annotations

import contextlib
import io
import os
import re
from importlib.resources import files
from pathlib import Path

from metarun.cli.arguments import GROUPS, VALUE_FLAGS, open_groups
from metarun.cli.listing import options

COMMANDS = ("train", "eval", "list", "reproduce")
FLAGS = ("--multirun", "--cfg", "--resolve", "--info", "--config-dir", "--config-name", "--help", "--hydra-help")
LIST_WORDS = ("algo", "task", "backbone", "experiment", "--config-dir")


def main(arguments: list[str]) -> int:
    """Install or uninstall completion, or answer a shell's query about the line in COMP_LINE."""
    if not any(word.startswith("query=") for word in arguments):
        from metarun.cli.jobs import run

        return run("train", arguments)
    print(" ".join(candidates(os.environ.get("COMP_LINE", ""), arguments)), flush=True)
    return 0


def candidates(line: str, arguments: list[str]) -> list[str]:
    """Return the words that may stand where the line ends."""
    words = line.split()[1:]
    word = "" if line.endswith(" ") or not words else words.pop()
    if not words:
        return [command for command in COMMANDS if command.startswith(word)]
    command, *before = words
    if command == "list":
        return [option for option in LIST_WORDS if option.startswith(word)]
    if command not in COMMANDS:
        return []
    if word.startswith("-"):
        return [flag for flag in (("--config-dir",) if command == "reproduce" else FLAGS) if flag.startswith(word)]
    if command == "reproduce":
        return to_reproduce(before, word, arguments)
    return from_hydra(command, before, word, arguments)


def to_reproduce(before: list[str], word: str, arguments: list[str]) -> list[str]:
    """Return the experiments, the user's own among them, and after one of them what `metarun train` takes, and `checkpoint=`."""
    flags, words = flags_and_overrides(before)
    if not (names := [name for name in words if "=" not in name]):
        folders = [Path(flag.partition("=")[2] or flag) for flag in flags[-1:]]
        return [name for name in options("experiment", [files("metarun.configs"), *folders]) if name.startswith(word)]
    overrides = [f"experiment={names[0]}", *(override for override in words if "=" in override)]
    checkpoint = ["checkpoint="] if word and "checkpoint=".startswith(word) else []
    return checkpoint + from_hydra("train", [*flags, *overrides], word, arguments)


def from_hydra(command: str, before: list[str], word: str, arguments: list[str]) -> list[str]:
    """Return Hydra's candidates for `word` after the words `before`, without the files that are parts of others."""
    from metarun.cli.jobs import run

    flags, overrides = flags_and_overrides(before)
    os.environ["COMP_LINE"] = " ".join(["metarun", *(open_groups(overrides) if command == "eval" else overrides), word])
    answer = io.StringIO()
    # Half a line may well be wrong; then there is nothing to complete, and nothing to say in the middle of the user's typing.
    with contextlib.redirect_stdout(answer), contextlib.redirect_stderr(io.StringIO()), contextlib.suppress(Exception, SystemExit):
        run(command, [*flags, *arguments])
    return [found for found in answer.getvalue().split() if not is_part(found)]


def flags_and_overrides(words: list[str]) -> tuple[list[str], list[str]]:
    """Return the --config-dir of the words, which Hydra's search path needs, and their overrides."""
    flags: list[str] = []
    overrides: list[str] = []
    for previous, word in zip(["", *words], words, strict=False):
        if previous in ("--config-dir", "-cd"):
            flags = [previous, word]
        elif word.startswith(("--config-dir=", "-cd=")):
            flags = [word]
        elif not word.startswith("-") and previous not in VALUE_FLAGS:
            overrides.append(word)
    return flags, overrides


def is_part(candidate: str) -> bool:
    """Tell whether a candidate is an option ending in `_`, a file that is only a part of others."""
    match = re.fullmatch(r"\+*(\w+)=\w*_", candidate)
    return match is not None and match[1] in GROUPS
