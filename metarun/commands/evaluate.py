"""What `metarun eval` does, from a plain config to a report."""

from __future__ import annotations

import dataclasses
from collections.abc import Callable, Mapping, Sequence
from pathlib import Path
from typing import Any, NamedTuple

from metarun.commands import pretraining, rating_lines, seeds
from metarun.commands.changed import build_again, check_statistics, remedy
from metarun.commands.comparing.evaluations import EPISODES, asked_settings
from metarun.commands.keys import check_evaluation_keys
from metarun.commands.overlap import check_evaluation, population_of
from metarun.commands.overrides import check_choice, check_data, evaluation_config
from metarun.commands.report_files import sentence, write_json, write_scores
from metarun.commands.seeds import check_runs, over_runs
from metarun.commands.stream_report import stream_sentence, write_matrices
from metarun.commands.trained import Trained, assemble, load_members
from metarun.compute.device import place
from metarun.compute.memory import allocating
from metarun.compute.running import Runner
from metarun.engine.bounds import bayes_scores
from metarun.engine.evaluation import evaluate as run_evaluation
from metarun.engine.evaluation import observation_variance
from metarun.engine.families import WithFamilies
from metarun.engine.report import Report
from metarun.errors import UserError, printable
from metarun.files.paths import expanded
from metarun.network import network_of
from metarun.processes.ranks import here
from metarun.records.checkpoint import Checkpoint
from metarun.records.progress import Progress
from metarun.records.widths import terminal_width, wrapped
from metarun.tasks.fingerprint import differences, files_of, fingerprint_of
from metarun.types import Episode, TaskSource, WithStream
from metarun.types.streams import WithTrajectories
from metarun.wiring.backbones import is_own
from metarun.wiring.build import Parts, evaluation_plan
from metarun.wiring.rehearsal import rehearse_scores


class Request(NamedTuple):
    """What the user asks for: which episodes are scored, after which inner steps, and the CSV file for their scores, if any."""

    split: str
    episodes: int
    seed: int
    by_step: str
    save: Path | None


def evaluate(config: dict[str, Any], folder: Path) -> dict[str, Any]:
    """Score a checkpoint, or several; print the result, write `report.json` into `folder` and return its content.

    Several checkpoints are scored as an ensemble, or with `ensemble=false` one by one, with an interval over the runs.

    config: the keys of `eval.yaml`. The groups `algo`, `task`, `backbone` and `device` hold overrides for the checkpoint's config,
    or the whole group where `options` names its option.
    """
    config = check_evaluation_keys(config)
    paths, members = load_members(config["checkpoint"], best := config.get("best", 1), config.get("trust"))
    groups = [members[start : start + best] for start in range(0, len(members), best)]
    each = len(groups) > 1 and not config.get("ensemble", True)
    if each:
        check_runs(paths[::best], members[::best])
    check_data(merged := evaluation_config(members[0].config, config), members[0].config)
    request = request_of(config, merged["task"].get("trajectories"))
    saved = _check_save(request.save, len(groups) if each else 1)
    parts = _built(merged, members[0], request, config.get("typed", ()))
    _say_changes(paths, members, parts, config)
    trained = {name for member in members for name in member.origins}
    overlap = check_evaluation(parts.source, request.split, trained, config.get("overlap", "refuse"))
    reports, kernels = _reports(parts, groups if each else [members], request)
    facts = {"members": best if each else len(members), "best": best, **_facts(parts, members[0], request, reports[0])}
    facts |= {"overlap": overlap, "kernels": kernels, "step": members[0].step}
    figures = over_runs(reports) if each else {**reports[0].summary(), "ci95_over": "episodes"}
    runs = {"runs": _by_run(paths[::best], members[::best], reports)} if each else {}
    asked = {"settings": asked_settings(config), "checkpoint": _named(paths), "config": merged}
    summary = {**figures, **facts, **runs, **asked}
    if not here().first:
        return summary
    for path, report in [*zip(saved, reports, strict=False), *zip(scores_files(folder, len(reports)), reports, strict=True)]:
        write_scores(path, report)
    write_json(folder / "report.json", summary)
    told = seeds.lines(reports, members[::best], facts, figures) if each else [_told(reports[0], facts)]
    _say([*map(printable, told)], rating_lines.table(figures.get("ratings"), terminal_width()), folder, reports, facts)
    return summary


def _built(merged: dict[str, Any], member: Checkpoint, request: Request, typed: Sequence[str]) -> Parts:
    """Return the parts of an evaluation. merged: the checkpoint's config with the user's changes. typed: the keys of these changes."""
    parts = build_again(merged, member, scored=request.split)
    check_choice(parts.algorithm, typed)
    check_statistics(parts, member, typed)
    return parts


