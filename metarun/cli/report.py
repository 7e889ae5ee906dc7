"""`metarun report`: the words of its command line, and what it prints."""

from __future__ import annotations

import shlex
from collections.abc import Sequence
from pathlib import Path
from typing import Any

from metarun.cli.compare import EVALUATION, VALUES, check_words, evaluator
from metarun.cli.paths import typed_paths
from metarun.cli.plain_words import names_in, note, one_path, printed_help
from metarun.errors import UserError, nearest
from metarun.files.commands import program

KEYS = ("out", "split", "score", "look", "samples", "figures", "form", "only", "names", "base", "curve", "trust")
USAGE = "usage: metarun report RUN… | SWEEP [out=report.html] [split=test] [figures=DIR] [key=value …]"
HELP = f"""{USAGE}

Write one HTML file about runs: a verdict in words, scores with intervals and baselines, paired differences on the same tasks, learning
curves, predictions, what differs between the configs, and the commands to repeat it. The file holds everything it shows and loads nothing.

  RUN        a run folder, the folder of a sweep, the folder of an evaluation, or its report.json; several are compared

  out        the HTML file (report.html); a report of metarun is replaced, another file is not
  split      the split whose scores it shows: test, val or train (test)
  score      true: score the runs that have no evaluation, as metarun eval does; false: show what there is (true)
  episodes   and seed, inner_steps, norm, best, task.shots and the like: settings of the evaluations, as in metarun eval
  look       how many tasks give the reliability, the confused classes and the scatter of predictions (100); 0 for none
  samples    the numbers of the tasks to draw (0,1,2); samples= draws none
  figures    a folder for the pictures as files too; a picture of this name in it is replaced
  form       png or svg, of these files (png)
  only       which of these files to write, with commas between them, such as only=steps,scores
  names      names for the runs, with commas between them; runs with one name are seeds of one model
  base       the model to which differences are taken (the one with the best
             validation score)
  curve      a value of metrics.jsonl to draw, such as train/gradient_norm
  trust      packages besides metarun that the checkpoints' configs may name, with commas between them

examples:
  metarun report outputs/multirun/2026-01-31_12-00-00 out=sweep.html
  metarun report RUN RUN task.shots=5 episodes=1000 figures=pictures
"""


def main(arguments: list[str]) -> int:
    """Write the report as the words say, and return the exit code."""
    if printed_help(arguments, HELP):
        return 0
    request = request_of(arguments)
    from metarun.commands.comparing.runs import find_runs
    from metarun.commands.reporting.report import Request, report

    check_words(request["overrides"])
    evaluate = evaluator(",".join(request["trust"]) or None, len(find_runs(request["paths"])))
    page, *pictures = report(Request(**request), evaluate)
    print(f"report: {page} ({page.stat().st_size / 1e6:.1f} MB)")
    if pictures:
        print(f"pictures: {', '.join(map(str, pictures))}")
    return 0


def request_of(arguments: Sequence[str]) -> dict[str, Any]:
    """Return the fields of `Request`; UserError for a word that is none, for a missing run, and for a value of the wrong kind."""
    paths = [word for word in arguments if _is_path(word)]
    given: dict[str, str] = {}
    overrides = []
    for word in (each for each in arguments if not _is_path(each)):
        key, _, value = word.lstrip("+").partition("=")
        if key in EVALUATION or "." in key:
            overrides.append(word)
        elif key not in KEYS:
            raise UserError(f"metarun report knows no '{word}'.{nearest(key, (*KEYS, *EVALUATION))}\n{USAGE}")
        else:
            note(given, key, value, USAGE, may_be_empty=("samples",))
    if flags := [path for path in paths if path.startswith("-")]:
        raise UserError(f"metarun report knows no '{flags[0]}'.\n{USAGE}")
    if not paths:
        raise UserError(f"metarun report needs a run, a sweep or an evaluation.\n{USAGE}")
    command = f"{program()} {shlex.join(['report', *arguments])}"
    return {"paths": [part for path in paths for part in typed_paths(path)], "overrides": overrides, "command": command, **_values(given)}


def _is_path(word: str) -> bool:
    """Return whether a word is a path: it has no `=`, or it exists although it has one, as the jobs of some sweeps do."""
    return "=" not in word or (Path(word).exists() and "/" in word)


def _values(given: dict[str, str]) -> dict[str, Any]:
    values: dict[str, Any] = {key: given[key] for key in ("split", "base", "curve") if key in given}
    values |= {key: one_path(key, given[key], USAGE) for key in ("out", "figures") if key in given}
    values |= {"form": _choice("form", given.get("form", "png"), ("png", "svg"))}
    values |= {field: names_in(given.get(key, "")) for field, key in (("titles", "names"), ("only", "only"), ("trust", "trust"))}
    values["score"] = _choice("score", given.get("score", "true"), ("true", "false")) == "true"
    values["look"] = _number("look", given.get("look", "100"))
    values["samples"] = [_number("samples", each) for each in names_in(given.get("samples", "0,1,2"))]
    if "split" in values:
        _choice("split", values["split"], VALUES["split"])
    return values


def _number(key: str, value: str) -> int:
    if not value.isdecimal() or not value.isascii() or len(value) > 9:
        raise UserError(f"{key}={value} must be whole numbers of at least 0.")
    return int(value)


def _choice(key: str, value: str, known: Sequence[str]) -> str:
    if value not in known:
        raise UserError(f"{key}={value}: it is one of {', '.join(known)}.{nearest(value, known)}")
    return value
