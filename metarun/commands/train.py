"""What `metarun train` and `metarun eval` do, from a plain config to a run folder."""

from __future__ import annotations

import math
import signal
from collections.abc import Mapping, Sequence
from functools import partial
from pathlib import Path
from types import MappingProxyType
from typing import Any, NamedTuple

import torch

from metarun.commands import pretraining, remedies
from metarun.commands.abstaining import keep_calibration
from metarun.commands.changed import build_again, remedy
from metarun.commands.continuing import go_on
from metarun.commands.overlap import check_start, described, overlaps_of, training_origins
from metarun.commands.overrides import changed_data, check_data, check_loggers, resume_config, with_absolute_places
from metarun.commands.report_files import families_told, targets_told, write_config, write_json
from metarun.commands.showing import Showing
from metarun.commands.stopping import announce, stopped_at, stopping
from metarun.commands.stream_report import write_matrices
from metarun.commands.train_lines import next_commands, started, told
from metarun.commands.trained import check_resumed, load_run
from metarun.compute.device import place
from metarun.compute.memory import allocating
from metarun.engine.interrupt import Interrupt
from metarun.engine.keeping import STEP_FILES, kept_files
from metarun.engine.optimizer import OuterOptimizer
from metarun.engine.patience import check_patience_left, early_line
from metarun.engine.selection import Selection
from metarun.engine.training import Position, Settings, ended_early
from metarun.engine.training import train as run_engine
from metarun.errors import NotFiniteError, Stopped, UserError, counted, printable
from metarun.files.run_folder import AUTO, CHECKPOINTS, refuse_run
from metarun.processes.ranks import PeerLostError, here
from metarun.records import checkpoint
from metarun.records.checkpoint import Checkpoint
from metarun.records.display import doing
from metarun.records.progress import Progress
from metarun.records.saving import Saver, remove_others
from metarun.records.tracking import Silent, Tracker
from metarun.records.widths import terminal_width, wrapped
from metarun.tasks.fingerprint import fingerprint_of
from metarun.tasks.preparing.preparation import preparation_by
from metarun.wiring.build import Parts, build, build_optimizer, build_settings, start
from metarun.wiring.checking import TRAINED, check_values
from metarun.wiring.instantiate import instantiate
from metarun.wiring.shapes import Shapes


def train(config: dict[str, Any], folder: Path) -> float:
    """Train as the config says, or resume a run; return the error of the best validation, for a sweeper to minimise.

    The error is 1 - accuracy in classification, the error itself in regression, the negative log-likelihood with `select=nll`, and
    infinity where no validation was finite.
    Raises Stopped where a signal came, after the training has saved.
    config: resolved and plain, under "typed" with what was typed or swept (dotted key -> value); to resume a run, the result of
    `metarun.cli.composing.resume_config`. With `resume=auto`, that of a new run (`metarun.commands.continuing`).
    """
    if config.get("resume") == AUTO:
        return go_on(config, folder, train)
    if config.get("resume"):
        return _resume(config, folder)
    config = dict(config)
    typed = config.pop("typed", {})
    check_values(config, TRAINED)
    if here().first:
        refuse_run(folder)
    with doing("preparing the run"):
        parts = build(with_absolute_places(config))
        settings = build_settings(parts)
        origins = training_origins(parts.source, check_start(parts.config, parts.source))
        position, optimizer = start(parts, settings)
    return _run(Run(parts, settings, folder, origins, use_of(parts), typed=typed), position, optimizer)


