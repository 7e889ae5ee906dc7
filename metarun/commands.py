"""What `metarun train` and `metarun eval` do, from a plain config to a run folder."""

from __future__ import annotations

import csv
import json
import math
from collections.abc import Mapping
from pathlib import Path
from typing import Any

import torch

from metarun import checkpoint
from metarun.build import Parts, build, build_optimizer, build_settings, start
from metarun.checkpoint import Checkpoint
from metarun.device import choose_device, place
from metarun.engine import Position, Settings
from metarun.engine import train as run_engine
from metarun.errors import UserError, nearest
from metarun.evaluation import Report
from metarun.evaluation import evaluate as run_evaluation
from metarun.instantiate import check_targets, instantiate
from metarun.optimizer import OuterOptimizer
from metarun.showing import Showing
from metarun.tracking import Progress, Tracker

MAY_CHANGE = ("steps", "eval_every", "save_every", "trust", "logger", "device")
"""What may differ from the checkpoint when a run is resumed; the first four are keys, the others groups."""
SPLITS = ("train", "val", "test")


def train(config: dict[str, Any], folder: Path) -> float:
    """Train as the config says, or resume a run; returns the best validation score (NaN where none was finite).

    config: resolved and plain, or for `resume` what `metarun.jobs.resume_config` gives.
    """
    if config.get("resume"):
        return _resume(config, folder)
    parts = build(config)
    settings = build_settings(parts.config, parts.device)
    position, optimizer = start(parts, settings)
    return _run(parts, settings, position, optimizer, folder, resume_step=None)


def _resume(config: dict[str, Any], folder: Path) -> float:
    path = checkpoint.resolve(config["resume"], default=checkpoint.LAST)
    stored = checkpoint.load(path)
    merged = resume_config(stored, config["overrides"], config["groups"])
    # What the user typed now: the checkpoint's own `trust` would let a stranger's file vouch for itself.
    parts = build(merged, trust=config["overrides"].get("trust") or [])
    settings = build_settings(parts.config, parts.device)
    if stored.step >= settings.steps and (stored.step > 0 or stored.best is not None):
        raise UserError(f"{path} has done all its {stored.step} steps; give a larger steps= to go on.")
    if stored.choices != (now := choices(parts)):
        changed = ", ".join(f"{key} {stored.choices.get(key)} -> {now[key]}" for key in now if stored.choices.get(key) != now[key])
        print(f"metarun: not bit for bit the run that was stopped, since {changed}.")
    if settings.steps != stored.config["steps"] and parts.config["optimizer"].get("schedule", "constant") in ("linear", "cosine"):
        print(f"metarun: the learning rate's schedule now ends at step {settings.steps} instead of {stored.config['steps']}.")
    params, state = place(stored.params, settings.device), place(stored.state, settings.device)
    optimizer = build_optimizer(parts.config, params, settings.steps)
    optimizer.load_state_dict(stored.optimizer)
    position = Position(stored.step, params, state, stored.best, dict(stored.window))
    return _run(parts, settings, position, optimizer, folder, resume_step=stored.step)


def resume_config(stored: Checkpoint, overrides: Mapping[str, Any], groups: Mapping[str, Any]) -> dict[str, Any]:
    """Return the config of a checkpoint with those overrides that may change; UserError for any other that differs from it."""
    config = dict(stored.config)
    device = dict(config["device"])
    for key in ("task_chunk", "threads"):  # what `auto` chose then is used again
        if device.get(key) == "auto":
            device[key] = stored.choices.get({"task_chunk": "chunk", "threads": "threads"}[key], "auto")
    config["device"] = device
    for key, value in overrides.items():
        group = key.split(".")[0]
        if group not in MAY_CHANGE:
            before = stored.config.get("chosen", {}).get(key) if key in stored.config.get("chosen", {}) else look_up(stored.config, key)
            if before != value:
                raise UserError(
                    f"{key}={value} differs from the run's {before}; on resume only {', '.join(MAY_CHANGE)} may change. Start a new run for it."
                )
        elif key in groups:
            config[key] = groups[key]
        else:
            config = put(config, key, value)
    return config


