"""What `metarun eval` does, from a plain config to a report."""

from __future__ import annotations

from collections.abc import Mapping
from pathlib import Path
from typing import Any, NamedTuple

from metarun.commands.overrides import evaluation_config
from metarun.commands.report_files import sentence, write_json, write_scores
from metarun.commands.trained import Trained, assemble, load_members
from metarun.compute.device import place
from metarun.compute.running import Runner
from metarun.engine.evaluation import BY_STEP, observation_variance
from metarun.engine.evaluation import evaluate as run_evaluation
from metarun.engine.report import Report
from metarun.errors import UserError, nearest
from metarun.network import network_of
from metarun.records.tracking import Progress
from metarun.types import Episode
from metarun.wiring.build import Parts, build, evaluation_plan
from metarun.wiring.instantiate import check_targets

SPLITS = ("train", "val", "test")


class Request(NamedTuple):
    """What the user asks for: which episodes are scored, after which inner steps, and the CSV file for their scores, if any."""

    split: str
    episodes: int
    seed: int
    by_step: str
    save: Path | None


def evaluate(config: dict[str, Any], folder: Path) -> dict[str, Any]:
    """Score a checkpoint, or several as an ensemble; print one line, write `report.json` into `folder` and return its content.

    config: the keys of `eval.yaml`. The groups `algo`, `task`, `backbone` and `device` hold overrides for the checkpoint's config,
    or the whole group where `options` names its option.
    """
    paths, members = load_members(config["checkpoint"])
    for member in members:
        check_targets(member.config, config.get("trust") or [])
    merged = evaluation_config(members[0].config, config)
    request = check_request(config)
    parts = build(merged)
    report, kernels = _score(parts, assemble(parts, members), request)
    facts = {
        "members": len(members),
        "task": merged.get("options", {}).get("task"),
        "trained_on": members[0].config.get("options", {}).get("task"),
        "seed": request.seed,
        "split": request.split,
        **sizes_of(parts.source.episode(request.split, 0), report.metric),
        "norm": _norm_of(parts),
        "inner_steps": report.steps[-1],
        "kernels": kernels,
    }
    named = [str(path) for path in paths]
    origin = {"checkpoint": named if len(named) > 1 else named[0], "step": members[0].step, "config": merged}
    summary = {**report.summary(), **facts, **origin}
    write_json(folder / "report.json", summary)
    if request.save is not None:
        write_scores(request.save, report)
    print(sentence(report, facts))
    print(f"report: {folder / 'report.json'}")
    return summary


def check_request(config: Mapping[str, Any]) -> Request:
    """Return the request of a config; UserError for a value that is unknown, too small, or a file that cannot be written."""
    split, by_step = config["split"], config.get("by_step", "all")
    if split not in SPLITS:
        raise UserError(f"split={split} is unknown; it must be one of {', '.join(SPLITS)}.{nearest(str(split), SPLITS)}")
    if by_step not in BY_STEP:
        raise UserError(
            f"by_step={by_step} is unknown; it must be {', '.join(BY_STEP[:-1])} or {BY_STEP[-1]}.{nearest(str(by_step), BY_STEP)}"
        )
    for name, least in (("episodes", 1), ("seed", 0)):
        value = config[name]
        if not isinstance(value, int) or isinstance(value, bool) or value < least:
            raise UserError(f"{name}={value} must be a whole number of at least {least}.")
    return Request(split, config["episodes"], config["seed"], by_step, _check_save(config.get("save")))


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


def _score(parts: Parts, trained: Trained, request: Request) -> tuple[Report, str]:
    """Return the report on the requested episodes, and whose kernels computed it."""
    algorithm, device = trained.algorithm, parts.device.name
    with Progress(request.episodes) as progress, Runner(evaluation_plan(parts, request.episodes)) as runner:
        params, state = place(trained.params, device), place(trained.state, device)
        same: dict[str, Any] = {"episodes": request.episodes, "seed": request.seed, "runner": runner, "device": device}
        variance = observation_variance(algorithm, params, state, parts.source, split="val", **same)
        scoring: dict[str, Any] = {"split": request.split, "by_step": request.by_step, "variance": variance, "progress": progress.update}
        report = run_evaluation(algorithm, params, state, parts.source, **scoring, **same)
        return report, runner.kernels


def _check_save(save: str | None) -> Path | None:
    if save is None:
        return None
    path = Path(save).expanduser()
    if not path.parent.is_dir():
        raise UserError(f"save={save}: there is no folder {path.parent}; make it first.")
    if path.exists():
        raise UserError(f"save={save}: the file is there already; choose another name.")
    return path


def _norm_of(parts: Parts) -> str | None:
    network = network_of(parts.algorithm)
    return network.norm if network is not None and network.norms else None
