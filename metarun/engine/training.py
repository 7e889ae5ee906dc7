"""The outer loop, read top to bottom: deal, loss, step, then evaluate, track, save.

The engine knows no algorithm. It maps `loss`, written for one task, over the tasks of a step in chunks, differentiates the mean,
steps the outer optimizer, and lets the algorithm update its state once per step. Every draw hangs on (seed, split, index), and the
checkpoint holds everything else, so a run that was stopped and resumed is the run that was never stopped.

Nothing in a step waits for the device: episodes are dealt ahead by another thread, and figures stay where they were computed until they
are logged. Only a processor, where it costs nothing, looks at each step's loss; elsewhere a loss that is not finite is found when the
next line is logged.
"""

from __future__ import annotations

import math
import time
from collections.abc import Callable
from dataclasses import dataclass, field
from typing import Any

import torch
from torch import Tensor
from torch.utils._pytree import tree_leaves, tree_map, tree_map_only

from metarun.compute.plan import Plan
from metarun.compute.running import Runner
from metarun.engine.dealing import Dealer
from metarun.engine.evaluation import evaluate
from metarun.engine.interrupt import Interrupt
from metarun.engine.optimizer import OuterOptimizer
from metarun.engine.report import Report
from metarun.errors import NotFiniteError, UserError
from metarun.functional import map_tasks
from metarun.records.tracking import Progress, Tracker
from metarun.types import Algorithm, Aux, Episode, Params, State, TaskSource, WithChoice, WithTrajectory


