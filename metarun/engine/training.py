"""The outer loop, read top to bottom: deal, gradients, optimizer, state; then evaluate, track, save.

The engine knows no algorithm. It maps `loss`, written for one task, over the tasks of a step in chunks, and takes the gradient of the
mean. The seed, the split and the index of an episode determine every draw, and the checkpoint holds everything else. So a resumed run
equals a run that never stopped.

`save(position, name)` writes "last.pt" at the start, on schedule and at the end. After a validation, it writes the checkpoints that
`metarun.engine.keeping` names.

A step never waits for the device. Another thread deals the episodes, and metrics stay on the device until the next log line. On a CPU
the engine checks the loss of every step. On another device it finds a loss that is not finite when it writes the next log line.
"""

from __future__ import annotations

from collections.abc import Callable
from contextlib import ExitStack, nullcontext, suppress
from dataclasses import dataclass, field
from functools import partial
from typing import Any, ClassVar, Self

import torch
from torch import Tensor
from torch.utils._pytree import tree_map

from metarun import draws
from metarun.compute.plan import Plan
from metarun.compute.running import Runner
from metarun.compute.stops import CompilingStopped
from metarun.engine.autosave import Autosave
from metarun.engine.clock import Clock
from metarun.engine.dealing import Dealer
from metarun.engine.divergence import check_window, where_diverged
from metarun.engine.interrupt import BrokenOff, Interrupt
from metarun.engine.optimizer import OuterOptimizer
from metarun.engine.patience import is_exhausted, unimproved_after
from metarun.engine.report import Report
from metarun.engine.selection import Selected, Selection
from metarun.engine.validation import Validation, judged, values_to_log, values_to_show
from metarun.episodes import deal, first_of
from metarun.errors import NotFiniteError
from metarun.functional import map_tasks, without_map
from metarun.processes.ranks import ONE, Ranks
from metarun.records.progress import Progress
from metarun.records.tracking import Tracker
from metarun.types import Algorithm, Aux, Episode, Metrics, Params, State, TaskSource
from metarun.values import Count, CountOrZero, Episodes, NotNegative, Seed


@dataclass(frozen=True)
class Settings:
    """The top-level keys of `train.yaml`, and the choices for the device.

    steps: outer steps. tasks_per_step: T. *_every: in outer steps. eval_every and save_every may be 0, which means never, but the engine
    always evaluates and saves the last step. save_minutes: the most minutes between two checkpoints, or None for no clock. eval_episodes:
    validation episodes. keep: how many of the best checkpoints the run keeps (`metarun.engine.keeping`). select: the score that chooses
    them (`Selection.of`). patience: see `metarun.engine.patience`. plan, eval_plan: how to run the tasks of a step and of a validation.
    device: torch's name of the device. ranks: the processes that divide the tasks, and stop after the same step.
    """

    seed: Seed = 0
    steps: CountOrZero = 1000
    tasks_per_step: Count = 16
    eval_every: CountOrZero = 500
    eval_episodes: Episodes = 200
    save_every: CountOrZero = 500
    save_minutes: NotNegative | None = 5
    keep: Count = 1
    log_every: Count = 50
    select: Selected | None = None
    patience: Count | None = None
    plan: Plan = field(default_factory=Plan)
    eval_plan: Plan = field(default_factory=Plan)
    device: str = "cpu"
    ranks: Ranks = ONE


