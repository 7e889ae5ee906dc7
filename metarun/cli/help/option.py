"""`metarun list GROUP OPTION`: what one option is, its paper, its keys, the experiments that use it, and an example."""

from __future__ import annotations

from collections.abc import Mapping, Sequence
from importlib.resources.abc import Traversable
from pathlib import Path
from typing import Any

from metarun.cli.help.comments import Header, header_of
from metarun.cli.help.explained import Composed, Section, composed, sections
from metarun.cli.help.page import block, row, shown
from metarun.cli.help.paper import paper_of
from metarun.cli.help.text import entry, wrapped
from metarun.commands.keys import claim_of
from metarun.files.paths import quoted
from metarun.wiring.option_files import defaults_of, options, shipped, text_of

OUTER = {"algo/update": ["algo=gbml"], "task/source": ["task=stream"]}
"""The option that has the group below it."""
SHOWN = ("Defaults", "Docs")
CHOICES = ("algo", "task", "task/source", "backbone", "optimizer")


def described(group: str, option: str, folders: Sequence[Path], width: int) -> str:
    """Return the description of an option as text. folders: config folders of the user's. width: in columns."""
    roots: list[Traversable] = [shipped(), *folders]
    header = header_of(text_of(f"{group}/{option}", roots) or "")
    places = ",".join(quoted(str(folder.absolute())) for folder in folders)
    found = composed("train", [*OUTER.get(group, []), f"{group}={option}", *([f"hydra.searchpath=[{places}]"] if places else [])])
    parts = sections(found)
    if group == "experiment":
        blocks = experiment_blocks(option, header, found, parts, width)
    else:
        package = group.replace("/", ".")
        mine = [section for name, section in parts.items() if name == package or name.startswith(f"{package}.")]
        blocks = option_blocks(header, mine, width)
        blocks += [using(group, option, folders, width), example(group, option, header, mine[0], width)]
    return "\n\n".join(each for each in blocks if each)


def option_blocks(header: Header, mine: Sequence[Section], width: int) -> list[str]:
    """Return the parts of a description that stand in the option's file: header, paper and keys. mine: its section, then nested ones."""
    paper = paper_of(mine[0].target, header.parts)
    title = block(mine[0]._replace(words=header.text, keys=[]), width).rpartition("\n")[0]
    keys = "\n".join(row(key, width) for key in mine[0].keys)
    return [
        title,
        wrapped(f"Paper: {paper}", width) if paper else "",
        *(wrapped(header.parts[label], width) for label in SHOWN if label in header.parts),
        f"Keys:\n{keys}" if keys else "No keys of its own.",
        *(block(section, width) for section in mine[1:]),
    ]


def experiment_blocks(name: str, header: Header, found: Composed, parts: Mapping[str, Section], width: int) -> list[str]:
    """Return the parts of the description of an experiment."""
    choices = [f"{group}={found.choices[group]}" for group in CHOICES if found.choices.get(group)]
    keys = [key for section in parts.values() for key in section.keys if key.origin == "set by the experiment" and key.name != "reproduce"]
    rows = "\n".join(row(key._replace(origin=""), width) for key in keys)
    reproduce = next((key.value for key in parts[""].keys if key.name == "reproduce"), None)
    again = f"\n  metarun reproduce {name}" if reproduce else ""
    return [
        f"experiment={name}\n{wrapped(header.text, width, '  ', '  ')}",
        *(wrapped(words, width) for label, words in header.parts.items() if label != "Command"),
        wrapped(f"It chooses {' '.join(choices)}.", width),
        f"It sets:\n{rows}" if rows else "",
        protocol(reproduce, width) if reproduce else "",
        f"Run it with:\n  metarun train experiment={name}{again}",
    ]


def protocol(reproduce: Mapping[str, Any], width: int) -> str:
    """Return what `metarun reproduce` compares, and the differences from the paper. reproduce: the key of this name."""
    claim = claim_of(reproduce)
    keys = " ".join(f"{key}={shown(value)}" for key, value in claim.eval.items())
    published = "nothing" if claim.published is None else f"{claim.metric} {claim.published:g}"
    published += f" ± {claim.ci95:g}" if claim.ci95 is not None else ""
    source = f", {claim.source}" if claim.source else ""
    lines = [
        wrapped(f"metarun reproduce scores it with {keys or 'the keys of metarun eval'} and compares with {published}{source}.", width)
    ]
    lines += [wrapped(sentence, width, "  - ", "    ") for sentence in claim.differences]
    return "\n".join([lines[0], "Differences from the published protocol:", *lines[1:]] if len(lines) > 1 else lines)


def using(group: str, option: str, folders: Sequence[Path], width: int) -> str:
    """Return the experiments that choose an option, with their first sentences; an empty string without any."""
    roots: list[Traversable] = [shipped(), *folders]
    names = [name for name in options("experiment", folders) if chosen_by(name, group, roots) == option]
    rows = [entry(name, header_of(text_of(f"experiment/{name}", roots) or "").sentence, width) for name in names]
    return "\n".join(["Experiments:", *rows]) if rows else ""


def chosen_by(experiment: str, group: str, roots: Sequence[Traversable]) -> str | None:
    """Return the option of a group that an experiment chooses, itself or in an experiment that it builds on; None for no choice."""
    chosen = None
    for choice, option in defaults_of(text_of(f"experiment/{experiment}", roots) or ""):
        path = choice.removeprefix("override ").partition("@")[0].removeprefix("/")
        if path == group and isinstance(option, str):
            chosen = option
        elif not choice and option not in (None, "_self_", experiment):
            chosen = chosen_by(str(option), group, roots) or chosen
    return chosen


def example(group: str, option: str, header: Header, section: Section, width: int) -> str:
    """Return an example command: that of the header, or one with the keys that must be given."""
    if "Example" in header.parts:
        command = header.parts["Example"].removeprefix("Example:").strip()
    else:
        needed = [f"{key.name}=VALUE" for key in section.keys if key.value == "???"]
        command = " ".join(["metarun train", *OUTER.get(group, []), f"{group}={option}", *needed])
    return f"Example:\n{wrapped(command, width, '  ', '    ')}"
