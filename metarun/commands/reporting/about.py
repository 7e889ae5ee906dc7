"""The sections about the runs themselves: configs, protocol, warnings, versions, commands."""

from __future__ import annotations

import platform
import shlex
from collections.abc import Iterator, Mapping, Sequence
from importlib import metadata
from typing import Any

import metarun
from metarun.commands.comparing.reading import mapping, number
from metarun.commands.comparing.runs import STOPPED
from metarun.commands.reporting.entries import Entry, sequence
from metarun.commands.reporting.numbers import plain, score_cell
from metarun.commands.reporting.page import Block, Cell, Command, Listing, Prose, Section, Table, code, section, shown
from metarun.commands.stopping import resuming
from metarun.files.commands import program
from metarun.files.run_folder import has_checkpoints

_MOST_KEYS, _MOST_TASKS, _MOST_RUNS = 60, 12, 24
_PACKAGES = ("torch", "numpy", "hydra-core", "matplotlib")


def configs_section(entries: Sequence[Entry]) -> Section | None:
    """Return the keys whose values differ among the runs, as `metarun.commands.comparing.naming` finds them."""
    if len(entries) < 2:
        return None
    keys = list(dict.fromkeys(key for entry in entries for key in entry.differing))
    if not keys:
        return section("configs", "Configs", Listing([f"The configs of the {len(entries)} runs have equal values."]))
    columns = entries[:_MOST_RUNS]
    rows = [[Cell(code(key)), *(Cell(shown(entry.differing.get(key) or "–", 80)) for entry in columns)] for key in keys[:_MOST_KEYS]]
    more = f" {len(keys) - _MOST_KEYS} more keys differ." if len(keys) > _MOST_KEYS else ""
    caption = f"The keys whose values differ.{more} A dash: the run has no such key. The keys of another algorithm or task are left out."
    titles = ["key", *(shown(entry.name, 40) for entry in columns)]
    if len(columns) > len(rows):  # many runs and few keys fit better on their side
        rows = [[Cell(code(entry.name)), *(row[1 + place] for row in rows)] for place, entry in enumerate(columns)]
        titles = ["run", *keys[:_MOST_KEYS]]
    return section("configs", "What differs between the configs", Table(titles, rows, caption, [False] * len(titles)))


def protocol_section(entries: Sequence[Entry], stated: Mapping[str, Mapping[str, Any]]) -> Section | None:
    """Return our score beside the published one, and the differences of protocol. stated: experiment -> its `reproduce` entry."""
    rows = [_reproduced(entry, found) for entry in entries if (found := mapping(entry.report.get("reproduction")))]
    blocks: list[Block | None] = []
    if rows:
        blocks.append(Table(["run", "our score", "published", "tolerance", "verdict", "source"], rows))
    for entry in entries:
        if changed := sequence(mapping(entry.report.get("reproduction")).get("changed")):
            told = [f"{code(entry.name)}: {shown(each, 300)}" for each in changed[:_MOST_TASKS]]
            blocks += [Prose("The run differs from its experiment:"), Listing(told, "warning")]
    for name, node in stated.items():
        if differences := mapping(node.get("differences")):
            told = [f"{code(key)}: {shown(text, 600)}" for key, text in differences.items()]
            blocks += [
                Prose(f"The experiment {code(name)} differs from the paper ({shown(node.get('source') or 'no source', 300)}):"),
                Listing(told),
            ]
    return section("protocol", "Protocol and paper", *blocks)


def _reproduced(entry: Entry, found: Mapping[str, Any]) -> list[Cell]:
    metric = "accuracy" if found.get("metric") == "accuracy" else "score"
    published, done = found.get("published"), found.get("reproduced")
    told = "reproduced" if done is True else "not reproduced" if done is False else "nothing published"
    source = shown(found.get("source") or "–", 300) + (" (as recalled, not read again)" if found.get("recalled") else "")
    return [
        Cell(code(entry.name)),
        score_cell(found.get("measured"), found.get("measured_ci95"), metric),
        score_cell(published, found.get("published_ci95"), metric),
        score_cell(found.get("tolerance") if published is not None else None, None, metric),
        Cell(told),
        Cell(source),
    ]


def warnings_section(entries: Sequence[Entry], remarks: Sequence[str] = ()) -> Section | None:
    """Return what a reader should know about the scores: diverged tasks, training classes at test, runs that did not finish.

    remarks: sentences about the report itself.
    """
    said = [*remarks, *(sentence for entry in entries for sentence in warnings_of(entry))]
    return section("warnings", "Warnings and remarks", Listing(list(dict.fromkeys(said))[:_MOST_KEYS], "warning")) if said else None


