"""`metarun compare`: the words of its command line, and what it prints."""

from __future__ import annotations

import contextlib
import os
import sys
from collections.abc import Sequence
from dataclasses import dataclass, field
from pathlib import Path
from typing import TYPE_CHECKING

from metarun.cli.plain_words import note, one_path, printed_help
from metarun.commands.comparing.formatting import Table, as_csv, as_json, markdown, text
from metarun.commands.comparing.runs import Run, find_runs
from metarun.commands.comparing.validation import validation_tables
from metarun.errors import UserError, nearest, printable
from metarun.files.commands import packages_of, program
from metarun.files.paths import expanded, shell_words
from metarun.files.writing import write_text
from metarun.records.widths import terminal_width

if TYPE_CHECKING:
    from metarun.commands.comparing.scoring import Evaluate
    from metarun.commands.comparing.settings import Setting

VALUES = {
    "split": ("test", "val", "train"),
    "base": (),
    "seeds": ("mean", "all"),
    "format": ("text", "markdown", "csv", "json"),
    "out": (),
    "figure": (),
    "families": (),
    "tables": ("split", "one"),
    "trust": (),
}
"""The keys of the command, with their values where they are few; the first one is the default."""
KEYS = tuple(VALUES)
EVALUATION = ("episodes", "seed", "best", "inner_steps", "by_step", "norm", "overlap", "algo", "task", "backbone", "device")
"""Keys of `metarun eval` that go on to it, beside those with a dot, such as task.shots."""
SUFFIXES = {".md": "markdown", ".csv": "csv", ".json": "json"}
USAGE = "usage: metarun compare RUN… | SWEEP [split=test] [base=RUN] [seeds=all] [format=markdown|csv|json] [out=FILE] [key=value …]"
HELP = f"""{USAGE}

Print runs as a table, the best validation score first. A path names a run, the folder of a sweep or of an evaluation, or a folder with runs
in it. Each row is named by the keys in which the runs differ. Runs that differ in their seed alone share a row: mean and spread over seeds.

  split     test | val | train: score the runs on the same episodes. Stored evaluations are read; runs without one are evaluated, into
            RUN/eval. Other keys, such as episodes=1000 or task.shots=5, are those of metarun eval
  base      with split: the run, or a name of the table, with which the others are compared episode by episode; without it the run with the
            best validation score
  seeds     mean | all: all shows the single runs below their mean
  format    text | markdown | csv | json
  out       a new file for the table; .md, .csv and .json set the format
  figure    with split: a new file (.png, .svg, .pdf) with the scores by inner step
  families  with split: a new file with the scores of each family of task=mixture
  tables    split | one: one puts runs of different tasks into one table; say so only if they have the same episodes
  trust     packages besides metarun that the checkpoints may name, with commas between them

examples:
  metarun compare outputs/multirun/2026-01-31_12-00-00
  metarun compare SWEEP split=test episodes=1000 base=SWEEP/0_algo-maml_seed-0 out=table.md
"""


@dataclass(frozen=True)
class Asked:
    """The words of the command line. words: overrides of `metarun eval`."""

    paths: tuple[str, ...]
    split: str | None = None
    base: str | None = None
    every_seed: bool = False
    format: str = "text"
    out: Path | None = None
    figure: Path | None = None
    families: Path | None = None
    together: bool = False
    trust: str | None = None
    words: tuple[str, ...] = field(default=())


def main(arguments: list[str]) -> int:
    """Compare as the words say, and return the exit code."""
    if printed_help(arguments, HELP):
        return 0
    asked = parse(arguments)
    runs = find_runs(asked.paths)
    tables, groups = compared(runs, asked)
    draw(groups, asked)
    if asked.out is not None:
        write_text(asked.out, f"{rendered(tables, asked.format)}\n")
        print(f"wrote {asked.out}")
        return 0
    print(rendered(tables, asked.format, terminal_width()), flush=True)
    if asked.format == "text" and asked.split is None and any(run.validation is not None for run in runs):
        print(f"\n{how_to_score(asked.paths, runs)}", flush=True)
    return 0


def how_to_score(paths: Sequence[str], runs: Sequence[Run]) -> str:
    """Return the line with the command that scores the runs at these paths on the same test tasks."""
    packages = list(dict.fromkeys(package for run in runs for package in packages_of(run.config)))
    words = [shell_words(paths), "split=test", *([f"trust={','.join(packages)}"] if packages else [])]
    return f"score them on the same test tasks with: {program()} compare {' '.join(words)}"


