"""The logger `wandb`: Weights & Biases, online or offline.

A resumed run goes on under the id that the run folder holds. Online, the server keeps the steps that it has: values of steps that the
resumed run repeats are left out, since they are the same values. Offline, no library call reads an earlier file. So the resumed run writes
a new file that begins with the history in `metrics.jsonl`; `wandb sync` of the newest file uploads the whole run.
"""

from __future__ import annotations

import os
import secrets
from collections.abc import Mapping, Sequence
from typing import TYPE_CHECKING, Literal

from metarun.files.run_folder import WANDB
from metarun.files.writing import check_place
from metarun.records.loggers.identity import noted, sweep_of
from metarun.records.loggers.logger import RunStart
from metarun.records.loggers.packages import package, picture_of
from metarun.values import Text

if TYPE_CHECKING:
    from matplotlib.figure import Figure


class WandB:
    """Logs to Weights & Biases. The keys are explained in `configs/logger/wandb.yaml`."""

    draws_figures = True

    def __init__(
        self,
        project: Text = "metarun",
        entity: Text | None = None,
        mode: Literal["online", "offline"] | None = None,
        group: Text | None = None,
        tags: Sequence[Text] = (),
    ) -> None:
        self.project, self.entity, self.mode, self.group, self.tags = project, entity, mode, group, tags

    def start(self, run: RunStart) -> None:
        """Open the run, or the run of the stopped training again."""
        self._wandb = package("wandb", "wandb")
        check_place(run.folder / WANDB)
        mode = self.mode or os.environ.get("WANDB_MODE", "online")
        known = noted(run, "wandb", lambda: secrets.token_hex(8))
        self._run = self._wandb.init(
            project=self.project,
            entity=self.entity,
            mode=mode,
            id=known.id,
            name=run.name,
            group=self.group or sweep_of(run),
            tags=list(self.tags) or None,
            dir=str(run.folder),
            config=dict(run.config),
            resume="allow" if known.earlier else None,
            settings=self._wandb.Settings(console="off", silent=True),
        )
        self._first = int(self._run.step)  # of a run that the server knows: the step after its last one
        if mode == "online":
            print(f"metarun: wandb shows the run at {self._run.url}")
        if self._first == 0:
            for step, values in run.history():
                self.log(step, values)

    def log(self, step: int, values: Mapping[str, float]) -> None:
        """Log the values, unless the server has values of this step."""
        if step >= self._first:
            self._run.log(dict(values), step=step)

    def figure(self, step: int, tag: str, figure: Figure) -> None:
        """Log a picture."""
        self.log(step, {tag: self._wandb.Image(picture_of(figure))})

    def result(self, step: int, metrics: Mapping[str, float]) -> None:
        """Put the final metrics into the summary of the run, and end the run as a success."""
        self._run.summary.update(dict(metrics))
        self._run.finish()

    def sync(self) -> None:
        """Nothing: the library's own process writes the values."""

    def close(self) -> None:
        """End the run; without a result, it counts as failed until it is resumed."""
        self._run.finish(exit_code=1)
