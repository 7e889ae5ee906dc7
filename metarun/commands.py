"""What `metarun train` and `metarun eval` do, from a plain config to a run folder."""

from __future__ import annotations

import math
from collections.abc import Mapping
from pathlib import Path
from typing import Any

import torch

from metarun import checkpoint
from metarun.build import Parts, build, build_optimizer, build_settings, evaluation_plan, start
from metarun.checkpoint import Checkpoint
from metarun.device import Plan, place
from metarun.engine import Position, Settings
from metarun.engine import train as run_engine
from metarun.errors import UserError, nearest
from metarun.evaluation import BY_STEP, observation_variance
from metarun.evaluation import evaluate as run_evaluation
from metarun.instantiate import check_targets, instantiate
from metarun.optimizer import OuterOptimizer
from metarun.overrides import BEFORE, evaluation_config, resume_config
from metarun.report_files import sentence, write_json, write_scores, write_splits
from metarun.running import Runner
from metarun.saving import Saver
from metarun.showing import Showing
from metarun.tracking import Progress, Tracker
from metarun.trained import assemble, load_members

SPLITS = ("train", "val", "test")


def train(config: dict[str, Any], folder: Path) -> float:
    """Train as the config says, or resume a run; returns the best validation score (NaN where none was finite).

    config: resolved and plain, or for `resume` what `metarun.jobs.resume_config` gives.
    """
    if config.get("resume"):
        return _resume(config, folder)
    parts = build(config)
    settings = build_settings(parts)
    position, optimizer = start(parts, settings)
    return _run(parts, settings, position, optimizer, folder, resume_step=None)


def _resume(config: dict[str, Any], folder: Path) -> float:
    path = checkpoint.resolve(config["resume"], default=checkpoint.LAST)
    stored = checkpoint.load(path)
    merged = resume_config(stored, config["overrides"], config["groups"])
    # What the user typed now: the checkpoint's own `trust` would let a stranger's file vouch for itself.
    check_targets(stored.config, config["overrides"].get("trust") or [])
    parts = build(merged)
    settings = build_settings(parts)
    if stored.step >= settings.steps and (stored.step > 0 or stored.best is not None):
        raise UserError(f"{path} has done all its {stored.step} steps; give a larger steps= to go on.")
    before = BEFORE | stored.choices
    if before != (now := choices(parts, settings)):
        changed = ", ".join(f"{key} {before.get(key)} -> {now[key]}" for key in now if before.get(key) != now[key])
        print(f"metarun: not bit for bit the run that was stopped, since {changed}.")
    if settings.steps != stored.config["steps"] and parts.config["optimizer"].get("schedule", "constant") in ("linear", "cosine"):
        print(f"metarun: the learning rate's schedule now ends at step {settings.steps} instead of {stored.config['steps']}.")
    params, state = place(stored.params, settings.device), place(stored.state, settings.device)
    optimizer = build_optimizer(parts.config, params, settings.steps)
    optimizer.load_state_dict(stored.optimizer)
    position = Position(stored.step, params, state, stored.best, dict(stored.window))
    return _run(parts, settings, position, optimizer, folder, resume_step=stored.step)


def _run(parts: Parts, settings: Settings, position: Position, optimizer: OuterOptimizer, folder: Path, resume_step: int | None) -> float:
    chosen, metric = choices(parts, settings), parts.algorithm.objective.metric
    tracker: Tracker = instantiate(parts.config["logger"], name="logger", folder=folder, resume_step=resume_step)
    with tracker, Saver(before=tracker.sync) as saver, Progress(settings.steps, position.step) as progress:
        size = sum(value.numel() for value in position.params.values())
        progress.say(f"metarun: {size:,} parameters; {describe(settings.plan, settings.device)}; run folder {folder}")

        def save(position: Position, name: str) -> None:
            saver.save(folder / "checkpoints" / name, _checkpoint(parts, position, optimizer, chosen))

        write_splits(parts.config, folder)
        showing = Showing(parts.algorithm, parts.source, tracker, settings)
        end = run_engine(
            parts.algorithm,
            parts.source,
            position,
            optimizer,
            settings,
            tracker=tracker,
            progress=progress,
            save=save,
            on_evaluation=showing.show,
        )
        saver.flush()
        best = end.best or {"score": math.nan, "step": end.step}
        if end.step < settings.steps:
            progress.say(f"metarun: stopped at step {end.step} of {settings.steps} and saved; go on with: metarun train resume={folder}")
            return float(best["score"])
        tracker.hparams(parts.config, {f"best/{metric}": best["score"]}, end.step)
        write_json(folder / "report.json", {"split": "val", "metric": metric, "best": best, "steps": end.step, "last": showing.last})
    print(f"best validation {metric} {best['score']:.4f} at step {best['step']}; run folder {folder}")
    print(f"test it with: metarun eval checkpoint={folder}")
    return float(best["score"])


