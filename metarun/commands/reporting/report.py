"""What `metarun report` does: from run folders to one HTML file, and to files with its pictures."""

from __future__ import annotations

from collections.abc import Mapping, Sequence
from dataclasses import dataclass, field
from pathlib import Path
from typing import Any

import metarun
from metarun.commands.comparing.evaluations import Evaluation
from metarun.commands.comparing.reading import mapping, number
from metarun.commands.comparing.runs import Run, find_runs
from metarun.commands.comparing.scoring import Evaluate, scored
from metarun.commands.reporting import about, curves, kinds, looks, scores
from metarun.commands.reporting.drawing import PICTURES, Gallery, is_picture
from metarun.commands.reporting.entries import Entry, groups_of
from metarun.commands.reporting.gather import entries_of, gaps_of, names_of, stored_evaluations
from metarun.commands.reporting.html import MARK, rendered
from metarun.commands.reporting.looking import Look, Looker
from metarun.commands.reporting.numbers import fixed
from metarun.commands.reporting.page import Page, Section, code
from metarun.commands.reporting.standings import ordered, standings_of
from metarun.commands.reporting.verdict import Standing, verdict
from metarun.errors import UserError, nearest, printable
from metarun.files.paths import expanded
from metarun.files.writing import write_text


@dataclass(frozen=True)
class Request:
    """What the user asks for.

    paths: of runs, sweeps and evaluations. out: the HTML file. split, overrides: of the evaluations; overrides are words of `metarun eval`.
    score: whether runs without an evaluation are scored. look: episodes whose predictions the report computes. samples: the episodes to
    draw. figures: a folder for the pictures as files, or None. form: of these files, "png" or "svg". only: the names of these files, () for
    all. titles: names for the runs. base: the model of the paired differences. curve: a logged value to draw. command: as it was typed.
    """

    paths: Sequence[str]
    out: str = "report.html"
    split: str = "test"
    overrides: Sequence[str] = ()
    score: bool = True
    look: int = 100
    samples: Sequence[int] = (0, 1, 2)
    figures: str | None = None
    form: str = "png"
    only: Sequence[str] = ()
    titles: Sequence[str] = ()
    base: str = ""
    trust: Sequence[str] = ()
    curve: str = ""
    command: str = ""


@dataclass
class Material:
    """What the page is made of. remarks: sentences on what was scored and on what could not be shown."""

    entries: list[Entry]
    standings: list[Standing]
    looks: dict[str, Look] = field(default_factory=dict)
    remarks: list[str] = field(default_factory=list)


def report(request: Request, evaluate: Evaluate | None) -> list[Path]:
    """Write the report and return the written files, the page first. evaluate: scores a run, as `metarun eval` does.

    Raises UserError where a path holds no run, and where a file of the user's is in the way.
    """
    out, gallery = _place(request.out), _gallery(request)
    runs = find_runs(request.paths)
    _check(request, runs)
    evaluations, remarks = evaluations_of(runs, request, evaluate)
    entries = ordered(entries_of(runs, evaluations, request.titles))
    material = Material(entries, standings_of(entries), remarks=remarks)
    if request.look or request.samples:
        _look(material, request)
    page = page_of(material, request, gallery)
    if missing := [name for name in request.only if name not in gallery.names]:
        raise UserError(f"only={','.join(missing)}: this report has the pictures {', '.join(gallery.names) or '(none)'}.")
    write_text(out, rendered(page))
    return [out, *gallery.written]


def _place(out: str) -> Path:
    """Return the file of the page; UserError where it is no report of metarun, or where its folder is missing."""
    file = expanded(out)
    if not file.parent.is_dir():
        raise UserError(f"out={out}: there is no folder {file.parent}; make it first.")
    if file.is_dir():
        raise UserError(f"out={out} is a folder; give a file, such as {file / 'report.html'}.")
    if file.exists():
        with file.open("rb") as content:
            if MARK.encode() not in content.read(4096):
                raise UserError(f"out={out}: the file is there already, and it is no report of metarun; choose another name.")
    return file