@dataclass(frozen=True)
class Settings:
    """The top-level keys of `train.yaml`, and what was chosen for the device.

    steps: outer steps. tasks_per_step: T. *_every: in outer steps; 0 is never, except that the last step is always evaluated and
    saved. eval_episodes: validation episodes. plan, eval_plan: how the tasks of a step and of a validation are run.
    """

    seed: int = 0
    steps: int = 1000
    tasks_per_step: int = 16
    eval_every: int = 500
    eval_episodes: int = 200
    save_every: int = 500
    log_every: int = 50
    plan: Plan = field(default_factory=Plan)
    eval_plan: Plan = field(default_factory=Plan)
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

    window: sums of the metrics since the last log line, and under "steps" how many they are; scalars on the device.
    """

    step: int
    params: Params
    state: State
    best: dict[str, Any] | None = None
    window: dict[str, Any] = field(default_factory=dict)


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
    training, validating = Runner(settings.plan), Runner(settings.eval_plan)
    dealer = Dealer(
        source,
        "train",
        first_step=position.step,
        steps=settings.steps,
        tasks_per_step=settings.tasks_per_step,
        seed=settings.seed,
        device=settings.device,
    )

    def validate() -> None:
        with dealer.lock:
            report = _validate(algorithm, source, position, settings, validating)
            if on_evaluation is not None:
                on_evaluation(position, report)
        if _track_validation(position, report, algorithm, tracker, progress):
            save(position, "best.pt")
        clock.pause()

    with Interrupt() as interrupt, training, validating, dealer:
        if position.step == 0:
            save(position, "last.pt")
        if settings.steps == 0:  # nothing for the outer loop to learn; there may be something to choose
            validate()
            save(position, "last.pt")
        while position.step < settings.steps and not interrupt.stopped:
            _step(algorithm, dealer, position, optimizer, settings, training)
            finished = position.step == settings.steps
            progress.update(position.step)
            if _due(position.step, settings.log_every) or finished:
                _log(position, optimizer, tracker, progress, clock, dealer)
            if _due(position.step, settings.eval_every) or finished:
                validate()
            if _due(position.step, settings.save_every) or finished:
                save(position, "last.pt")
        if interrupt.stopped:
            save(position, "last.pt")
    return position


def _step(algorithm: Algorithm, dealer: Dealer, position: Position, optimizer: OuterOptimizer, settings: Settings, runner: Runner) -> None:
    """Take one outer step in place."""
    batch, keys, indices = dealer.next()
    step = torch.full((), position.step, device=settings.device)  # filled there: a copy would wait for the device
    total: Params = {}
    whole: Any = None  # the losses (T,) and the aux of all tasks
    done = 0

    def gradients(shared: tuple[Params, State, Tensor], part: tuple[Episode, Tensor]) -> tuple[Params, Tensor, Aux]:
        params, state, step = shared
        return gradients_of(algorithm, params, state, *part, step)

    shared = (position.params, position.state, step)
    for gradient, *part in runner.map("gradients", gradients, shared, [(batch, keys)], times=settings.steps):
        # Into memory that is there: small tensors that outlive their chunk lie between large blocks, which then leave gaps.
        if whole is None:
            total = {name: torch.zeros_like(value) for name, value in gradient.items()}
            whole = tree_map(lambda leaf: leaf.new_empty(len(indices), *leaf.shape[1:]), part)
        for name, value in gradient.items():
            total[name] += value
        for all_tasks, some in zip(tree_leaves(whole), tree_leaves(part), strict=True):
            all_tasks[done : done + len(some)] = some
        done += len(part[0])
    losses, aux = whole
    looking = settings.device == "cpu"
    if looking and not losses.isfinite().all():
        _explain_not_finite(algorithm, position, batch, keys, indices, losses)
    mean = {name: gradient / settings.tasks_per_step for name, gradient in total.items()}
    norm = optimizer.update(mean, position.step)
    if looking and not norm.isfinite():
        raise NotFiniteError(f"the gradient of step {position.step + 1} is not finite, though its loss is; the last checkpoint is kept.")
    position.state = algorithm.update_state(position.state, aux.state)
    position.step += 1
    window = position.window
    window["steps"] = window.get("steps", 0) + 1
    for name, values in (aux.metrics | {"gradient_norm": norm}).items():
        window[name] = window.get(name, 0.0) + values.mean().double()


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
    if isinstance(algorithm, WithTrajectory):
        support, query = tree_map_only(Tensor, lambda leaf: leaf[worst], batch)
        with torch.no_grad():
            path = algorithm.trajectory(position.params, position.state, support, keys[worst])
            finite = [bool(algorithm.predict(adapted, query.x, query.mask).isfinite().all()) for adapted in path]
        where = f" after inner step {finite.index(False)}" if False in finite else " in the query loss"
    raise NotFiniteError(
        f"the loss of step {position.step + 1} is not finite (training task {int(indices[worst])}{where}); the last checkpoint is kept."
    )


def _check_window(window: dict[str, Any], step: int) -> None:
    """Raise a sentence where the figures since the last log line are not finite."""
    for name in ("loss", "gradient_norm"):
        if name in window and not math.isfinite(window[name]):
            first = step - window["steps"] + 1
            raise NotFiniteError(f"{name.replace('_', ' ')} is not finite in the steps {first} to {step}; the last checkpoint is kept.")


def _validate(algorithm: Algorithm, source: TaskSource, position: Position, settings: Settings, runner: Runner) -> Report:
    times = settings.steps // settings.eval_every + 1 if settings.eval_every else 1

    def run(state: State) -> Report:
        return evaluate(
            algorithm,
            position.params,
            state,
            source,
            split="val",
            episodes=settings.eval_episodes,
            runner=runner,
            device=settings.device,
            by_step="thin",
            times=times,
        )

    def score(state: State) -> dict[int, float]:
        sign = 1.0 if algorithm.objective.higher_is_better else -1.0
        report = run(state)
        return {step: sign * value for step, value in zip(report.steps, report.by_step, strict=True)}

    if position.step == settings.steps and isinstance(algorithm, WithChoice):
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


def _log(position: Position, optimizer: OuterOptimizer, tracker: Tracker, progress: Progress, clock: Clock, dealer: Dealer) -> None:
    window = position.window = {name: float(total) for name, total in position.window.items()}
    _check_window(window, position.step)
    steps = window.pop("steps")
    values = {f"train/{name}": total / steps for name, total in window.items()}
    values["train/tasks"] = steps * clock.tasks_per_step  # how many tasks these means are over
    speed, waiting = clock.read(int(steps), dealer.waited)
    tracker.log(position.step, values | {"train/lr": optimizer.lr_at(position.step - 1), "tasks_per_second": speed, "waiting": waiting})
    progress.update(position.step, loss=values["train/loss"], **{"tasks/s": speed})
    position.window = {}


def _due(step: int, every: int) -> bool:
    return every > 0 and step % every == 0


class Clock:
    """Measures training speed, evaluation and saving aside."""

    def __init__(self, tasks_per_step: int) -> None:
        self.tasks_per_step, self.start, self.waited = tasks_per_step, time.perf_counter(), 0.0

    def read(self, steps: int, waited: float) -> tuple[float, float]:
        """Return tasks per second over the last `steps` steps and the share of that time spent waiting for episodes; start anew.

        waited: seconds, since the beginning of the run.
        """
        now = time.perf_counter()
        passed = max(now - self.start, 1e-9)
        share = (waited - self.waited) / passed
        self.start, self.waited = now, waited
        return steps * self.tasks_per_step / passed, share

    def pause(self) -> None:
        """Leave out the time up to now."""
        self.start = time.perf_counter()
