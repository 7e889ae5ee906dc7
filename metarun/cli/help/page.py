"""`metarun train --help`, with eval and predict: every key of a choice, its value and its explanation, as text."""

from __future__ import annotations

from collections.abc import Sequence
from typing import Any

import yaml

from metarun.cli.help.explained import Composed, Key, Section, composed, sections
from metarun.cli.help.text import entry, page_width, wrapped

LAST = ("algo", "task", "backbone", "optimizer", "device", "logger")
"""The order of the groups that the user did not choose."""

USAGES = {
    "train": "usage: metarun train [GROUP=OPTION ...] [KEY=VALUE ...] [FLAG ...]",
    "eval": "usage: metarun eval checkpoint=RUN [KEY=VALUE ...] [GROUP=OPTION ...] [FLAG ...]",
    "predict": "usage: metarun predict checkpoint=RUN support=EXAMPLES [query=INPUTS] [KEY=VALUE ...] [FLAG ...]",
}
NOTES = {
    "train": """`metarun train --help algo=NAME task=NAME` explains the keys of another choice; `metarun list` names the choices, and \
`metarun list algo NAME` describes one of them.

A sweep (-m) gives its sweeper the error of the best validation, to be minimised: 1 - accuracy, or the error of a regression. A failed job \
counts as infinity.""",
    "eval": """Every other key has the value of the run's own config. task.shots=5 changes one of these keys; task=omniglot replaces the \
task. `metarun eval --help task=NAME` explains the keys of a task.""",
    "predict": "The task, the network and the algorithm come from the run.",
}
FLAGS = (
    "Flags: -m runs each combination of values such as seed=0,1; --cfg job prints the config and runs nothing; --config-dir DIR adds your "
    "own config files; --hydra-help lists the other flags, which belong to Hydra."
)


def asked_for_help(arguments: Sequence[str]) -> bool:
    """Return whether the words of a command ask for its help."""
    return "-h" in arguments or "--help" in arguments


def main(command: str, arguments: Sequence[str]) -> int:
    """Print the help of a command for the choices among its words. Raises UserError for a word that the command would refuse."""
    words = [word for word in arguments if word not in ("-h", "--help", "-m", "--multirun")]
    text = page(command, composed(command, words), page_width())
    print(text, flush=True)
    return 0


def page(command: str, found: Composed, width: int) -> str:
    """Return the whole help. width: in columns."""
    parts = sections(found)
    own = parts.pop("")
    typed, order = _typed(found), _ordered(parts)
    first = [package for group in typed for package in order if package.split(".")[0] == group]
    usage, preset = USAGES[command], found.choices.get("experiment")
    return "\n\n".join(
        [
            wrapped(usage, width, "", "       "),
            wrapped(f"{own.words} With experiment={preset}." if preset else own.words, width),
            *(block(parts[package], width) for package in first),
            block(own._replace(title=f"keys of metarun {command}", words=""), width),
            *(block(parts[package], width) for package in order if package not in first),
            *(wrapped(note, width) for note in NOTES[command].split("\n\n")),
            wrapped(FLAGS, width),
        ]
    )


def _typed(found: Composed) -> list[str]:
    """Return the groups of which the command line names an option or a key, the first one first."""
    words = (override.lstrip("+~").replace("/", ".").replace("@", ".").partition("=")[0] for override in found.config.hydra.overrides.task)
    return list(dict.fromkeys(word.split(".")[0] for word in words))


def _ordered(parts: dict[str, Section]) -> list[str]:
    order = {group: place for place, group in enumerate(LAST)}
    return sorted(parts, key=lambda package: (order.get(package.split(".")[0], len(LAST)), package))


def block(section: Section, width: int) -> str:
    """Return a section as text: its title, the first sentence of its file, and its keys."""
    target = f"  ({section.target})" if section.target else ""
    lines = [wrapped(f"{section.title}{target}", width)]
    lines += [wrapped(section.words, width, "  ", "  ")] if section.words else []
    rows = [row(key, width) for key in section.keys]
    return "\n".join([*lines, *([""] if rows and section.words else []), *(rows or ["  No keys of its own."])])


def row(key: Key, width: int) -> str:
    """Return a key with its value and its explanation."""
    origin = f"[{key.origin}]" if key.origin else ""
    return entry(f"{key.name}={shown(key.value)}", f"{key.words} {origin}".strip(), width)


def shown(value: Any) -> str:
    """Return a value as YAML has it, on one line."""
    text = yaml.safe_dump(value, default_flow_style=True, width=10**6, allow_unicode=True, sort_keys=False)
    return text.removesuffix("\n").removesuffix("\n...")
