"""`metarun export`: the words of its command line, and what it prints."""

from __future__ import annotations

from metarun.cli.plain_words import names_in, note, one_path, printed_help
from metarun.errors import UserError, nearest

KEYS = ("checkpoint", "out", "trust")
USAGE = "usage: metarun export checkpoint=RUN out=DIR [trust=PACKAGE]"
HELP = f"""{USAGE}

Write the backbone of a run for other programs: backbone.safetensors, its weights and running statistics, and model.json, which says how
inputs are prepared, how the network normalises, and with which algorithm, classes and score it was trained.

  checkpoint  a run folder, which stands for its best.pt, or a checkpoint
  out         a folder for the two files
  trust       packages besides metarun that the checkpoint's config may name, with commas between them
"""


def main(arguments: list[str]) -> int:
    """Export as the words say, and return the exit code."""
    if printed_help(arguments, HELP):
        return 0
    given = parse(arguments)
    from metarun.commands.export import DESCRIPTION, WEIGHTS, export

    about = export(given["checkpoint"], given["out"], names_in(given.get("trust", "")))
    mode = about["backbone"]["mode"]
    print(f"wrote {WEIGHTS} and {DESCRIPTION} to {given['out']}")
    if mode != "eval":
        print(f"metarun: the network normalises by {about['normalisation']['statistics']}.")
    return 0


def parse(arguments: list[str]) -> dict[str, str]:
    """Return the keys with their values; UserError for a word that is none, and for a missing or repeated key."""
    given: dict[str, str] = {}
    for word in arguments:
        key, equals, value = word.lstrip("+").partition("=")
        if not equals or key not in KEYS:
            raise UserError(f"metarun export knows no '{word}'.{nearest(key, KEYS)}\n{USAGE}")
        note(given, key, value, USAGE)
        if key != "trust":
            given[key] = one_path(key, value, USAGE, "; export several runs one by one")
    for key in ("checkpoint", "out"):
        if key not in given:
            raise UserError(f"metarun export needs {key}=.\n{USAGE}")
    return given
