"""Records of a run: metrics.jsonl and TensorBoard."""

from __future__ import annotations

import json
import math
import os
import time
from collections.abc import Iterator, Mapping
from pathlib import Path
from typing import TYPE_CHECKING, Any

from metarun.errors import UserError
from metarun.files.paths import word
from metarun.files.run_folder import METRICS, TENSORBOARD
from metarun.files.writing import check_place, open_to_append, open_to_read, write_whole

if TYPE_CHECKING:
    from matplotlib.figure import Figure
    from torch.utils.tensorboard import SummaryWriter

TIME_KEYS = ("time", "tasks_per_second", "waiting")
"""Keys whose values may differ between two equal runs."""
QUEUE = 1000
"""Most values that wait for TensorBoard's thread; a validation logs some tens of values at once."""


class Tracker:
    """Writes numbers, pictures and hyperparameters of one run into its folder.

    folder: the run folder. The tracker writes `metrics.jsonl` and, with `tensorboard`, `tensorboard/` into it.
    resume_step: None for a new run. For a resumed run, its step: the tracker deletes the values that the killed run logged after it.

    Raises UserError if the folder cannot be written, or if a new run would overwrite the metrics of another run.
    """

    def __init__(self, folder: str | Path, *, tensorboard: bool = True, resume_step: int | None = None) -> None:
        self.folder = Path(folder)
        try:
            self.folder.mkdir(parents=True, exist_ok=True)
            check_place(self.folder / TENSORBOARD)
            kept = _cut_back(self.folder / METRICS, resume_step)
            self._file = open_to_append(self.folder / METRICS)
        except OSError as error:
            raise UserError(f"cannot write into the run folder {self.folder}: {error.strerror}.") from error
        self._start = time.monotonic() - kept
        self._writer = _tensorboard_writer(self.folder / TENSORBOARD, resume_step) if tensorboard else None

    def log(self, step: int, values: Mapping[str, Any]) -> None:
        """Append one line: the step, the values, and the seconds of training so far. A non-finite value becomes null."""
        numbers = {name: float(value) for name, value in values.items()}
        line = {"step": step, **{name: value if math.isfinite(value) else None for name, value in numbers.items()}}
        line["time"] = round(time.monotonic() - self._start, 3)
        self._file.write(f"{json.dumps(line)}\n".encode())
        self._file.flush()
        if self._writer is not None:
            for name, value in numbers.items():
                self._writer.add_scalar(name, value, step)

    def figure(self, step: int, tag: str, figure: Figure) -> None:
        """Add a picture to TensorBoard, if there is one, and clear the picture."""
        if self._writer is not None:
            self._writer.add_figure(tag, figure, step)
        figure.clear()

    @property
    def draws_figures(self) -> bool:
        """Whether the tracker shows figures; if not, callers need not draw any."""
        return self._writer is not None

    def hparams(self, config: Mapping[str, Any], metrics: Mapping[str, float], step: int = 0) -> None:
        """Show the run in the HPARAMS tab: its config, flattened to scalars, and its final metrics."""
        if self._writer is None:
            return
        from torch.utils.tensorboard.summary import hparams

        # SummaryWriter.add_hparams would write into a subfolder, and the tab would show a second run.
        for summary in hparams(dict(flatten(config)), dict(metrics)):
            self._writer._get_file_writer().add_summary(summary)
        for name, value in metrics.items():
            self._writer.add_scalar(name, float(value), step)

    def sync(self) -> None:
        """Force the logged values to disk, so that a checkpoint written afterwards is never ahead of the log.

        Another thread may call `sync` while this thread logs. `sync` covers at least the values that were logged before the call.
        """
        os.fsync(self._file.fileno())
        if self._writer is not None:
            self._writer.flush()

    def close(self) -> None:
        """Write the pending values and close the files; a second call does nothing."""
        self._file.close()
        if self._writer is not None:
            self._writer.close()

    def __enter__(self) -> Tracker:
        return self

    def __exit__(self, *_: object) -> None:
        self.close()


def flatten(config: Mapping[str, Any], prefix: str = "") -> Iterator[tuple[str, bool | int | float | str]]:
    """Yield the leaves of a nested config as ("algo.inner_lr", 0.4). A `_target_` yields the node's name and the last part of the path."""
    for key, value in config.items():
        name = f"{prefix}{key}"
        if isinstance(value, Mapping):
            yield from flatten(value, f"{name}.")
        elif key == "_target_":
            yield prefix[:-1] or name, str(value).rsplit(".", 1)[-1]
        elif isinstance(value, (bool, int, float, str)):
            yield name, value
        else:
            yield name, "null" if value is None else str(value)


def _cut_back(path: Path, resume_step: int | None) -> float:
    """Drop the lines after `resume_step` in one rename, and return the time in the last line kept."""
    check_place(path)
    if not path.exists():
        return 0.0
    with open_to_read(path) as file:
        lines = file.read().splitlines(keepends=True)
    if lines and resume_step is None:
        raise UserError(
            f"{path.parent} holds the metrics of another run; "
            f"choose another folder, or continue that run with {word('resume', path.parent)}"
        )
    kept, seconds = [], 0.0
    for line in lines:
        entry = parse_entry(line)
        if entry is not None and resume_step is not None and entry["step"] <= resume_step:
            kept.append(line)
            seconds = float(entry.get("time") or 0.0)
    write_whole(path, b"".join(kept))
    return seconds


def parse_entry(line: bytes) -> dict[str, Any] | None:
    """Parse one line of `metrics.jsonl`, its newline included; None for a line that a kill cut short."""
    try:
        entry = json.loads(line) if line.endswith(b"\n") else None
    except ValueError:
        return None
    return entry if isinstance(entry, dict) and isinstance(entry.get("step"), int) else None


def _tensorboard_writer(folder: Path, resume_step: int | None) -> SummaryWriter:
    try:
        from torch.utils.tensorboard import SummaryWriter
    except ImportError as error:
        raise UserError(f"TensorBoard cannot be imported ({error}); install it or choose logger=jsonl.") from error
    # TensorBoard's thread opens and closes the file for every value. With a longer queue, `log` does not wait for the thread.
    return SummaryWriter(folder, max_queue=QUEUE, purge_step=None if resume_step is None else resume_step + 1)
