"""Overrides that choose the option of a group: a name, and no number or mapping. For some groups, it may be a list of names."""

from __future__ import annotations

from collections.abc import Sequence

from hydra.core.override_parser.overrides_parser import OverridesParser
from hydra.core.override_parser.types import Override
from hydra.errors import HydraException

from metarun.cli.arguments import GROUPS
from metarun.errors import UserError

NESTED = ("algo/update", "task/source")
SEVERAL = ("logger",)
"""The groups of which a run may have several options at once, such as logger=[tensorboard,wandb]."""


def check_options(words: Sequence[str]) -> None:
    """Raise UserError where an override gives a group anything else than the name of an option. words: of Hydra's command line."""
    for word in words:
        group = word.lstrip("+").partition("=")[0].partition("@")[0]
        if group in (*GROUPS, *NESTED) and "=" in word and not _is_option(word):
            raise UserError(
                f"'{word}' names no option of {group}; give one name, such as {group}={EXAMPLES[group]} (`metarun list` shows them), and "
                f"single keys as {group.replace('/', '.')}.KEY=VALUE."
            )


EXAMPLES = {
    "algo": "maml",
    "algo/update": "sgd",
    "task": "glyphs",
    "task/source": "omniglot",
    "backbone": "conv4",
    "device": "cpu",
    "optimizer": "adam",
    "logger": "jsonl",
    "experiment": "smoke",
}


def _is_option(word: str) -> bool:
    try:
        override: Override = OverridesParser.create().parse_override(word)
    except HydraException:  # Hydra's own sentence says what is wrong
        return True
    if override.is_sweep_override():
        return True
    value = override.value()
    names = value if isinstance(value, list) and override.key_or_group in SEVERAL else [value]
    return len(names) > 0 and all(isinstance(name, str) and name.strip() != "" for name in names)
