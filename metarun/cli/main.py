"""The command line: the first word chooses a function, everything after it is that function's own.

Nothing heavy is imported here: help, version and list answer without Hydra, and only a job imports torch.
"""

from __future__ import annotations

import contextlib
import os
import sys
from collections.abc import Callable, Sequence

from metarun import __version__
from metarun.errors import UserError, nearest

USAGE = "usage: metarun {train,eval,list,reproduce} [key=value ...] | --help | --version"

HELP = f"""{USAGE}

An experiment runner for meta-learning.

commands:
  train      meta-train: metarun train algo=protonet task=omniglot task.shots=5
  eval       score a run on new tasks: metarun eval checkpoint=RUN task.ways=20
  list       the algorithms, tasks, backbones and experiments there are
  reproduce  train and score an experiment, beside what was published

worth knowing:
  metarun train experiment=smoke               a whole run in seconds
  metarun train -m algo=maml,reptile seed=0,1  one run for each combination
  metarun train --cfg job algo=reptile         print the config, run nothing
  metarun train resume=RUN                     go on with a run that was stopped
  metarun train --config-dir conf algo=mine    with config files of your own
  eval "$(metarun -sc install=bash)"           complete words with the tab key

A run writes its checkpoints, metrics and TensorBoard files to outputs/<task>-<algo>/<date>_<time>/.
`metarun train --help` shows every key; `metarun train --hydra-help` the flags, which are Hydra's.
"""


def train(arguments: list[str]) -> int:
    """Run `metarun train`."""
    from metarun.cli.jobs import run

    return run("train", arguments)


def evaluate(arguments: list[str]) -> int:
    """Run `metarun eval`."""
    from metarun.cli.jobs import run

    return run("eval", arguments)


def list_options(arguments: list[str]) -> int:
    """Run `metarun list`."""
    from metarun.cli.listing import main

    return main(arguments)


def reproduce(arguments: list[str]) -> int:
    """Run `metarun reproduce`."""
    from metarun.cli.reproduce import main

    return main(arguments)


def complete(arguments: list[str]) -> int:
    """Run `metarun -sc install=bash`, or answer the shell's question `metarun -sc query=bash`."""
    from metarun.cli.completion import main

    return main(arguments)


COMMANDS: dict[str, Callable[[list[str]], int]] = {"train": train, "eval": evaluate, "list": list_options, "reproduce": reproduce}


def dispatch(words: list[str]) -> int:
    """Give the words after `metarun` to the command that the first one names."""
    first = words[0] if words else "--help"
    if first in ("-h", "--help"):
        print(HELP, end="", flush=True)
        return 0
    if first == "--version":
        print(f"metarun {__version__}", flush=True)
        return 0
    if "-sc" in words or "--shell-completion" in words:
        return complete([word for word in words if word not in COMMANDS])
    if first not in COMMANDS:
        raise UserError(f"{unknown(first)}\n{USAGE}")
    return COMMANDS[first](words[1:])


def unknown(word: str) -> str:
    """Return the sentence about a first word that is no command."""
    if "=" in word:
        return f"'{word}' comes before a command; write metarun train {word}."
    kind = "option" if word.startswith("-") else "command"
    return f"there is no {kind} '{word}'.{nearest(word, [*COMMANDS, '--help', '--version'])}"


def main(words: Sequence[str] | None = None) -> int:
    """Run the command line and return its exit code: 2 for the user's mistakes, 130 where Ctrl-C ended it."""
    try:
        return dispatch(list(sys.argv[1:] if words is None else words))
    except UserError as error:
        print(f"metarun: {error}", file=sys.stderr)
        return 2
    except KeyboardInterrupt:
        print("metarun: interrupted.", file=sys.stderr)
        return 130
    except BrokenPipeError:  # `metarun list | head -1`: the reader has what it wanted
        with contextlib.suppress(OSError, ValueError):
            os.dup2(os.open(os.devnull, os.O_WRONLY), sys.stdout.fileno())
        return 0


def entry() -> None:
    """Be the console script."""
    sys.exit(main())
