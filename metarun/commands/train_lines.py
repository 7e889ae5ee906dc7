"""The lines that a training prints for a person: what is trained, the best validation, and the commands to type next."""

from __future__ import annotations

from collections.abc import Mapping, Sequence
from pathlib import Path
from typing import Any

from metarun.commands.evaluate import sizes_of
from metarun.commands.report_files import with_interval
from metarun.compute.plan import Plan
from metarun.engine.keeping import kept_files
from metarun.engine.selection import Selection
from metarun.engine.training import Position, Settings
from metarun.errors import counted, printable
from metarun.files.commands import command
from metarun.files.paths import word
from metarun.processes.shares import chunks_of
from metarun.types.streams import WithTrajectories
from metarun.wiring.build import Parts


def started(parts: Parts, settings: Settings, position: Position, folder: Path) -> list[str]:
    """Return the lines at the start of a training, or at the point from which a stopped run goes on."""
    config, step = parts.config, position.step
    names = [printable(_named(config, group)) for group in ("algo", "task")]
    work = [f"the validation after step {step:,}"] if step and position.validates else []
    if step < settings.steps or step == 0:
        left = f"steps {step + 1:,} to {settings.steps:,}" if step else counted(settings.steps, "step")
        work.append(f"{left} of {counted(settings.tasks_per_step, 'task')}")
    numbers = sum(value.numel() for value in position.params.values())
    return [
        f"metarun: {names[0]} on {names[1]}{_sizes(parts)}; {', then '.join(work)}, seed {settings.seed}",
        f"metarun: {counted(numbers, 'parameter')}; {describe(settings.plan, settings.device)}{divided(settings.ranks.size)}",
        *idle_line(settings),
        f"metarun: run folder {folder}",
    ]


def divided(processes: int) -> str:
    """Return the end of a sentence that says how many processes compute."""
    return f", divided among {processes} processes" if processes > 1 else ""


def idle_line(settings: Settings) -> list[str]:
    """Return a line about processes that have no task; [] where each has one."""
    processes, chunks = settings.ranks.size, chunks_of(settings.tasks_per_step, settings.plan.chunk)
    if chunks >= processes:
        return []
    made = f"the {counted(settings.tasks_per_step, 'task')} of a step make {counted(chunks, 'chunk')} of {settings.plan.chunk}"
    return [f"metarun: {made}, so {processes} processes are too many; lower device.task_chunk, or start {chunks}"]


def describe(plan: Plan, device: str) -> str:
    """Return how a step is computed, for a person."""
    tasks = counted(plan.chunk, "task")
    team = f"{plan.workers} workers with " if plan.workers > 1 else ""
    where = f"{team}{counted(plan.threads, 'thread')}" if device == "cpu" else device
    return f"{tasks} at once on {where}{', compiled' if plan.compile else ''}{', with C kernels' if plan.kernels == 'c' else ''}"


def told(selection: Selection, best: Mapping[str, Any] | None, overlaps: Sequence[str] = (), errors: str = "") -> str:
    """Return the best validation of a run as one line for a person. errors: as of `families_told` and `targets_told`."""
    if best is None:
        return "no checkpoint is the best one, since at every validation a task was not finite"
    metric = selection.objective.metric
    chosen = "" if str(selection) == f"mean {metric} over the validation tasks" else f" (chosen by the {selection}{_mean(selection, best)})"
    noted = f"; it was trained on {' and '.join(overlaps)}" if overlaps else ""
    score = with_interval(selection.name, best["score"], best.get("ci95"))
    return f"best validation {score} at step {best['step']:,}{chosen}{errors}{noted}"


def _mean(selection: Selection, best: Mapping[str, Any]) -> str:
    """Return the mean beside another statistic."""
    return "" if selection.statistic == "mean" else f", {with_interval(f'mean {selection.objective.metric}', best['mean'], None)}"


def next_commands(folder: Path, best: Mapping[str, Any] | None, config: Mapping[str, Any]) -> list[str]:
    """Return lines with the commands that test a run. best: `Position.best`, None where no validation was finite. config: the run's."""
    checkpoint = word("checkpoint", folder)
    lines = [f"test it with: {command('eval', checkpoint, config=config)}"]
    if (kept := len(kept_files(dict(best) if best is not None else None))) > 1:
        lines.append(f"test its {kept} best checkpoints as an ensemble with: {command('eval', checkpoint, f'best={kept}', config=config)}")
    return lines


def _named(config: Mapping[str, Any], group: str) -> str:
    """Return the option of a group, or the name of its class where it has none."""
    return str((config.get("options") or {}).get(group) or str(config[group].get("_target_")).rsplit(".", 1)[-1])


def _sizes(parts: Parts) -> str:
    """Return the sizes of a training episode in parentheses; nothing for a stream, whose episodes are trajectories."""
    if isinstance(parts.source, WithTrajectories):
        return ""
    sizes = sizes_of(parts.shown, parts.algorithm.objective.metric)
    return f" ({sizes['ways']}-way {sizes['shots']}-shot)" if sizes["ways"] is not None else f" ({counted(sizes['shots'] or 0, 'shot')})"
