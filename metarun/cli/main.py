"""The command line: the first word names a command, which gets the words after it.

This module imports nothing slow: help, version and list run without Hydra, and only a job imports torch.
"""

from __future__ import annotations

import signal
import sys
from collections.abc import Callable, Sequence

from metarun import __version__
from metarun.cli.processes import is_later, is_left_to_first, run
from metarun.cli.signals import Signalled, handle_signals
from metarun.cli.streams import exit_code, make_steady
from metarun.errors import Stopped, UserError, signal_name

USAGE = """usage: metarun {train,eval,compare,predict,report,export,list,reproduce}
               [key=value ...]
       metarun --help | --version"""

HELP = f"""{USAGE}

An experiment runner for meta-learning.

commands:
  train      meta-train one algorithm on one task source
  eval       score a run on unseen tasks
  compare    print runs as a table, by validation or on the same tasks
  predict    label your own images, predict a table, or recommend items
  report     write a page about runs
  export     write the backbone of a run for other programs
  list       list algorithms, tasks, backbones, experiments; or describe one
  reproduce  train and score an experiment, and compare with the published score

examples:
  metarun train experiment=smoke               a complete run in seconds
  metarun train algo=protonet task=omniglot task.shots=5
  metarun train --help algo=maml task=folder   explain every key of this choice
  metarun train -m algo=maml,reptile seed=0,1  one run per combination
  metarun train -m hydra/sweeper=optuna ...    search for good values
  metarun train resume=RUN                     continue a stopped run
  metarun train --config-dir conf algo=mine    use your own config files
  metarun eval checkpoint=RUN task.ways=20     score a run, here with more ways
  metarun predict checkpoint=RUN support=DIR query=DIR
  metarun compare SWEEP split=test             score runs on the same tasks
  metarun report RUN RUN out=report.html       compare two runs on one page
  metarun list algo maml                       paper, keys and experiments
  eval "$(metarun -sc install=bash)"           complete words with the Tab key

RUN is the folder of a run, outputs/<task>-<algo>/<date>_<time>/, with its
checkpoints, metrics and TensorBoard files. Each command explains its keys with
--help; `metarun train --hydra-help` lists the flags, which belong to Hydra.
"""


def train(arguments: list[str]) -> int:
    """Run `metarun train`."""
    return _job("train", arguments)


def evaluate(arguments: list[str]) -> int:
    """Run `metarun eval`."""
    return _job("eval", arguments)


def compare(arguments: list[str]) -> int:
    """Run `metarun compare`."""
    from metarun.cli.compare import main

    return main(arguments)


def predict(arguments: list[str]) -> int:
    """Run `metarun predict`."""
    return _job("predict", arguments)


def _job(command: str, arguments: list[str]) -> int:
    """Run a job, or print its help where `-h` or `--help` is among the words."""
    from metarun.cli.help.page import asked_for_help
    from metarun.cli.help.page import main as print_help

    if asked_for_help(arguments):
        return print_help(command, arguments)
    from metarun.cli.jobs import run

    return run(command, arguments)


def list_options(arguments: list[str]) -> int:
    """Run `metarun list`."""
    from metarun.cli.listing import main

    return main(arguments)


def reproduce(arguments: list[str]) -> int:
    """Run `metarun reproduce`."""
    from metarun.cli.reproduce import main

    return main(arguments)


def export(arguments: list[str]) -> int:
    """Run `metarun export`."""
    from metarun.cli.export import main

    return main(arguments)


def report(arguments: list[str]) -> int:
    """Run `metarun report`."""
    from metarun.cli.report import main

    return main(arguments)


def complete(arguments: list[str]) -> int:
    """Run `metarun -sc install=bash`, or answer the shell's question `metarun -sc query=bash`."""
    from metarun.cli.completion import main

    return main(arguments)


COMMANDS: dict[str, Callable[[list[str]], int]] = {
    "train": train,
    "eval": evaluate,
    "compare": compare,
    "predict": predict,
    "report": report,
    "export": export,
    "list": list_options,
    "reproduce": reproduce,
}


def dispatch(words: list[str]) -> int:
    """Run the command that the first word names, with the words after it, and return the exit code."""
    first = words[0] if words else "--help"
    if is_left_to_first(first):
        return 0
    if first in ("-h", "--help"):
        print(HELP, end="", flush=True)
        return 0
    if first == "--version":
        print(f"metarun {__version__}", flush=True)
        return 0
    if "-sc" in words or "--shell-completion" in words:
        return complete([word for word in words if word not in COMMANDS])
    if first == "help":
        return dispatch([*words[1:], "--help"])
    if first not in COMMANDS:
        from metarun.cli.words import about_command

        raise UserError(f"{about_command(first, COMMANDS)}\n{USAGE}")
    return run(first, COMMANDS[first], words[1:], told)


def main(words: Sequence[str] | None = None) -> int:
    """Run the command line and return its exit code: 2 for a mistake of the user, 128 + the number of a signal that stopped it."""
    try:
        return dispatch(list(sys.argv[1:] if words is None else words))
    except (UserError, KeyboardInterrupt) as error:
        return told(error)


def told(error: BaseException) -> int:
    """Tell the user why a command ended, and return its exit code: 1 for an error that is no mistake in the input; others as of `main`."""
    if isinstance(error, UserError):
        print(f"metarun: {error}", file=sys.stderr)
        return 2
    if isinstance(error, Signalled):
        if not is_later():
            print(f"metarun: interrupted by {signal_name(error.number)}.", file=sys.stderr)
        return 128 + error.number
    if isinstance(error, Stopped):
        return 128 + error.number
    if isinstance(error, KeyboardInterrupt):
        print("metarun: interrupted.", file=sys.stderr)
        return 128 + signal.SIGINT
    if isinstance(error, SystemExit):
        return error.code if isinstance(error.code, int) else 1
    from metarun.cli import tracebacks

    print("\n".join(tracebacks.told(error)), file=sys.stderr)
    return 1


def writes_files(words: Sequence[str]) -> bool:
    """Return whether the words of a command line ask for a result in files, not for text alone."""
    if not words or words[0] not in ("train", "eval", "compare", "predict", "report", "export", "reproduce"):
        return False
    from metarun.cli.arguments import INSPECTING

    return not set(words) & set(INSPECTING)


def entry() -> None:
    """Run as the console script."""
    make_steady()
    handle_signals()
    words = sys.argv[1:]
    try:
        code = main()
    except Exception as error:
        code = told(error)
    sys.exit(exit_code(code, printed_only=not writes_files(words)))