def _resume(config: dict[str, Any], folder: Path) -> float:
    # What the user typed now: the checkpoint's own `trust` would let a stranger's file vouch for itself.
    path, stored, _ = load_run(config["resume"], checkpoint.LAST, config["overrides"].get("trust"))
    merged = resume_config(stored, config["overrides"], config["groups"])
    check_values(merged, TRAINED)
    check_data(merged, stored.config)
    check_loggers(merged, config["overrides"])
    parts = build_again(with_absolute_places(merged), stored)
    params, state = check_resumed(stored, parts.algorithm)
    settings = build_settings(parts)
    if stored.step >= settings.steps and (stored.step > 0 or stored.best is not None) and not stored.validates:
        raise UserError(f"{path} has done all its {counted(stored.step, 'step')}; give a larger steps= to go on.")
    before, now = stored.execution, execution(parts, settings)
    changed = [f"{key} {before.get(key)} -> {now.get(key)}" for key in {**now, **before} if before.get(key) != now.get(key)]
    other_data = changed_data(stored.data, parts.source, config["overrides"])
    if changed := changed + other_data:
        where = remedy(parts.config) if other_data and stored.data else ""
        print(f"metarun: not bit for bit the run that was stopped, since {printable(', '.join(changed))}{where}.")
    if settings.steps != stored.config["steps"] and parts.config["optimizer"].get("schedule", "constant") in ("linear", "cosine"):
        print(f"metarun: the learning rate's schedule now ends at step {settings.steps} instead of {stored.config['steps']}.")
    params, state = place(params, settings.device), place(state, settings.device)
    optimizer = build_optimizer(parts.config, params, settings.steps)
    optimizer.load_state_dict(stored.optimizer)
    check_patience_left(settings.patience, stored.unimproved, stored.step)
    position = Position(stored.step, params, state, stored.best, dict(stored.window), stored.unimproved, stored.validates)
    return _run(Run(parts, settings, folder, stored.origins, use_of(parts), stored.step, stored.variance), position, optimizer)


class Run(NamedTuple):
    """The parts of a run that its steps leave as they are.

    origins: see `Checkpoint`. resume_step: None for a new run.
    use: the entries `data`, `preparation` and `shapes` of `Checkpoint`. variance: see `Checkpoint`; of the stopped run.
    typed: dotted key -> value of what was typed or swept, for the loggers.
    """

    parts: Parts
    settings: Settings
    folder: Path
    origins: list[str]
    use: Mapping[str, Any]
    resume_step: int | None = None
    variance: float | None = None
    typed: Mapping[str, Any] = MappingProxyType({})


def _run(run: Run, position: Position, optimizer: OuterOptimizer) -> float:
    """Take the steps of a run and write its results; raise Stopped where a signal came meanwhile, also after the last step."""
    interrupt = Interrupt(announce)
    with stopping(interrupt, run.folder, run.parts.config):
        return _take_steps(run, position, optimizer, interrupt)


def _take_steps(run: Run, position: Position, optimizer: OuterOptimizer, interrupt: Interrupt) -> float:
    parts, settings, folder, ranks = run.parts, run.settings, run.folder, run.settings.ranks
    ranks.agree(0)  # all have read the files of a resumed run before the first process writes there
    with _tracker(run) as tracker, Saver(before=tracker.sync) as saver, progress_of(settings, position.step) as progress:
        lines = started(parts, settings, position, folder)
        progress.say("\n".join([*lines, *pretraining.lines(pretraining.pretraining_of(parts.config, parts.source, "test"))]))

        def save(position: Position, name: str) -> None:
            if not ranks.first:
                return
            checkpoints = folder / CHECKPOINTS
            # Not earlier: a run that is killed goes on from an older last.pt, which names other files.
            pruned = name == checkpoint.LAST and settings.keep > 1
            then = partial(remove_others, checkpoints, STEP_FILES, kept_files(position.best)) if pruned else None
            saver.save(checkpoints / name, _checkpoint(run, position, optimizer, showing.variance), then)

        if ranks.first:
            write_config(parts.config, folder)
        showing = Showing(parts.algorithm, parts.source, tracker, settings, run.variance)
        hearers: dict[str, Any] = {"tracker": tracker, "progress": progress, "save": save, "saving": saver.is_busy, "interrupt": interrupt}
        try:
            with allocating("a step", "lower device.task_chunk, tasks_per_step or the sizes of the task"):
                end = run_engine(parts.algorithm, parts.source, position, optimizer, settings, on_evaluation=showing.show, **hearers)
        except NotFiniteError as diverged:
            raise UserError(f"{diverged}{remedies.for_not_finite(parts.config)}") from diverged
        except PeerLostError:
            save(position, checkpoint.LAST)  # the position is that after the last whole step
            raise
        saver.flush()
        if end.validates or (end.step < settings.steps and not ended_early(end, settings)):
            progress.close()  # its last values stand above the message
            progress.say(stopped_at(end.step, settings.steps, folder, parts.config, validates=end.validates))
            raise Stopped(interrupt.number or signal.SIGINT)
        overlaps = _write_results(run, end, tracker, showing) if ranks.first else []
    if ranks.first:
        with doing("calibrating for `metarun predict abstain=`"):
            keep_calibration(parts, settings, end.best, folder)
        print("\n".join(_ending(run, end, overlaps)))
    best = end.best or {"score": math.nan}
    return Selection.of(settings.select, parts.algorithm.objective).error(best["score"])