def _run(parts: Parts, settings: Settings, position: Position, optimizer: OuterOptimizer, folder: Path, resume_step: int | None) -> float:
    chosen, metric = choices(parts), parts.algorithm.objective.metric
    tracker: Tracker = instantiate(parts.config["logger"], name="logger", folder=folder, resume_step=resume_step)
    with tracker, Progress(settings.steps, position.step) as progress:
        size = sum(value.numel() for value in position.params.values())
        progress.say(f"metarun: {size:,} parameters, {chosen['threads']} threads, {chosen['chunk']} tasks at once; run folder {folder}")

        def save(position: Position, name: str) -> None:
            tracker.sync()
            checkpoint.save(folder / "checkpoints" / name, _checkpoint(parts, position, optimizer, chosen))

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
        window=dict(position.window),
        config=parts.config,
        choices=chosen,
    )


def choices(parts: Parts) -> dict[str, Any]:
    """Return what decides whether two runs agree bit for bit and stands in no key of the config."""
    return {"device": parts.device.name, "chunk": parts.device.chunk, "threads": parts.device.threads, "torch": str(torch.__version__)}


def evaluate(config: dict[str, Any], folder: Path) -> dict[str, Any]:
    """Score a checkpoint as the config says, print one line, and return what it writes to `report.json` in `folder`.

    config: the keys of `eval.yaml`; under `algo`, `task`, `backbone` and `device` the overrides to apply to the checkpoint's config,
    or the whole group where `chosen` names it.
    """
    path = checkpoint.resolve(config["checkpoint"])
    stored = checkpoint.load(path)
    trust = config.get("trust") or []
    check_targets(stored.config, trust)
    merged = evaluation_config(stored.config, config)
    split, episodes = _check_request(config)
    save = _check_save(config.get("save"))
    parts = build(merged)
    params, state = _fit_params(stored, parts)
    shown = parts.source.episode(split, 0)
    device = choose_device(merged["device"], shown, tasks_per_step=16)
    with Progress(episodes) as progress:
        report = run_evaluation(
            parts.algorithm,
            place(params, device.name),
            place(state, device.name),
            parts.source,
            split=split,
            episodes=episodes,
            seed=config["seed"],
            chunk=device.chunk,
            device=device.name,
            progress=progress.update,
        )
    ways = shown.support.y.shape[-1] if report.metric == "accuracy" else None
    facts = {
        "seed": config["seed"],
        "split": split,
        "ways": ways,
        "shots": shown.support.x.shape[0] // (ways or 1),
        "queries": shown.query.x.shape[0] // (ways or 1),
        "norm": _norm_of(parts),
        "inner_steps": report.steps[-1],
    }
    summary = {**report.summary(), **facts, "checkpoint": str(path), "step": stored.step, "config": merged}
    write_json(folder / "report.json", summary)
    if save is not None:
        write_scores(save, report)
    print(sentence(report, facts))
    print(f"report: {folder / 'report.json'}")
    return summary


def evaluation_config(stored: Mapping[str, Any], config: Mapping[str, Any]) -> dict[str, Any]:
    """Return the checkpoint's config with what `metarun eval` was told to change; UserError for a key that it does not have."""
    merged = dict(stored)
    chosen = config.get("chosen", {})
    for group in ("task", "algo", "backbone", "device"):
        given = config.get(group) or {}
        if group == "device" or chosen.get(group) is not None:
            merged[group] = dict(given) if given else dict(merged[group])
            if chosen.get(group) is not None:
                merged["chosen"] = {**merged.get("chosen", {}), group: chosen[group]}
            continue
        for key, value in leaves(given):
            merged = put(merged, f"{group}.{key}", value)
    if config.get("norm") is not None:
        merged = put(merged, "backbone.norm", config["norm"])
    if config.get("inner_steps") is not None:
        keys = [key for key in ("test_inner_steps", "inner_steps") if key in merged["algo"]]
        if not keys:
            raise UserError("this checkpoint's algorithm has no inner steps to set; leave out inner_steps.")
        merged = put(merged, f"algo.{keys[0]}", config["inner_steps"])
    if "eval_seed" in merged["task"]:
        merged = put(merged, "task.eval_seed", config["seed"])
    return merged


def _check_request(config: Mapping[str, Any]) -> tuple[str, int]:
    split, episodes, seed = config["split"], config["episodes"], config["seed"]
    if split not in SPLITS:
        raise UserError(f"split={split} is unknown; it must be one of {', '.join(SPLITS)}.{nearest(str(split), SPLITS)}")
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