def _check(request: Request, runs: Sequence[Run]) -> None:
    """Raise UserError for a word that fits no report of these runs, before the work begins."""
    if request.titles and len(request.titles) != len(runs):
        raise UserError(f"names= has {len(request.titles)} names, and there are {len(runs)} runs.")
    _check_curve(request.curve, runs)
    if unknown := [name for name in request.only if not is_picture(name)]:
        has = f"a report has the pictures {', '.join(PICTURES)}, and curve_… for each curve"
        raise UserError(f"only={','.join(unknown)}: {has}.{nearest(unknown[0], PICTURES)}")
    models = list(dict.fromkeys(names_of(runs, request.titles)[1])) if request.base else []
    if request.base not in ("", *models):
        has = f"it has {', '.join(models)}"
        raise UserError(f"base={request.base} names no model of this report; {has}.{nearest(request.base, models)}")


def _check_curve(key: str, runs: Sequence[Run]) -> None:
    """Raise UserError where no run has logged a number under the key of `curve=`."""
    logged = sorted({name for run in runs for line in run.metrics() for name in line} - {"step", "time"}) if key else []
    if key and key not in logged:
        has = f"metrics.jsonl has {', '.join(logged)}" if logged else "name the folder of a run, which has metrics.jsonl"
        raise UserError(f"curve={key}: no run has logged this value; {has}.{nearest(key, logged)}")


def _gallery(request: Request) -> Gallery:
    if request.figures is None:
        return Gallery()
    folder = expanded(request.figures)
    try:
        folder.mkdir(parents=True, exist_ok=True)
    except (FileExistsError, NotADirectoryError):
        raise UserError(f"figures={request.figures}: a file is in the way; choose another folder.") from None
    except OSError as error:
        raise UserError(f"figures={request.figures}: the folder cannot be made ({error.strerror}); choose another one.") from None
    return Gallery(folder, request.form, request.only)


def evaluations_of(runs: Sequence[Run], request: Request, evaluate: Evaluate | None) -> tuple[list[Evaluation | None], list[str]]:
    """Return the evaluation of each run, and sentences on which ones were made now and which are missing.

    Stored evaluations are taken as they are, unless the user typed settings. Where a run has none, or where the stored ones are of
    different episodes, all runs are scored with the same settings.
    """
    if not request.overrides:
        stored = stored_evaluations(runs, request.split)
        have = [each for each in stored if each is not None]
        if len(have) == len(runs) or (not have and (not request.score or evaluate is None)):
            return stored, _untested(runs, stored, request.split)
    made: list[str] = []

    def counted(run: Run, words: Sequence[str]) -> Path:
        assert evaluate is not None
        folder = evaluate(run, words)
        made.append(run.folder.name)
        return folder

    found = scored(runs, request.split, request.overrides, counted if request.score and evaluate is not None else None)
    remarks = [_made(len(made), len(runs), request.split)] if made else []
    remarks += [
        f"{code(each.run.folder)} has no score: {printable(each.reason)}." for each in found if each.evaluation is None and each.reason
    ]
    return [each.evaluation for each in found], remarks


def _made(count: int, runs: int, split: str) -> str:
    """Return the sentence on the runs that this report has scored."""
    if runs == 1:
        return f"This report has scored the run on the split {split}, since the run had no evaluation with these settings."
    of = f"all {runs} runs" if count == runs else f"{count} of the {runs} runs"
    which = "it" if count == 1 else "they"
    return f"This report has scored {of} on the split {split}, since {which} had no evaluation with these settings."


def _untested(runs: Sequence[Run], evaluations: Sequence[Evaluation | None], split: str) -> list[str]:
    return [
        f"{code(run.folder)} has no evaluation on the split {split}." for run, each in zip(runs, evaluations, strict=True) if each is None
    ]


def _look(material: Material, request: Request) -> None:
    """Look at the episodes of the first models: at one run of each."""
    scored_groups = {name: [entry for entry in each if entry.scored] for name, each in groups_of(material.entries).items()}
    for name, entries in [(name, each) for name, each in scored_groups.items() if each][: looks.MOST_MODELS]:
        episodes = min(request.look, int(number(entries[0].report.get("episodes")) or 0))
        try:
            material.looks[name] = Looker(entries[0].report, request.trust).look(episodes, request.samples)
        except UserError as error:
            material.remarks.append(f"The predictions of {code(name)} are not shown: {code(error, 400).strip('`').rstrip('.')}.")


