"""The outer loop, read top to bottom: deal, loss, step, then evaluate, track, save.

The engine knows no algorithm. It maps `loss`, written for one task, over the tasks of a step in chunks, differentiates the mean,
steps the outer optimizer, and lets the algorithm update its state once per step. Every draw hangs on (seed, split, index), and the
checkpoint holds everything else, so a run that was stopped and resumed is the run that was never stopped.
"""

from __future__ import annotations

import math
import time
from collections.abc import Callable
from dataclasses import dataclass, field
from typing import Any

import torch
from torch import Tensor
from torch.utils._pytree import tree_map, tree_map_only

from metarun import draws
from metarun.errors import UserError
from metarun.evaluation import Report, chunks, evaluate
from metarun.functional import deal, map_tasks
from metarun.interrupt import Interrupt
from metarun.optimizer import OuterOptimizer
from metarun.tracking import Progress, Tracker
from metarun.types import Algorithm, Aux, Episode, Params, State, TaskSource


@dataclass(frozen=True)
class Settings:
    """The top-level keys of `train.yaml`, and what was chosen for the device.

    steps: outer steps. tasks_per_step: T. *_every: in outer steps; 0 is never, except that the last step is always evaluated and
    saved. eval_episodes: validation episodes. chunk: tasks that are mapped at once.
    """

    seed: int = 0
    steps: int = 1000
    tasks_per_step: int = 16
    eval_every: int = 500
    eval_episodes: int = 200
    save_every: int = 500
    log_every: int = 50
    chunk: int = 8
    device: str = "cpu"

    def __post_init__(self) -> None:
        for name, least in (
            ("steps", 0),
            ("tasks_per_step", 1),
            ("eval_every", 0),
            ("eval_episodes", 1),
            ("save_every", 0),
            ("log_every", 1),
        ):
            if getattr(self, name) < least:
                raise UserError(f"{name}={getattr(self, name)} is too small; it must be at least {least}.")


@dataclass
class Position:
    """Where a run stands: everything that a step changes, and so everything that a checkpoint holds.

    window: sums of the metrics since the last log line, and under "steps" how many they are.
    """

    step: int
    params: Params
    state: State
    best: dict[str, Any] | None = None
    window: dict[str, float] = field(default_factory=dict)


def train(
    algorithm: Algorithm,
    source: TaskSource,
    position: Position,
    optimizer: OuterOptimizer,
    settings: Settings,
    *,
    tracker: Tracker,
    progress: Progress,
    save: Callable[[Position, str], None],
    on_evaluation: Callable[[Position, Report], None] | None = None,
) -> Position:
    """Run from `position` to `settings.steps`, or to an interrupt; returns where it ended.

    `save(position, name)` writes a checkpoint; "last.pt" is written on schedule and at the end, "best.pt" where the validation score
    improves. Raises UserError where a loss is not finite, the last checkpoint kept.
    """
    clock = Clock(settings.tasks_per_step)

    def validate() -> None:
        report = _validate(algorithm, source, position, settings)
        if _track_validation(position, report, algorithm, tracker, progress):
            save(position, "best.pt")
        if on_evaluation is not None:
            on_evaluation(position, report)
        clock.pause()

    with Interrupt() as interrupt:
        if position.step == 0:
            save(position, "last.pt")
        if settings.steps == 0:  # nothing for the outer loop to learn; there may be something to choose
            validate()
            save(position, "last.pt")
        while position.step < settings.steps and not interrupt.stopped:
            _step(algorithm, source, position, optimizer, settings)
            finished = position.step == settings.steps
            progress.update(position.step)
            if _due(position.step, settings.log_every) or finished:
                _log(position, optimizer, tracker, progress, clock)
            if _due(position.step, settings.eval_every) or finished:
                validate()
            if _due(position.step, settings.save_every) or finished:
                save(position, "last.pt")
        if interrupt.stopped:
            save(position, "last.pt")
    return position


def _step(algorithm: Algorithm, source: TaskSource, position: Position, optimizer: OuterOptimizer, settings: Settings) -> None:
    """Take one outer step in place."""
    first = position.step * settings.tasks_per_step
    step = torch.tensor(position.step, device=settings.device)
    total: Params = {}
    auxes: list[Aux] = []
    for indices in chunks(first, settings.tasks_per_step, settings.chunk):
        batch = deal(source, "train", indices, settings.device)
        keys = draws.key(settings.seed, "train", indices).to(settings.device)
        gradients, losses, aux = gradients_of(algorithm, position.params, position.state, batch, keys, step)
        if not torch.isfinite(losses).all():
            _explain_not_finite(algorithm, position, batch, keys, indices, losses)
        total = {name: total[name] + gradient for name, gradient in gradients.items()} if total else gradients
        auxes.append(aux)
    mean = {name: gradient / settings.tasks_per_step for name, gradient in total.items()}
    norm = optimizer.update(mean, position.step)
    if not torch.isfinite(norm):
        raise UserError(
            f"the gradient of step {position.step + 1} is not finite, though its loss is; the last checkpoint is kept. "
            "Lower algo.inner_lr or set optimizer.clip_norm."
        )
    aux = tree_map(lambda *parts: torch.cat(parts), *auxes)
    position.state = algorithm.update_state(position.state, aux.state)
    position.step += 1
    position.window["steps"] = position.window.get("steps", 0) + 1
    for name, values in (aux.metrics | {"gradient_norm": torch.as_tensor(norm)}).items():
        position.window[name] = position.window.get(name, 0.0) + float(values.mean())


