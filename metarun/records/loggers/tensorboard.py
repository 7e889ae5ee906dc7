"""The logger `tensorboard`: event files in the run folder, which TensorBoard shows under the folder's name."""

from __future__ import annotations

from collections.abc import Mapping
from typing import TYPE_CHECKING, Any

from metarun.errors import UserError
from metarun.files.run_folder import TENSORBOARD
from metarun.files.writing import check_place
from metarun.records.loggers.logger import RunStart
from metarun.records.loggers.packages import picture_of
from metarun.records.loggers.params import shown

if TYPE_CHECKING:
    from matplotlib.figure import Figure

QUEUE = 1000
"""Most values that wait for TensorBoard's thread; a validation logs some tens of values at once."""
HALF, BAND = "val/ci95", "val_interval"
"""Half the width of the 95 % interval of the validation score; and the group of its two ends, which a chart shows as a band."""


class TensorBoard:
    """Writes event files into the run folder. A run of an earlier version has them in its folder `tensorboard/`, and goes on there."""

    draws_figures = True

    def start(self, run: RunStart) -> None:
        """Open the event file; a resumed run hides what the stopped run logged after its checkpoint."""
        try:
            from torch.utils.tensorboard import SummaryWriter
        except ImportError as error:
            raise UserError(f"TensorBoard cannot be imported ({error}); install it or choose logger=jsonl.") from error
        check_place(run.folder / TENSORBOARD)
        folder = run.folder / TENSORBOARD if (run.folder / TENSORBOARD).is_dir() else run.folder
        # TensorBoard's thread opens and closes the file for every value. With a longer queue, `log` does not wait for the thread.
        purge = None if run.resume_step is None else run.resume_step + 1
        known = run.resume_step is not None and any(folder.glob("events.out.tfevents.*"))
        self._writer: Any = SummaryWriter(folder, max_queue=QUEUE, purge_step=purge)
        self._typed = {key: _as_shown(key, value) for key, value in run.typed.items()}
        self._has_chart = False
        if self._typed:
            self._add_hparams(0)
        for step, values in run.history() if not known else ():  # none of a new run
            self.log(step, values)

    def log(self, step: int, values: Mapping[str, float]) -> None:
        """Add the values; in place of half the width of an interval, the two ends of the interval."""
        for name, value in values.items():
            if not name.startswith(HALF):
                self._writer.add_scalar(name, value, step)
        if HALF in values:
            self._add_band(step, *next((name, value) for name, value in values.items() if name.startswith("val/")), values[HALF])

    def figure(self, step: int, tag: str, figure: Figure) -> None:
        """Add a picture."""
        import numpy as np

        self._writer.add_image(tag, np.asarray(picture_of(figure)), step, dataformats="HWC")

    def result(self, step: int, metrics: Mapping[str, float]) -> None:
        """Add the final metrics, and end the session in the tab HPARAMS."""
        for name, value in metrics.items():
            self._writer.add_scalar(name, value, step)
        self._add_hparams(1)

    def sync(self) -> None:
        """Write the values that wait to the file."""
        self._writer.flush()

    def close(self) -> None:
        """Close the file."""
        self._writer.close()

    def _add_band(self, step: int, name: str, score: float, half: float) -> None:
        """Add the ends of the interval around a score, and once the chart of the tab CUSTOM SCALARS that shows them as a band."""
        ends = {f"{BAND}/low": score - half, f"{BAND}/high": score + half}
        for tag, value in ends.items():
            self._writer.add_scalar(tag, value, step)
        if not self._has_chart:
            self._has_chart = True
            self._writer.add_custom_scalars({"validation": {f"{name}, 95 % interval": ["Margin", [name, *ends]]}})

    def _add_hparams(self, which: int) -> None:
        """Add the start or the end of a session of the tab HPARAMS, with what was typed or swept. which: 0 or 1.

        The summary of the experiment stays out: TensorBoard would take the columns of the first run that it finds for all runs. Without
        it, the columns are those of all runs. `SummaryWriter.add_hparams` would write into a subfolder, which the tab shows as another run.
        """
        from torch.utils.tensorboard.summary import hparams

        self._writer.file_writer.add_summary(hparams(self._typed, {})[1 + which])


def _as_shown(key: str, value: Any) -> int | float | str:
    """Return a value of the config for a column: a switch as "true" or "false", and a seed as text, since TensorBoard would show 1.0000."""
    if isinstance(value, bool):
        return str(value).lower()
    return str(value) if key.rpartition(".")[2].endswith("seed") else shown(value)