def _write_results(run: Run, end: Position, tracker: Tracker, showing: Showing) -> list[dict[str, Any]]:
    """Write the final metrics, report.json and the matrices of trajectories; return the overlaps of the data with the training's."""
    objective, folder = run.parts.algorithm.objective, run.folder
    selection = Selection.of(run.settings.select, objective)
    best = end.best or {"score": math.nan, "mean": math.nan, "step": end.step}
    tracker.result(end.step, {f"best/{selection.name}": best["score"]})
    overlaps = overlaps_of(run.parts.source, run.origins)
    ended = {"steps": end.step, "stopped_early": ended_early(end, run.settings), "best": best, "select": str(selection)}
    write_json(folder / "report.json", {"split": "val", "metric": objective.metric, **ended, "overlap": overlaps, "last": showing.last})
    write_matrices([showing.report] if showing.report is not None else [], folder, "validation trajectories")
    return overlaps


def _ending(run: Run, end: Position, overlaps: Sequence[Mapping[str, Any]]) -> list[str]:
    """Return the lines that a run prints after its last step."""
    objective, settings, best = run.parts.algorithm.objective, run.settings, end.best or {}
    figures = families_told(objective.metric, best.get("by_family")) + targets_told(best.get("by_target"))
    said = told(Selection.of(settings.select, objective), end.best, [described(each) for each in overlaps], figures)
    first = [early_line(end.step, settings.steps, end.unimproved)] if ended_early(end, settings) else []
    return [
        *first,
        wrapped(printable(said), terminal_width()),
        f"run folder {run.folder}",
        *next_commands(run.folder, end.best, run.parts.config),
    ]


def progress_of(settings: Settings, step: int) -> Progress:
    """Return the display of a run from a step on."""
    validation = settings.eval_episodes / settings.tasks_per_step
    return Progress(settings.steps, step, validate_every=settings.eval_every, validation=validation, keep=True)


def _tracker(run: Run) -> Tracker:
    if not here().first:
        return Silent()
    told_to_loggers = {"resume_step": run.resume_step, "config": run.parts.config, "typed": run.typed}
    with doing("opening the logs"):
        tracker: Tracker = instantiate(run.parts.config["logger"], name="logger", folder=run.folder, **told_to_loggers)
    return tracker


def _checkpoint(run: Run, position: Position, optimizer: OuterOptimizer, variance: float | None) -> Checkpoint:
    return Checkpoint(
        step=position.step,
        params=position.params,
        state=position.state,
        optimizer=optimizer.state_dict(),
        best=position.best,
        unimproved=position.unimproved,
        validates=position.validates,
        window={name: float(total) for name, total in position.window.items()},
        config=run.parts.config,
        execution=execution(run.parts, run.settings),
        origins=run.origins,
        variance=variance,
        **run.use,
    )


def use_of(parts: Parts) -> dict[str, Any]:
    """Return the entries of a checkpoint that describe its data, so that it can be used without them."""
    preparation = preparation_by(parts.source)
    return {
        "data": fingerprint_of(parts.source),
        "preparation": {} if preparation is None else preparation.stored(),
        "shapes": Shapes.of(parts.source).stored(),
    }


def execution(parts: Parts, settings: Settings) -> dict[str, Any]:
    """Return how the run is computed. Two runs of one config agree bit for bit only where these values are equal."""
    return {
        "device": settings.device,
        "threads": parts.device.threads // parts.device.machines,
        "chunk": settings.plan.chunk,
        "compile": settings.plan.compile,
        "kernels": settings.plan.kernels,
        "precision": parts.device.precision,
        "torch": str(torch.__version__),
        **({"loop": True} if settings.plan.loop else {}),  # left out elsewhere, so that earlier checkpoints agree
    }