def warnings_of(entry: Entry) -> Iterator[str]:
    """Yield the sentences about one run."""
    name, report = code(entry.name), entry.report
    if entry.status != "finished":
        yield f"{name} is {shown(entry.status)}: it has not done all its steps."
    yield from _diverged(entry)
    for overlap in [report.get("overlap"), *sequence(entry.training.get("overlap"))]:
        if each := mapping(overlap):
            count, kind = plain(number(each.get("count"))), shown(each.get("kind") or "classes")
            yield f"{name}: {count} scored {kind} are also training {kind}, so the score is not one of new {kind}."
    pretraining = mapping(report.get("pretraining"))
    for key, word in (("contained", "contains the data set"), ("sharing", "shares images with")):
        for other in sequence(pretraining.get(key)):
            yield f"{name}: the pretraining set of its weights {word} {shown(other)}."
    if (named := mapping(pretraining.get("named"))) and number(named.get("count")):
        yield f"{name}: the pretraining had {plain(number(named.get('count')))} of the scored classes."
    if report.get("split") == "train":
        yield f"{name}: the scored tasks are of the training split, so the score is not one of new tasks."
    population = mapping(report.get("population"))
    if population and not population.get("covers_new", True):
        count, kind = plain(number(population.get("count"))), shown(population.get("kind"))
        yield f"{name}: every task has the same {count} {kind}; no interval covers new ones."
    if report.get("task") != report.get("trained_on"):
        yield f"{name} was trained on {code(report.get('trained_on'))} and scored on {code(report.get('task'))}."


def _diverged(entry: Entry) -> Iterator[str]:
    """Yield how many tasks diverged, and the numbers of the worst ones."""
    count = int(number(entry.report.get("diverged")) or 0)
    if not count:
        return
    lost = [number for number, score in enumerate(entry.scores) if score is None]
    worst = sorted(
        (number for number, score in enumerate(entry.scores) if score is not None), key=lambda number: -(entry.scores[number] or 0.0)
    )
    numbers = (lost + ([] if entry.metric == "accuracy" else worst))[: min(count, _MOST_TASKS)]
    which = f"; the worst are the episodes {', '.join(map(str, sorted(numbers)))}" if numbers else ""
    yield f"{code(entry.name)}: {count} of {plain(number(entry.report.get('episodes')))} tasks diverged{which}."


def versions_section(written: Mapping[str, Mapping[str, Any]]) -> Section | None:
    """Return the versions behind the report and behind the checkpoints. written: run -> facts of its checkpoint."""
    rows = [[Cell("this report"), Cell(f"metarun {metarun.__version__}, Python {platform.python_version()}, {', '.join(_versions())}")]]
    for name, facts in written.items():
        text = ", ".join(f"{key} {value}" for key, value in facts.items() if value not in (None, ""))
        rows.append([Cell(code(name)), Cell(shown(text, 300))])
    return section("versions", "Versions", Table(["", "versions"], rows, numeric=[False, False]))


def _versions() -> Iterator[str]:
    for name in _PACKAGES:
        try:
            yield f"{name.removesuffix('-core')} {metadata.version(name)}"
        except metadata.PackageNotFoundError:
            continue


def commands_section(entries: Sequence[Entry], report: str, trust: Sequence[str] = ()) -> Section | None:
    """Return the commands that repeat the runs or go on with them, and those of their evaluations and of this page, for a shell."""
    blocks: list[Block | None] = []
    trained = [entry for entry in entries if entry.folder is not None]
    for entry in trained[:_MOST_RUNS]:
        blocks.append(Command(_training(entry), f"{code(entry.name)}, in {code(entry.folder)}"))
    trusted = [f"trust=[{','.join(trust)}]"] if trust else []
    scored = [entry for entry in entries if entry.scored and entry.report.get("checkpoint")]
    evaluations = [f"{program()} {shlex.join(['eval', *_evaluated(entry.report), *trusted])}" for entry in scored[:_MOST_RUNS]]
    if evaluations:
        blocks.append(Command("\n".join(dict.fromkeys(evaluations)), "The evaluations:"))
    blocks.append(Command(report, "This report:"))
    return section("commands", "Commands", *blocks)


def _training(entry: Entry) -> str:
    """Return the command that repeats the training of a run; for a stopped run, the command that goes on with it."""
    if entry.status == STOPPED and entry.folder is not None and has_checkpoints(entry.folder):
        return resuming(entry.folder, entry.config)
    return f"{program()} {shlex.join(['train', *entry.typed])}"


def _evaluated(report: Mapping[str, Any]) -> list[str]:
    """Return the words that repeat an evaluation: its checkpoint, its split, its episodes, its seed, and what the user typed."""
    named = report.get("checkpoint")
    paths = [str(path) for path in named] if isinstance(named, list) else [str(named)]
    checkpoint = paths[0] if len(paths) == 1 else f"[{','.join(paths)}]"
    words = [f"checkpoint={checkpoint}", f"split={report.get('split')}", f"episodes={report.get('episodes')}", f"seed={report.get('seed')}"]
    typed = mapping(report.get("settings"))
    words += [f"{key}={value}" for key, value in typed.items() if key not in ("split", "episodes", "seed", "checkpoint", "ensemble")]
    if isinstance(named, list) and report.get("runs"):
        words.append("ensemble=false")
    return [word for word in words if not word.endswith("=None")]
