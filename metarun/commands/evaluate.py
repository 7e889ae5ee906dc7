"""What `metarun eval` does, from a plain config to a report."""

from __future__ import annotations

from collections.abc import Mapping
from pathlib import Path
from typing import Any

from metarun.commands.overrides import evaluation_config
from metarun.commands.report_files import sentence, write_json, write_scores
from metarun.commands.trained import assemble, load_members
from metarun.compute.device import place
from metarun.compute.running import Runner
from metarun.engine.evaluation import BY_STEP, observation_variance
from metarun.engine.evaluation import evaluate as run_evaluation
from metarun.errors import UserError, nearest
from metarun.records.tracking import Progress
from metarun.wiring.build import Parts, build, evaluation_plan
from metarun.wiring.instantiate import check_targets

SPLITS = ("train", "val", "test")


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