def _checkpoint(parts: Parts, position: Position, optimizer: OuterOptimizer, chosen: dict[str, Any]) -> Checkpoint:
    return Checkpoint(
        step=position.step,
        params=position.params,
        state=position.state,
        optimizer=optimizer.state_dict(),
        best=position.best,
        window={name: float(total) for name, total in position.window.items()},
        config=parts.config,
        choices=chosen,
    )


def choices(parts: Parts, settings: Settings) -> dict[str, Any]:
    """Return what decides whether two runs agree bit for bit and stands in no key of the config."""
    return {
        "device": settings.device,
        "threads": parts.device.threads,
        "chunk": settings.plan.chunk,
        "compile": settings.plan.compile,
        "kernels": settings.plan.kernels,
        "precision": parts.device.precision,
        "torch": str(torch.__version__),
    }


def describe(plan: Plan, device: str) -> str:
    """Say how a step is run."""
    tasks = "1 task" if plan.chunk == 1 else f"{plan.chunk} tasks"
    team = f"{plan.workers} workers with " if plan.workers > 1 else ""
    threads = "1 thread" if plan.threads == 1 else f"{plan.threads} threads"
    where = f"{team}{threads}" if device == "cpu" else device
    return f"{tasks} at once on {where}{', compiled' if plan.compile else ''}{', with own kernels' if plan.kernels == 'own' else ''}"


def evaluate(config: dict[str, Any], folder: Path) -> dict[str, Any]:
    """Score a checkpoint, or a list of them as an ensemble, as the config says, print one line, and return what it writes to `report.json` in `folder`.

    config: the keys of `eval.yaml`; under `algo`, `task`, `backbone` and `device` the overrides to apply to the checkpoint's config,
    or the whole group where `chosen` names it.
    """
    paths, members = load_members(config["checkpoint"])
    stored = members[0]
    for member in members:
        check_targets(member.config, config.get("trust") or [])
    merged = evaluation_config(stored.config, config)
    split, episodes = _check_request(config)
    save = _check_save(config.get("save"))
    parts = build(merged)
    algorithm, params, state = assemble(parts, members)
    shown = parts.source.episode(split, 0)
    device = parts.device.name
    with Progress(episodes) as progress, Runner(evaluation_plan(parts, episodes)) as runner:
        params, state = place(params, device), place(state, device)
        same = {"episodes": episodes, "seed": config["seed"], "runner": runner, "device": device}
        variance = observation_variance(algorithm, params, state, parts.source, split="val", **same)
        report = run_evaluation(
            algorithm,
            params,
            state,
            parts.source,
            split=split,
            by_step=config.get("by_step", "all"),
            variance=variance,
            progress=progress.update,
            **same,
        )
    ways = shown.support.y.shape[-1] if report.metric == "accuracy" else None
    facts = {
        "members": len(members),
        "task": merged.get("chosen", {}).get("task"),
        "trained_on": stored.config.get("chosen", {}).get("task"),
        "seed": config["seed"],
        "split": split,
        "ways": ways,
        "shots": shown.support.x.shape[0] // (ways or 1),
        "queries": shown.query.x.shape[0] // (ways or 1),
        "norm": _norm_of(parts),
        "inner_steps": report.steps[-1],
        "kernels": runner.kernels,
    }
    summary = {
        **report.summary(),
        **facts,
        "checkpoint": [str(path) for path in paths] if len(paths) > 1 else str(paths[0]),
        "step": stored.step,
        "config": merged,
    }
    write_json(folder / "report.json", summary)
    if save is not None:
        write_scores(save, report)
    print(sentence(report, facts))
    print(f"report: {folder / 'report.json'}")
    return summary


def _check_request(config: Mapping[str, Any]) -> tuple[str, int]:
    split, episodes, seed = config["split"], config["episodes"], config["seed"]
    if split not in SPLITS:
        raise UserError(f"split={split} is unknown; it must be one of {', '.join(SPLITS)}.{nearest(str(split), SPLITS)}")
    if (by_step := config.get("by_step", "all")) not in BY_STEP:
        raise UserError(
            f"by_step={by_step} is unknown; it must be {', '.join(BY_STEP[:-1])} or {BY_STEP[-1]}.{nearest(str(by_step), BY_STEP)}"
        )
    for name, value, least in (("episodes", episodes, 1), ("seed", seed, 0)):
        if not isinstance(value, int) or isinstance(value, bool) or value < least:
            raise UserError(f"{name}={value} must be a whole number of at least {least}.")
    return split, episodes


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
    network = getattr(parts.algorithm, "network", None)
    return network.norm if network is not None and network.norms else None