def parse(arguments: Sequence[str]) -> Asked:
    """Return the words of the command line; UserError for words that do not fit each other, before any work."""
    paths: list[str] = []
    given: dict[str, str] = {}
    words: list[str] = []
    for word in arguments:
        key, equals, value = word.lstrip("+").partition("=")
        if not equals or os.path.lexists(expanded(word)):
            if word.startswith("-"):
                raise UserError(f"metarun compare knows no '{word}'.\n{USAGE}")
            paths.append(word)
        elif key in KEYS:
            note(given, key, value, USAGE)
            _check_choice(key, value)
        elif key.split(".")[0].split("/")[0] in EVALUATION:
            words.append(word)
        else:
            raise UserError(f"metarun compare knows no '{key}='.{nearest(key, (*KEYS, *EVALUATION))}\n{USAGE}")
    if not paths:
        raise UserError(f"metarun compare needs runs: the folders of runs, or that of a sweep.\n{USAGE}")
    if words and "split" not in given:
        raise UserError(f"{words[0].partition('=')[0]}= is a key of an evaluation; give split=test too, or leave it out.")
    out, figure, families = (_new_file(key, given[key]) if key in given else None for key in ("out", "figure", "families"))
    return Asked(
        paths=tuple(paths),
        split=given.get("split"),
        base=given.get("base"),
        every_seed=given.get("seeds") == "all",
        format=given.get("format") or SUFFIXES.get(out.suffix.lower() if out is not None else "", "text"),
        out=out,
        figure=figure,
        families=families,
        together=given.get("tables") == "one",
        trust=given.get("trust"),
        words=tuple(words),
    )


def _check_choice(key: str, value: str) -> None:
    known = VALUES[key]
    if known and value not in known:
        raise UserError(f"{key}={value} is unknown; give {key}={' or '.join(known)}.{nearest(value, known)}")


def _new_file(key: str, value: str) -> Path:
    file = expanded(one_path(key, value, USAGE))
    if not file.parent.is_dir():
        raise UserError(f"{key}={value}: there is no folder {file.parent}; make it first.")
    if os.path.lexists(file):
        raise UserError(f"{key}={value}: the file is there already; choose another name.")
    if key != "out" and file.suffix.lower() not in (".png", ".svg", ".pdf"):
        raise UserError(f"{key}={value} should end in .png, .svg or .pdf.")
    return file


def compared(runs: Sequence[Run], asked: Asked) -> tuple[list[Table], list[list[Setting]]]:
    """Return the tables, and the settings of each set of episodes that was scored, for the figures."""
    if asked.split is None and any(run.evaluation is None for run in runs):
        for key, value in (("base", asked.base), ("figure", asked.figure), ("families", asked.families)):
            if value is not None:
                raise UserError(f"{key}= compares scores on the same episodes; give split=test too.")
        return validation_tables(runs, every_seed=asked.every_seed), []
    from metarun.commands.comparing.scores import check_base, grouped, score_tables
    from metarun.commands.comparing.scoring import Scored, scored

    if asked.split is None:
        found = [Scored(run, run.evaluation) for run in runs]
    else:
        check_words(asked.words)
        if asked.base is not None:
            check_base(asked.base, runs)
        found = scored(runs, asked.split, asked.words, evaluator(asked.trust, len(runs)))
    tables = score_tables(found, base=asked.base, every_seed=asked.every_seed, together=asked.together)
    return tables, grouped(found, together=asked.together) if _draws(asked) else []


def _draws(asked: Asked) -> bool:
    return asked.figure is not None or asked.families is not None


def draw(groups: Sequence[Sequence[Setting]], asked: Asked) -> None:
    """Draw the figures that were asked for."""
    if not _draws(asked):
        return
    from metarun.commands.comparing.figures import draw_families, draw_steps

    if asked.figure is not None:
        draw_steps(groups, asked.figure)
    if asked.families is not None:
        draw_families(groups, asked.families)


def check_words(words: Sequence[str]) -> None:
    """Raise UserError for overrides that `metarun eval` refuses for every run, before the first run is evaluated."""
    if words:
        from metarun.cli.interface import check_evaluation

        check_evaluation(words)


def evaluator(trust: str | None, count: int) -> Evaluate:
    """Return a function that evaluates a run into its own folder, and prints to stderr what it does. count: of the runs."""
    done = [0]

    def evaluate(run: Run, words: Sequence[str]) -> Path:
        from metarun.cli.interface import evaluate as run_evaluation

        done[0] += 1
        print(f"metarun: evaluating {printable(run.folder)} ({done[0]} of at most {count})", file=sys.stderr, flush=True)
        trusted = [] if trust is None else [f"trust=[{trust.strip('[]')}]"]
        with contextlib.redirect_stdout(sys.stderr):  # stdout holds the table alone
            report = run_evaluation(run.folder, [*words, *trusted])
        return Path(report["folder"])

    return evaluate


def rendered(tables: Sequence[Table], form: str, width: int | None = None) -> str:
    """Return the tables in a format. width: of the terminal; None for no limit."""
    if form == "text":
        return text(tables, width)
    return {"markdown": markdown, "csv": as_csv, "json": as_json}[form](tables)
