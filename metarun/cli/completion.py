"""Tab completion. This module completes the command; Hydra completes the overrides, from a line without the command."""

from __future__ import annotations

import contextlib
import io
import os
import re
from importlib.resources import files
from pathlib import Path

from metarun.cli.arguments import GROUPS, VALUE_FLAGS, open_groups
from metarun.cli.compare import KEYS as COMPARE_KEYS
from metarun.cli.export import KEYS as EXPORT_KEYS
from metarun.cli.listing import GROUPS as LISTED
from metarun.cli.listing import options
from metarun.cli.report import KEYS as REPORT_KEYS

COMMANDS = ("train", "eval", "compare", "predict", "report", "export", "list", "reproduce")
FLAGS = ("--multirun", "--cfg", "--resolve", "--info", "--config-dir", "--config-name", "--help", "--hydra-help")
KEYS = {"compare": COMPARE_KEYS, "export": EXPORT_KEYS, "report": REPORT_KEYS}
"""Keys of the commands that Hydra does not run."""


def main(arguments: list[str]) -> int:
    """Install or uninstall completion, or print the candidates for the line in COMP_LINE."""
    if not any(word.startswith("query=") for word in arguments):
        from metarun.cli.jobs import run

        return run("train", arguments)
    print(" ".join(candidates(os.environ.get("COMP_LINE", ""), arguments)), flush=True)
    return 0


def candidates(line: str, arguments: list[str]) -> list[str]:
    """Return the words that may stand at the end of the line."""
    words = line.split()[1:]
    word = "" if line.endswith(" ") or not words else words.pop()
    if not words:
        return [command for command in COMMANDS if command.startswith(word)]
    command, *earlier = words
    if command == "help":
        return [name for name in COMMANDS if name.startswith(word)]
    if command == "list":
        return to_list(earlier, word)
    if command in KEYS:
        return [f"{key}=" for key in KEYS[command] if f"{key}=".startswith(word)]
    if command not in COMMANDS:
        return []
    if word.startswith("-"):
        return [flag for flag in (("--config-dir",) if command == "reproduce" else FLAGS) if flag.startswith(word)]
    if command == "reproduce":
        return to_reproduce(earlier, word, arguments)
    return from_hydra(command, earlier, word, arguments)


def to_list(earlier: list[str], word: str) -> list[str]:
    """Return the groups, and after the name of a group its options, with the user's own."""
    flags, words = flags_and_overrides(earlier)
    folders = [Path(flag.partition("=")[2] or flag) for flag in flags[-1:]]
    groups = [each for each in words if each in LISTED]
    names = options(groups[-1], [files("metarun.configs"), *folders]) if groups else {}
    return [name for name in (*LISTED, *names, "--config-dir") if name.startswith(word)]


def to_reproduce(earlier: list[str], word: str, arguments: list[str]) -> list[str]:
    """Return the experiments, with the user's own. After an experiment, return `checkpoint=` and the overrides of `metarun train`."""
    flags, words = flags_and_overrides(earlier)
    if not (names := [name for name in words if "=" not in name]):
        folders = [Path(flag.partition("=")[2] or flag) for flag in flags[-1:]]
        return [name for name in options("experiment", [files("metarun.configs"), *folders]) if name.startswith(word)]
    overrides = [f"experiment={names[0]}", *(override for override in words if "=" in override)]
    checkpoint = ["checkpoint="] if word and "checkpoint=".startswith(word) else []
    return checkpoint + from_hydra("train", [*flags, *overrides], word, arguments)


def from_hydra(command: str, earlier: list[str], word: str, arguments: list[str]) -> list[str]:
    """Return Hydra's candidates for `word` after the `earlier` words, without the files that are parts of others."""
    from metarun.cli.jobs import run

    flags, overrides = flags_and_overrides(earlier)
    os.environ["COMP_LINE"] = " ".join(["metarun", *(open_groups(overrides) if command == "eval" else overrides), word])
    answer = io.StringIO()
    # An unfinished line may be invalid. Then there are no candidates, and no message may interrupt the typing.
    with contextlib.redirect_stdout(answer), contextlib.redirect_stderr(io.StringIO()), contextlib.suppress(Exception, SystemExit):
        run(command, [*flags, *arguments])
    return [candidate for candidate in answer.getvalue().split() if not is_part(candidate)]


def flags_and_overrides(words: list[str]) -> tuple[list[str], list[str]]:
    """Return the flag --config-dir of the words, for Hydra's search path, and the overrides."""
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
    """Return whether a candidate ends in `_`: such an option is only a part of other files."""
    match = re.fullmatch(r"\+*(\w+)=\w*_", candidate)
    return match is not None and match[1] in GROUPS