def gradients_of(
    algorithm: Algorithm, params: Params, state: State, batch: Episode, keys: Tensor, step: Tensor
) -> tuple[Params, Tensor, Aux]:
    """Return the gradient of the SUM of the losses over the tasks of a batch, the losses (T,), and the aux with leading axis T."""
    leaves = {name: value.detach().requires_grad_() for name, value in params.items()}

    def one(episode: Episode, key: Tensor) -> tuple[Tensor, Aux]:
        return algorithm.loss(leaves, state, episode, key, step)

    losses, aux = map_tasks(one, batch, keys)
    if not leaves:
        return {}, losses.detach(), aux
    gradients = torch.autograd.grad(losses.sum(), list(leaves.values()), allow_unused=True)
    filled = (torch.zeros_like(leaf) if gradient is None else gradient for leaf, gradient in zip(leaves.values(), gradients, strict=True))
    return dict(zip(leaves, filled, strict=True)), losses.detach(), tree_map(torch.Tensor.detach, aux)


def _explain_not_finite(algorithm: Algorithm, position: Position, batch: Episode, keys: Tensor, indices: Tensor, losses: Tensor) -> None:
    """Raise a sentence that names the step, the task and, where adaptation already failed, the inner step."""
    worst = int((~losses.isfinite()).nonzero()[0])
    where = ""
    if hasattr(algorithm, "trajectory"):
        support, query = tree_map_only(Tensor, lambda leaf: leaf[worst], batch)
        with torch.no_grad():
            path = algorithm.trajectory(position.params, position.state, support, keys[worst])
            finite = [bool(algorithm.predict(adapted, query.x, query.mask).isfinite().all()) for adapted in path]
        where = f" after inner step {finite.index(False)}" if False in finite else " in the query loss"
    raise UserError(
        f"the loss of step {position.step + 1} is not finite (training task {int(indices[worst])}{where}); "
        f"the last checkpoint is kept. Lower algo.inner_lr or optimizer.lr, or set optimizer.clip_norm."
    )


def _validate(algorithm: Algorithm, source: TaskSource, position: Position, settings: Settings) -> Report:
    def run(state: State) -> Report:
        episodes, chunk, device = settings.eval_episodes, settings.chunk, settings.device
        return evaluate(algorithm, position.params, state, source, split="val", episodes=episodes, chunk=chunk, device=device, thin=True)

    def score(state: State) -> dict[int, float]:
        sign = 1.0 if algorithm.objective.higher_is_better else -1.0
        report = run(state)
        return {step: sign * value for step, value in zip(report.steps, report.by_step, strict=True)}

    if position.step == settings.steps and hasattr(algorithm, "choose"):
        position.state = algorithm.choose(position.params, position.state, score)
    return run(position.state)


def _track_validation(position: Position, report: Report, algorithm: Algorithm, tracker: Tracker, progress: Progress) -> bool:
    """Log a validation, and return whether it is the best one so far."""
    values = {f"val/{report.metric}": report.mean, "val/ci95": report.ci95}
    if len(report.by_step) > 1:
        values |= {f"val_by_step/{number}": value for number, value in zip(report.steps, report.by_step, strict=True)}
    tracker.log(position.step, values)
    progress.update(position.step, **{f"val {report.metric}": report.mean})
    if not math.isfinite(report.mean):
        return False
    sign = 1.0 if algorithm.objective.higher_is_better else -1.0
    if position.best is not None and sign * report.mean <= sign * position.best["score"]:
        return False
    position.best = {"score": report.mean, "step": position.step}
    return True


def _log(position: Position, optimizer: OuterOptimizer, tracker: Tracker, progress: Progress, clock: Clock) -> None:
    steps = position.window.pop("steps")
    values = {f"train/{name}": total / steps for name, total in position.window.items()}
    values["train/tasks"] = steps * clock.tasks_per_step  # how many tasks these means are over
    speed = clock.tasks_per_second(int(steps))
    tracker.log(position.step, values | {"train/lr": optimizer.lr_at(position.step - 1), "tasks_per_second": speed})
    progress.update(position.step, loss=values["train/loss"], **{"tasks/s": speed})
    position.window = {}


def _due(step: int, every: int) -> bool:
    return every > 0 and step % every == 0


class Clock:
    """Measures training speed, evaluation and saving aside."""

    def __init__(self, tasks_per_step: int) -> None:
        self.tasks_per_step, self.start = tasks_per_step, time.perf_counter()

    def tasks_per_second(self, steps: int) -> float:
        """Return the speed over the last `steps` steps, and start anew."""
        now = time.perf_counter()
        speed = steps * self.tasks_per_step / max(now - self.start, 1e-9)
        self.start = now
        return speed

    def pause(self) -> None:
        """Leave out the time up to now."""
        self.start = time.perf_counter()