@dataclass
class Position:
    """The part of a run that a step changes, and that a checkpoint holds.

    step: outer steps done. best: entries about the best validation: the "score" that chose it, the "mean" over its tasks, its "step", and
    the "ci95" of a score that is a mean. If its report has "by_target" or "by_family", best has them too. With `keep` above 1, its list
    "kept" has these entries for each of the best validations. window: sums of the metrics since the last log line, as scalars
    on the device, and the number of "steps". unimproved: how many validations in a row brought no better score. validates: whether the
    validation after `step` has begun and not ended.
    """

    step: int
    params: Params
    state: State
    best: dict[str, Any] | None = None
    window: dict[str, Any] = field(default_factory=dict)
    unimproved: int = 0
    validates: bool = False

    def add_to_window(self, metrics: Metrics) -> None:
        """Add the means of a step's metrics. metrics: scalars or (T,)."""
        self.window["steps"] = self.window.get("steps", 0) + 1
        for name, values in metrics.items():
            self.window[name] = self.window.get(name, 0.0) + values.mean().double()


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
    interrupt: Interrupt | None = None,
    saving: Callable[[], bool] = lambda: False,
) -> Position:
    """Run from `position` to `settings.steps`, to the end of the patience or to an interrupt; return the position at the end.

    A signal breaks a validation off, unless several processes share it; the resumed run begins with it.
    interrupt: None for a new one. saving: whether an earlier save is unfinished. Raises UserError if a loss or a gradient is not finite.
    """
    loop, autosave = Loop(algorithm, source, position, optimizer, settings), Autosave(settings.save_every, settings.save_minutes, saving)
    with nullcontext(interrupt) if interrupt else Interrupt() as asked, loop:
        validate = partial(_validate_and_track, loop, asked, tracker, progress, save, on_evaluation)
        if position.step == 0:
            save(position, "last.pt")
        with suppress(CompilingStopped, BrokenOff):  # the step has not begun, or the validation begins again in the resumed run
            if settings.steps == 0 or position.validates:  # without an outer step, the algorithm may still choose hyperparameters
                validate()
                save(position, "last.pt")
            while (step := position.step + 1) <= settings.steps and not (ended_early(position, settings) or asked.reached(settings.ranks)):
                loop.step()
                progress.update(step)
                if _due(step, settings.log_every) or step == settings.steps:
                    _log(loop, tracker, progress)
                if _due(step, settings.eval_every) or step == settings.steps:
                    validate()
                if autosave.due(step) or step == settings.steps or ended_early(position, settings):
                    save(position, "last.pt")
        if asked.stopped:
            save(position, "last.pt")
    return position


def ended_early(position: Position, settings: Settings) -> bool:
    """Return whether the training ends before its last step, since its patience is used up."""
    return position.step < settings.steps and is_exhausted(settings.patience, position.unimproved)


class Loop:
    """A run in progress: the objects that its steps share. Use it in `with`, which starts and ends its threads."""

    def __init__(
        self,
        algorithm: Algorithm,
        source: TaskSource,
        position: Position,
        optimizer: OuterOptimizer,
        settings: Settings,
    ) -> None:
        self.algorithm, self.source, self.position, self.optimizer, self.settings = algorithm, source, position, optimizer, settings
        ranks = settings.ranks
        self.gradients = TaskGradients(algorithm, breakable=ranks.size == 1)
        self.selection = Selection.of(settings.select, algorithm.objective)
        with without_map(settings.eval_plan.loop):
            self.selection.check(algorithm, position.params, position.state, source, settings.device)
        self.runner, self.validation_runner = Runner(settings.plan, ranks), Runner(settings.eval_plan, ranks)
        self.share = self.runner.shares(settings.tasks_per_step)[ranks.rank]
        validations = settings.steps // settings.eval_every + 1 if settings.eval_every else 1
        validating = (self.selection, self.validation_runner, settings.eval_episodes, validations, settings.device)
        self.validation = Validation(algorithm, source, *validating)
        self.clock = Clock(settings.tasks_per_step)
        run = {name: getattr(settings, name) for name in ("steps", "tasks_per_step", "seed", "device")}
        self.dealer = Dealer(source, "train", first_step=position.step, share=self.share, **run)
        self._opened = ExitStack()

    def __enter__(self) -> Self:
        with ExitStack() as opened:
            for each in (self.runner, self.validation_runner, self.dealer):
                opened.enter_context(each)
            self._opened = opened.pop_all()
        return self

    def __exit__(self, *exception: object) -> None:
        self._opened.close()

    def step(self) -> None:
        """Take one outer step: deal, gradients, optimizer, state."""
        position, settings = self.position, self.settings
        batch = self.dealer.next()[:2] if self.share else None
        step = torch.full((), position.step, device=settings.device)  # filled on the device; a copy from the CPU would wait for the device
        shared = (position.params, position.state, step)
        sizes = {"runs": settings.steps, "tasks": settings.tasks_per_step}
        gradient, losses, aux = self.runner.mean_gradient(self.gradients, shared, batch, **sizes)
        checked = settings.device == "cpu"
        if checked and not losses.isfinite().all():
            _explain_not_finite(self, losses)
        norm = self.optimizer.update(gradient, position.step)
        if checked and not norm.isfinite():
            raise NotFiniteError(
                f"the gradient of step {position.step + 1} is not finite, though its loss is finite; the last checkpoint is kept."
            )
        position.state = self.algorithm.update_state(position.state, aux.state)
        position.step += 1
        position.add_to_window(aux.metrics | {"gradient_norm": norm})