def _say(sentences: Sequence[str], table: Sequence[str], folder: Path, reports: Sequence[Report], facts: Mapping[str, Any]) -> None:
    """Print the sentences, the table, the pretraining and the files of an evaluation; write the matrices of trajectories."""
    pictures = [f"picture: {path}" for path in write_matrices(reports, folder, f"{facts['split']} trajectories")]
    parts = [part for each in sentences for part in each.replace("  [95 % interval", "\n  [95 % interval").split("\n")]
    shown = [wrapped(part, terminal_width()) for part in parts]  # the protocol has a line of its own
    print("\n".join([*shown, *table, *pretraining.lines(facts["pretraining"]), *pictures, f"report: {folder / 'report.json'}"]))


def _told(report: Report, facts: Mapping[str, Any]) -> str:
    """Return the result as one line for a person."""
    return sentence(report, facts) if report.stream is None else stream_sentence(report, facts)


def _check_ensemble(parts: Parts, groups: Sequence[Sequence[Checkpoint]]) -> None:
    """Raise UserError where an ensemble would have to learn from a stream."""
    if isinstance(parts.source, WithTrajectories) and isinstance(parts.algorithm, WithStream) and len(groups[0]) > 1:
        raise UserError("an ensemble does not learn from a stream one example at a time; score each run by itself, with ensemble=false.")


def _say_changes(paths: Sequence[Path], members: Sequence[Checkpoint], parts: Parts, config: Mapping[str, Any]) -> None:
    """Print how the data differ from those of the training, unless the user asks for other data."""
    typed = config.get("task") or {}
    now = fingerprint_of(parts.source)
    if config.get("options", {}).get("task") is not None:
        return
    now = files_of(now) if typed else now  # images in memory have the typed size, so they differ anyway
    for path, member in zip(paths, members, strict=True):
        if changed := differences(member.data, now):
            print(f"metarun: the data are not those of the training of {path}: {printable(', '.join(changed))}{remedy(parts.config)}.")


def _named(paths: Sequence[Path]) -> str | list[str]:
    return [str(path) for path in paths] if len(paths) > 1 else str(paths[0])


def _facts(parts: Parts, member: Checkpoint, request: Request, report: Report) -> dict[str, Any]:
    """Return the protocol of an evaluation: the tasks, the sizes of an episode, and the classes that the episodes come from."""
    shown = parts.source.episode(request.split, 0)
    population = population_of(parts.source, request.split, shown, request.episodes)
    counted = {} if population is None else {population["kind"].replace(" ", "_"): population["count"]}
    least = {name: parts.config["task"].get(name) for name in ("min_ways", "min_shots")}
    return {
        "task": parts.config.get("options", {}).get("task"),
        "trained_on": member.config.get("options", {}).get("task"),
        "seed": request.seed,
        "split": request.split,
        **least,
        **(sizes_of_families(parts.source, request, report.metric, least) or sizes_of(shown, report.metric)),
        "population": population,
        **counted,
        "pretraining": pretraining.pretraining_of(parts.config, parts.source, request.split),
        "norm": _norm_of(parts),
        "inner_steps": report.steps[-1],
    }


def sizes_of_families(source: TaskSource, request: Request, metric: str, least: Mapping[str, Any]) -> dict[str, Any]:
    """Return the sizes of the episodes of several families; {} for a source of one family.

    "ways", "shots" and "queries" are the largest ones. "min_ways" and "min_shots" are the smallest ones where the families differ.
    "families" has the sizes of each family, and the number of its classes or tasks. least: the `min_` values of the task's config.
    """
    inside = source.families() if isinstance(source, WithFamilies) else {}
    if not inside:
        return {}
    shown = {name: each.episode(request.split, 0) for name, each in inside.items()}
    sizes = {name: sizes_of(episode, metric) for name, episode in shown.items()}
    found: dict[str, Any] = {key: _extreme(max, sizes, key) for key in ("ways", "shots", "queries")}
    smallest = {key: _extreme(min, sizes, key) for key in ("ways", "shots")}
    found |= {f"min_{key}": value for key, value in smallest.items() if least[f"min_{key}"] is None and value != found[key]}
    populations = {name: population_of(each, request.split, shown[name], request.episodes) for name, each in inside.items()}
    return {**found, "families": {name: {**sizes[name], "population": populations[name]} for name in inside}}


def _extreme(choose: Callable[[list[int]], int], sizes: Mapping[str, Mapping[str, int | None]], key: str) -> int | None:
    known = [value for each in sizes.values() if (value := each[key]) is not None]
    return choose(known) if known else None


