"""Pictures of the first validation episode in TensorBoard, drawn at validations."""

from __future__ import annotations

import contextlib
import time
from typing import TYPE_CHECKING, Any

import torch
from torch import Tensor
from torch.utils._pytree import tree_map_only

from metarun import draws
from metarun.commands.class_names import names_in
from metarun.commands.stream_report import MATRIX, stream_figure
from metarun.engine.outputs import path_of
from metarun.engine.report import Report
from metarun.engine.training import Position, Settings
from metarun.engine.units import units_of
from metarun.episodes import deal
from metarun.functional import without_map
from metarun.layers.precision import at_least_float32
from metarun.records.agreement_picture import agreement_figure
from metarun.records.episode_picture import episode_figure
from metarun.records.pictures import curve_figure
from metarun.records.tracking import Tracker
from metarun.tasks.preparing.preparation import preparation_by
from metarun.types import Algorithm, Episode, TaskSource, WithCurve, WithTrajectory

if TYPE_CHECKING:
    from matplotlib.figure import Figure

SPLIT, INDEX = "val", 0
"""The episode in the picture. It is always the same, so that pictures of different steps and runs compare."""
PAUSE = 15.0
"""Least seconds between two pictures: a picture takes some tenths of a second, and validations may follow each other closely."""
CURVE_POINTS = 200


class Showing:
    """Notes and draws validations.

    report: the latest one. last: its summary. variance: of a regression's observations in it.

    A picture of images shows the model's predictions. A picture of a function of one input shows the model before and after inner
    steps; the source must know the true `curve`, and the algorithm must have a `trajectory`. A picture of another regression shows
    predicted against true values. The picture of a stream is its matrix. Other tasks have no picture. Without figures in the tracker
    (`Tracker.draws_figures`), there are no pictures.
    """

    def __init__(
        self, algorithm: Algorithm, source: TaskSource, tracker: Tracker, settings: Settings, variance: float | None = None
    ) -> None:
        self.algorithm, self.source, self.tracker, self.settings = algorithm, source, tracker, settings
        self.report: Report | None = None
        self.last: dict[str, Any] | None = None
        self.variance = variance
        self._drawn = -PAUSE

    def show(self, position: Position, report: Report) -> None:
        """Note the report, and draw it unless the last picture is too recent. The last step is always drawn."""
        self.report, self.last = report, report.summary()
        self.variance = report.variance
        recent = time.monotonic() - self._drawn < PAUSE
        if not self.tracker.draws_figures or (recent and position.step < self.settings.steps):
            return
        if report.stream is not None:
            self.tracker.figure(position.step, f"{SPLIT}/{MATRIX}", stream_figure(report, f"{SPLIT} trajectories, step {position.step}"))
        elif (figure := self._figure(position)) is not None:
            self.tracker.figure(position.step, f"{SPLIT}/episode_{INDEX}", figure)
        self._drawn = time.monotonic()

    def _figure(self, position: Position) -> Figure | None:
        batch = deal(self.source, SPLIT, torch.tensor([INDEX]), self.settings.device)
        episode: Episode = tree_map_only(Tensor, lambda leaf: leaf[0], batch)
        # The same noise as in the evaluation, so that the picture shows the model that was scored.
        key = draws.key(0, "evaluate", SPLIT, INDEX).to(self.settings.device)
        shape = episode.support.x.shape[1:]
        with torch.no_grad(), without_map(self.settings.eval_plan.loop):
            if self.source.objective == "classification" and len(shape) == 3 and shape[0] in (1, 3):
                return self._images(position, episode, key)
            if shape == (1,) and isinstance(self.source, WithCurve) and isinstance(self.algorithm, WithTrajectory):
                return self._curve(position, episode, key)
            if self.source.objective == "regression":
                return self._agreement(position, episode, key)
        return None

    def _images(self, position: Position, episode: Episode, key: Tensor) -> Figure:
        support, query = episode
        adapted = self.algorithm.adapt(position.params, position.state, support, key)
        probabilities = at_least_float32(self.algorithm.predict(adapted, query.x, query.mask)).softmax(dim=-1)
        masks = {"support_mask": support.mask, "query_mask": query.mask}
        names = names_in(self.source, SPLIT, INDEX)
        return episode_figure(support.x, support.y, query.x, query.y, probabilities, names=names, **masks)

    def _agreement(self, position: Position, episode: Episode, key: Tensor) -> Figure:
        support, query = episode
        path = path_of(self.algorithm, position.params, position.state, support, key)
        known = slice(None) if query.mask is None else query.mask
        ends = [at_least_float32(self.algorithm.predict(adapted, query.x, query.mask))[known] for adapted in (path[0], path[-1])]
        before, after, truth = (self._in_units(y) for y in (*ends, query.y[known]))
        names = list(units_of(self.source) or {})
        title = f"{SPLIT} episode {INDEX}, step {position.step}"
        return agreement_figure(truth, after, before=before if len(path) > 1 else None, names=names, title=title)

    def _in_units(self, y: Tensor) -> Tensor:
        """Return outputs or targets in their own units, where the source knows them."""
        preparation = preparation_by(self.source)
        return y if preparation is None else preparation.in_units(y)

    def _curve(self, position: Position, episode: Episode, key: Tensor) -> Figure:
        support, query = episode
        seen = torch.cat([support.x, query.x])
        x = torch.linspace(float(seen.min()), float(seen.max()), CURVE_POINTS, device=seen.device, dtype=seen.dtype)[:, None]
        path = self.algorithm.trajectory(position.params, position.state, support, key)  # type: ignore[attr-defined]
        outputs = [at_least_float32(self.algorithm.predict(adapted, x)) for adapted in path]
        truth = None
        with contextlib.suppress(AttributeError):  # a mixture may hold a family that has no curve
            truth = self.source.curve(SPLIT, INDEX, x.cpu())  # type: ignore[attr-defined]
        known = slice(None) if support.mask is None else support.mask
        return curve_figure(x, truth, support.x[known], support.y[known], outputs, title=f"{SPLIT} episode {INDEX}, step {position.step}")
