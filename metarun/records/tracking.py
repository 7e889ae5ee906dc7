"""Records of a run: metrics.jsonl, TensorBoard, and the progress display."""

from __future__ import annotations

import json
import math
import os
import sys
import time
from collections.abc import Iterator, Mapping
from pathlib import Path
from typing import TYPE_CHECKING, Any, TextIO

from metarun.errors import UserError
from metarun.files.paths import word
from metarun.files.run_folder import METRICS, TENSORBOARD
from metarun.files.writing import check_place, open_to_append, open_to_read, write_whole
from metarun.values import plain

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


class Progress:
    """Shows the latest values and the time left: as a bar on a terminal, as lines elsewhere. Both go to stderr.

    steps: the steps of the whole run. start: the first step of a resumed run. every: least seconds between two lines.
    """

    def __init__(self, steps: int, start: int = 0, *, every: float = 5.0, stream: TextIO | None = None) -> None:
        self.steps, self.start, self.every = steps, start, every
        self._stream = sys.stderr if stream is None else stream
        self._shown: dict[str, Any] = {}
        self._begun, self._printed = time.monotonic(), -math.inf
        self._bar = self._make_bar() if self._stream.isatty() else None

    def update(self, step: int, **shown: Any) -> None:
        """Show that `step` steps are done, and the latest values. Numbers get 4 digits; text stays as it is."""
        self._shown.update(shown)
        if self._bar is not None:
            if shown:
                self._bar.set_postfix_str("  ".join(self._texts()), refresh=False)
            self._bar.update(step - self._bar.n)
        elif shown and (step >= self.steps or time.monotonic() - self._printed >= self.every):
            self._printed = time.monotonic()
            print("  ".join([f"step {step}/{self.steps}", *self._texts(), self._left(step)]), file=self._stream, flush=True)

    def say(self, text: str) -> None:
        """Print a line without disturbing the bar."""
        if self._bar is not None:
            self._bar.write(text, file=self._stream)
        else:
            print(text, file=self._stream, flush=True)

    def close(self) -> None:
        """Keep the bar on the screen, and go to the next line."""
        if self._bar is not None:
            self._bar.close()

    def __enter__(self) -> Progress:
        return self

    def __exit__(self, *_: object) -> None:
        self.close()

    def _make_bar(self) -> Any:
        from tqdm import tqdm

        form = "{percentage:3.0f}% {bar} {n}/{total}  {postfix}  {remaining} left"
        return tqdm(total=self.steps, initial=self.start, file=self._stream, dynamic_ncols=True, bar_format=form, mininterval=0.2)

    def _texts(self) -> list[str]:
        words = {name: value if isinstance(value, str) else plain(float(value)) for name, value in self._shown.items()}
        return [f"{word} {name}" if name == "tasks/s" else f"{name} {word}" for name, word in words.items()]

    def _left(self, step: int) -> str:
        done = max(step - self.start, 1)
        seconds = round((time.monotonic() - self._begun) / done * max(self.steps - step, 0))
        hours, rest = divmod(seconds, 3600)
        return (f"{hours}:{rest // 60:02}:{rest % 60:02}" if hours else f"{rest // 60:02}:{rest % 60:02}") + " left"


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
