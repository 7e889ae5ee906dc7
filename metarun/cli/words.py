"""Words of a command line that metarun does not know: what they may mean. This module imports no Hydra and no torch."""

from __future__ import annotations

import difflib
import shlex
from collections.abc import Collection, Iterable

from metarun.errors import nearest
from metarun.files.commands import command
from metarun.wiring.option_files import content_of, options, shipped, text_of
from metarun.wiring.synonyms import KEYS, plain

GROUPS = ("algo", "task", "backbone", "experiment", "optimizer", "device", "logger")

COMMANDS = {
    "train": "run fit start learn meta_train metatrain pretrain training",
    "train resume=RUN": "resume continue restart go_on",
    "train -m KEY=VALUE,VALUE": "tune sweep search optimize optimise grid hpo multirun optuna",
    "eval checkpoint=RUN": "test evaluate evaluation score validate val benchmark",
    "predict checkpoint=RUN support=EXAMPLES": "infer inference classify label recommend forecast prediction",
    "export checkpoint=RUN out=DIR": "convert onnx dump",
    "list": "ls show options info describe search_options algorithms algos tasks datasets models experiments",
    "reproduce EXPERIMENT": "repro replicate paper",
    "compare RUN RUN": "diff table leaderboard rank",
    "report RUN": "plot plots html visualize visualise summary",
    "--version": "version",
}
"""How a command is called -> other words for it."""


def about_command(word: str, commands: Collection[str]) -> str:
    """Return the sentence about a first word that is no command. commands: those that there are."""
    if "=" in word:
        return f"'{word}' needs a command before it; write: {command('train', shlex.quote(word))}"
    kind = "option" if word.startswith("-") else "command"
    meant = [call for call, others in COMMANDS.items() if plain(word) in others.split() and _exists(call, commands)]
    close = difflib.get_close_matches(word, [*commands, "--help", "--version"], n=1, cutoff=0.7)
    if not meant and not close and kind == "command":
        meant = [f"train {choice}" for choice in choices(word) if not choice.startswith("logger=")]
        meant += [f"list {word}"] if word in GROUPS else []
    if meant:
        return f"there is no {kind} '{word}'. Did you mean `metarun {'` or `metarun '.join(meant)}`?"
    return f"there is no {kind} '{word}'.{nearest(word, close)}"


def _exists(call: str, commands: Collection[str]) -> bool:
    first = call.split()[0]
    return first.startswith("-") or first in commands


def about_flag(flag: str, flags: Iterable[str]) -> str:
    """Return the sentence about a flag that Hydra does not have, such as `--lr`. flags: those that it has."""
    known, bare = list(flags), flag.lstrip("-")
    meant = [bare] if bare in (*GROUPS, *content_of(text_of("train", [shipped()]) or "")) else list(KEYS.get(plain(bare), ()))
    if meant and not any(each.startswith(flag) for each in known):
        written = [target if "=" in target else f"{target}=VALUE" for target in meant[:2]]
        return f"there is no flag '{flag}'; a key has no dashes: write {' or '.join(written)}."
    return f"there is no flag '{flag}'.{nearest(flag, known)}"


def about_word(word: str) -> str:
    """Return the sentence about a word without a `=` where an override is expected."""
    if plain(word) in GROUPS:
        return f"'{word}' is not of the form key=value; write {plain(word)}=NAME."
    found = choices(word)
    return f"'{word}' is not of the form key=value." + (f" Did you mean '{found[0]}'?" if found else "")


def choices(word: str) -> list[str]:
    """Return the words that choose an option of this name, such as "algo=maml"."""
    return [f"{group}={plain(word)}" for group in GROUPS if plain(word) in options(group)]