def _fit_params(stored: Checkpoint, parts: Parts) -> tuple[dict[str, torch.Tensor], dict[str, torch.Tensor]]:
    """Return the checkpoint's parameters and state, after comparing their shapes with those that this config builds."""
    wanted, _ = parts.algorithm.init(torch.tensor(0))
    for name, value in wanted.items():
        if name not in stored.params:
            raise UserError(
                f"the checkpoint has no parameter '{name}', which this config needs; evaluate it with the network it was trained with."
            )
        if stored.params[name].shape != value.shape:
            was, now = tuple(stored.params[name].shape), tuple(value.shape)
            hint = "its head has a fixed number of ways" if name.startswith("head.") else "the network was trained for other inputs"
            raise UserError(f"the checkpoint's '{name}' has shape {was} and this task needs {now}: {hint}; evaluate it as it was trained.")
    return stored.params, stored.state


def _norm_of(parts: Parts) -> str | None:
    network = getattr(parts.algorithm, "network", None)
    return network.norm if network is not None and network.norms else None


def sentence(report: Report, facts: Mapping[str, Any]) -> str:
    """Return the result as one line for a person."""
    if report.metric == "accuracy":
        score = f"accuracy {100 * report.mean:.2f} % ± {100 * report.ci95:.2f}"
        task = f"{facts['ways']}-way {facts['shots']}-shot, {facts['queries']} queries a class"
    else:
        score = f"{report.metric} {report.mean:.4f} ± {report.ci95:.4f} (median {report.median:.4f}, mean predictor {report.baseline:.4f})"
        task = f"{facts['shots']} shots, {facts['queries']} queries"
    norm = f"norm={facts['norm']}, " if facts["norm"] else ""
    diverged = f", {report.diverged} diverged" if report.diverged else ""
    return f"{score}  [95 % CI of {report.episodes} {facts['split']} episodes, {task}, {norm}{facts['inner_steps']} inner steps, seed {facts['seed']}{diverged}]"


def look_up(config: Mapping[str, Any], dotted: str) -> Any:
    """Return the value at a dotted key; UserError with the nearest key where there is none."""
    node: Any = config
    for part in dotted.split("."):
        if not isinstance(node, Mapping) or part not in node:
            raise UserError(f"there is no key '{dotted}' in the checkpoint's config.{nearest(dotted, known_keys(config))}")
        node = node[part]
    return node


def put(config: Mapping[str, Any], dotted: str, value: Any) -> dict[str, Any]:
    """Return the config with one existing key set to another value; the original stays as it is."""
    look_up(config, dotted)
    first, _, rest = dotted.partition(".")
    return {**config, first: put(config[first], rest, value) if rest else value}


def leaves(node: Mapping[str, Any], prefix: str = "") -> list[tuple[str, Any]]:
    """Return the leaves of nested dictionaries as (dotted key, value)."""
    found: list[tuple[str, Any]] = []
    for key, value in node.items():
        found += leaves(value, f"{prefix}{key}.") if isinstance(value, Mapping) else [(f"{prefix}{key}", value)]
    return found


def known_keys(config: Mapping[str, Any]) -> list[str]:
    """Return every dotted key of a config."""
    return [key for key, _ in leaves(config)]


def write_splits(config: Mapping[str, Any], folder: Path) -> None:
    """Write the classes or tasks of each split beside the run, where the source drew them from the user's own data."""
    for key in ("classes", "tasks"):
        if config["task"].get(key):
            write_json(folder / f"{key}.json", config["task"][key])


def write_json(path: Path, content: Any) -> None:
    """Write a JSON file; numbers that are not finite become null, as JSON has none."""

    def finite(value: Any) -> Any:
        if isinstance(value, Mapping):
            return {key: finite(item) for key, item in value.items()}
        if isinstance(value, (list, tuple)):
            return [finite(item) for item in value]
        return None if isinstance(value, float) and not math.isfinite(value) else value

    path.parent.mkdir(parents=True, exist_ok=True)
    path.write_text(json.dumps(finite(content), indent=2) + "\n", encoding="utf-8")


def write_scores(path: Path, report: Report) -> None:
    """Write the score of each episode as CSV."""
    with path.open("w", newline="", encoding="utf-8") as file:
        writer = csv.writer(file)
        writer.writerow(["episode", report.metric])
        writer.writerows(enumerate(report.scores))