@dataclass(frozen=True, eq=False)
class TaskGradients:
    """`gradients_of` in the form that the runner calls. Make one object per run, since the runner records each object once."""

    algorithm: Algorithm
    what: ClassVar[str] = "the step"
    breakable: bool = True  # whether Ctrl-C may break off the compilation of a step; not if other processes may have begun this step

    def __call__(self, shared: tuple[Params, State, Tensor], chunk: tuple[Episode, Tensor]) -> tuple[Params, Tensor, Aux]:
        """Return the gradients of a chunk. shared: params, state and step. chunk: episodes and keys."""
        params, state, step = shared
        return gradients_of(self.algorithm, params, state, *chunk, step)


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


def _explain_not_finite(loop: Loop, losses: Tensor) -> None:
    """Raise NotFiniteError with the step, the task and, where adaptation already diverged, the inner step."""
    position, settings = loop.position, loop.settings
    task = position.step * settings.tasks_per_step + int((~losses.isfinite()).nonzero()[0])
    with loop.dealer.lock, without_map(settings.plan.loop):  # dealt again, since it may be a task of another process
        episode = first_of(deal(loop.source, "train", torch.tensor([task]), settings.device))
        key = draws.key(settings.seed, "train", task).to(settings.device)
        where = where_diverged(loop.algorithm, position.params, position.state, episode, key)
    raise NotFiniteError(f"the loss of step {position.step + 1} is not finite (training task {task}{where}); the last checkpoint is kept.")


def _validate_and_track(
    loop: Loop,
    asked: Interrupt,
    tracker: Tracker,
    progress: Progress,
    save: Callable[[Position, str], None],
    on_evaluation: Callable[[Position, Report], None] | None,
) -> None:
    """Score the validation episodes, log the score, and save the checkpoint where it is one of the best. A signal raises BrokenOff."""
    position, selection = loop.position, loop.selection
    position.validates = True
    with loop.dealer.lock:
        with progress.validating(), asked.breaking(loop.settings.ranks.size == 1):
            state, report = loop.validation.run(position.params, position.state)
        position.state, position.validates = state, False
        if on_evaluation is not None:
            on_evaluation(position, report)
    tracker.log(position.step, values_to_log(selection, report))
    progress.update(position.step, **values_to_show(report))
    position.best, names = judged(selection, report, position.step, position.best, loop.settings.keep)
    position.unimproved = unimproved_after(position.best, position.step, position.unimproved)
    for name in names:
        save(position, name)
    loop.clock.pause()


def _log(loop: Loop, tracker: Tracker, progress: Progress) -> None:
    """Log the means over the steps since the last log line, and start a new window."""
    position, tasks_per_step = loop.position, loop.settings.tasks_per_step
    window = position.window = {name: float(total) for name, total in position.window.items()}
    check_window(window, position.step)
    steps = window.pop("steps")
    values = {f"train/{name}": total / steps for name, total in window.items()}
    speed, waiting = loop.clock.read(int(steps), loop.dealer.waited)
    values["train/lr"] = loop.optimizer.lr_at(position.step - 1)
    values |= {"speed/tasks_per_second": speed, "speed/share_of_time_waiting_for_episodes": waiting}
    values["speed/tasks_averaged"] = steps * tasks_per_step  # the number of tasks in the means of this line
    tracker.log(position.step, values)
    metric = loop.algorithm.objective.metric
    score = {metric: values[f"train/{metric}"]} if values.get(f"train/{metric}") not in (None, values["train/loss"]) else {}
    progress.update(position.step, loss=values["train/loss"], **score, **{"tasks/s": speed})
    position.window = {}


def _due(step: int, every: int) -> bool:
    return every > 0 and step % every == 0