def page_of(material: Material, request: Request, gallery: Gallery) -> Page:
    """Return the page. Sections without data are absent."""
    entries, standings = material.entries, material.standings
    base = request.base or (standings[0].name if standings else "")
    metric = next((standing.metric for standing in standings if standing.name == base), "score")
    gaps = gaps_of(entries, standings, base)
    scored_entries = [entry for entry in entries if entry.scored]
    targets = list(mapping(scored_entries[0].report.get("by_target"))) if scored_entries else []
    found: list[Section | None] = [
        scores.scores_section(entries, standings, gallery),
        scores.differences_section(base, gaps, metric, gallery),
        kinds.families_section(entries, gallery),
        kinds.targets_section(entries),
        kinds.ratings_section(entries, gallery),
        kinds.stream_section(entries, gallery),
        curves.curves_section(entries, gallery, request.curve),
        curves.steps_section(entries, gallery),
        curves.presentations_section(entries, gallery),
        looks.calibration_section(material.looks, gallery),
        looks.classes_section(material.looks, gallery),
        looks.episodes_section(material.looks, gallery, *_titles(entries)),
        looks.scatter_section(material.looks, targets, gallery),
        about.configs_section(entries),
        about.protocol_section(entries, _stated(entries)),
        about.warnings_section(entries, material.remarks),
        about.versions_section({name: look.facts for name, look in material.looks.items()}),
        about.commands_section(entries, request.command, request.trust),
    ]
    said = verdict(standings, gaps_of(entries, standings, standings[0].name) if standings else [])
    said[1:1] = kinds.ratings_sentences(entries)
    footer = f"Written by metarun {metarun.__version__}. The page holds all it shows; it loads nothing."
    return Page(_title(entries), said, _facts(entries), [each for each in found if each is not None], footer)


def _titles(entries: Sequence[Entry]) -> tuple[dict[str, str], str]:
    """Return the scores by which one reads a prediction: of each model, and of the exact Bayes predictor."""
    first = {entry.group: entry.report for entry in reversed(entries)}
    bayes = next((mapping(entry.report.get("bayes")) for entry in entries if entry.report.get("bayes")), {})
    return {name: _figures(each) for name, each in first.items()}, _figures(bayes)


def _figures(report: Mapping[str, Any]) -> str:
    nll, covers = number(report.get("nll")), number(report.get("coverage90"))
    if nll is None or covers is None:
        return ""
    return f"nll {fixed(nll, 2)}, covers {100 * covers:.0f} %"


def _stated(entries: Sequence[Entry]) -> dict[str, Mapping[str, Any]]:
    """Return the `reproduce` entry of each experiment that a run names. The experiments are those that metarun ships."""
    from metarun.commands.reporting.experiments import reproduce_of

    named = {name for entry in entries if (name := entry.options.get("experiment")) is not None}
    return {name: node for name in sorted(named) if (node := reproduce_of(name))}


def _title(entries: Sequence[Entry]) -> str:
    """Return the task and the algorithms in a few words."""
    options = [entry.options for entry in entries]
    tasks = list(dict.fromkeys(each["task"] for each in options if "task" in each))
    algorithms = list(dict.fromkeys(each["algo"] for each in options if "algo" in each))
    many = f"{len(algorithms)} algorithms" if len(algorithms) > 4 else ", ".join(algorithms)
    return " · ".join(part for part in (", ".join(tasks[:3]), many) if part)[:200] or "metarun report"


def _facts(entries: Sequence[Entry]) -> list[tuple[str, str]]:
    """Return the facts in the head of the page."""
    scored_entries = [entry for entry in entries if entry.scored]
    facts = [("Runs", str(len(entries)))]
    if seeds := sorted({entry.seed for entry in entries if entry.seed is not None}):
        title = "Training seed" if len(seeds) == 1 else "Training seeds"
        facts.append((title, ", ".join(map(str, seeds)) if len(seeds) < 6 else str(len(seeds))))
    if scored_entries:
        report = scored_entries[0].report
        facts.append(("Scored on", f"{number(report.get('episodes')) or 0:,.0f} {report.get('split')} tasks"))
        facts += _sizes(report)
    return facts


def _sizes(report: Mapping[str, Any]) -> list[tuple[str, str]]:
    ways, shots = number(report.get("ways")), number(report.get("shots"))
    if ways is not None and shots is not None:
        return [("Tasks", f"{ways:g}-way {shots:g}-shot")]
    return [("Tasks", f"{shots:g} known examples")] if shots is not None else []