def _by_run(paths: Sequence[Path], members: Sequence[Checkpoint], reports: Sequence[Report]) -> list[dict[str, Any]]:
    """Return the figures of each run, with its checkpoint, its training seed and its step."""
    return [
        {"checkpoint": str(path), "seed": member.config.get("seed"), "step": member.step, **report.summary()}
        for path, member, report in zip(paths, members, reports, strict=True)
    ]


def request_of(config: Mapping[str, Any], trajectories: int | None = None) -> Request:
    """Return the request of a config that `check_evaluation_keys` has checked.

    trajectories: the number of episodes of a stream where the user has typed none.
    """
    save = config.get("save")
    by_step = config.get("by_step", "all")
    typed = "episodes" in config.get("typed", ("episodes",))
    episodes = config["episodes"] if typed or trajectories is None else trajectories
    return Request(config["split"], episodes, config["seed"], by_step, None if save is None else expanded(save))


def sizes_of(episode: Episode, metric: str) -> dict[str, int | None]:
    """Return the ways, shots and queries of an episode, the largest ones where they vary.

    In classification the ways are the classes that occur, which are fewer than the columns of y where the labels are global. Shots and
    queries are counted per class, padding included: padding fills an episode up to the largest size. In regression there are no ways.
    """
    support, query = episode
    if metric != "accuracy":
        return {"ways": None, "shots": len(support.x), "queries": len(query.x)}
    per_class = support.y.sum(dim=0)
    return {"ways": int((per_class > 0).sum()), "shots": int(per_class.max()), "queries": int(query.y.sum(dim=0).max())}


def _reports(parts: Parts, groups: Sequence[Sequence[Checkpoint]], request: Request) -> tuple[list[Report], str]:
    """Return the report of each group of members, with the bound of the task, and whose kernels computed the reports."""
    _check_ensemble(parts, groups)
    with allocating("an evaluation", "lower device.task_chunk, or the sizes of the task"):
        scored = [_score(parts, assemble(parts, group), request) for group in groups]
    bound = bayes_scores(parts.source, split=request.split, episodes=request.episodes)
    return [dataclasses.replace(report, bayes=bound) for report, _ in scored], scored[0][1]


def _score(parts: Parts, trained: Trained, request: Request) -> tuple[Report, str]:
    """Return the report on the requested episodes, and whose kernels computed it."""
    algorithm, device = trained.algorithm, parts.device.name
    params, state = place(trained.params, device), place(trained.state, device)
    if algorithm is not parts.algorithm and is_own(parts.config["backbone"]):  # an ensemble maps over its members too
        looped = rehearse_scores(algorithm, params, state, parts.source.episode(request.split, 0), parts.device)
        parts = dataclasses.replace(parts, device=dataclasses.replace(parts.device, loop=parts.device.loop or looped))
    with (
        Progress(request.episodes, unit="episode") as progress,
        Runner(evaluation_plan(parts, request.episodes), here()) as runner,
    ):
        same: dict[str, Any] = {"episodes": request.episodes, "seed": request.seed, "runner": runner, "device": device}
        variance = observation_variance(algorithm, params, state, parts.source, split="val", **same)
        scoring: dict[str, Any] = {"split": request.split, "by_step": request.by_step, "variance": variance, "progress": progress.update}
        report = run_evaluation(algorithm, params, state, parts.source, rankings=True, **scoring, **same)
        return report, runner.kernels


def scores_files(folder: Path, runs: int) -> list[Path]:
    """Make the folder of an evaluation and return its files for the scores by episode: episodes.csv, or of several runs episodes_1.csv …"""
    folder.mkdir(parents=True, exist_ok=True)
    return _numbered(folder / EPISODES, runs)


def _numbered(file: Path, runs: int) -> list[Path]:
    return [file] if runs == 1 else [file.with_name(f"{file.stem}_{number}{file.suffix}") for number in range(1, runs + 1)]


def _check_save(save: Path | None, runs: int) -> list[Path]:
    """Return the CSV file, or with several runs one file for each, such as scores_1.csv; UserError for a file that exists already."""
    if save is None:
        return []
    files = _numbered(save, runs)
    for file in files:
        if not file.parent.is_dir():
            raise UserError(f"save={save}: there is no folder {file.parent}; make it first.")
        if file.exists():
            raise UserError(f"save={save}: the file is there already ({file.name}); choose another name.")
    return files


def _norm_of(parts: Parts) -> str | None:
    network = network_of(parts.algorithm)
    return network.norm if network is not None and network.norms else None
